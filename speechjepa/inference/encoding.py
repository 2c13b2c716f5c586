"""Logits of a recording, divided into chunks of speech, windows, or pieces of windows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from speechjepa.audio.files import stream_audio
from speechjepa.audio.voice import make_detector
from speechjepa.audio.windows import WindowConfig
from speechjepa.inference.chunks import Chunk, ChunkConfig, speech_chunks
from speechjepa.inference.pieces import PieceConfig, hear_pieces
from speechjepa.inference.stitch import stitched_stretches
from speechjepa.inference.voiced import chunk_logits

if TYPE_CHECKING:
    from speechjepa.inference.transcribe import TranscribeConfig, TranscriptionModel


def stitch_logits(
    model: TranscriptionModel, blocks: Iterable[np.ndarray], config: TranscribeConfig
) -> Iterator[Tensor]:
    """Yield the logits (T, V) float32 of consecutive stretches of a recording, none twice.

    Args:
        model: A fine-tuned model.
        blocks: Consecutive pieces (S,) of the waveform, at the model's sample rate.
        config: Settings; those of windows and batches are used.
    """
    for _, logits in encode_blocks(model, blocks, config):
        yield logits


def windows_of(model: TranscriptionModel, config: TranscribeConfig) -> WindowConfig:
    return WindowConfig.from_seconds(
        config.window_seconds, config.overlap_seconds, hop=model.hop, sample_rate=model.sample_rate
    )


def encode_blocks(
    model: TranscriptionModel, blocks: Iterable[np.ndarray], config: TranscribeConfig
) -> Iterator[tuple[int, Tensor]]:
    """Yield (samples done, logits (T, V)) of consecutive stretches."""
    chunks = _chunks(model, blocks, config)
    if chunks is not None:
        return chunk_logits(model, chunks, batch_samples=batch_samples(model, config))
    stretches = stitched_stretches(model, blocks, windows_of(model, config), config.batch_size)
    pieces = _pieces(model, config)
    if pieces is None:
        return ((stretch.end, stretch.logits) for stretch in stretches)
    return hear_pieces(model, stretches, pieces, batch_samples=batch_samples(model, config))


def batch_samples(model: TranscriptionModel, config: TranscribeConfig) -> int:
    """Return the samples of one batch, padding included."""
    return config.batch_size * windows_of(model, config).window_samples


def open_chunks(
    model: TranscriptionModel, path: str | PathLike[str], config: TranscribeConfig
) -> Iterator[Chunk] | None:
    """Start to read a file as chunks of speech; None where speech is not looked for first."""
    return _chunks(model, read_blocks(model, path, config), config)


def read_blocks(
    model: TranscriptionModel, path: str | PathLike[str], config: TranscribeConfig
) -> Iterator[np.ndarray]:
    return stream_audio(path, sample_rate=model.sample_rate, block_seconds=config.window_seconds)


def _chunks(
    model: TranscriptionModel, blocks: Iterable[np.ndarray], config: TranscribeConfig
) -> Iterator[Chunk] | None:
    vad = model.vad if config.vad == "auto" else config.vad
    if vad == "none":
        return None
    plan = ChunkConfig.of_windows(config.window_seconds, config.overlap_seconds)
    if _pieces(model, config) is not None and model.utterance_seconds is not None:
        plan = ChunkConfig.of_utterances(model.utterance_seconds)
    detector = make_detector(vad)
    return speech_chunks(blocks, detector, plan, hop=model.hop, rate=model.sample_rate)


def _pieces(model: TranscriptionModel, config: TranscribeConfig) -> PieceConfig | None:
    """Return how speech is divided to be heard again; None where that is of no use."""
    if not config.second_pass or model.utterance_seconds is None:
        return None
    pieces = PieceConfig.of_utterances(model.utterance_seconds)
    return pieces if 2 * pieces.max_seconds <= config.window_seconds else None
