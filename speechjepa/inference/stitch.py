"""Logits of a recording of any length: overlapping windows, cut in the middle of the overlaps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from speechjepa.audio.windows import Window, WindowConfig, stream_windows

if TYPE_CHECKING:
    from speechjepa.inference.transcribe import TranscriptionModel

_SHORTEST_SECONDS = 0.1  # shorter waveforms are padded to this, so that every encoder can take them


@dataclass(frozen=True)
class Stretch:
    """The next part of a recording."""

    end: int
    """Samples of the recording up to its end."""
    samples: np.ndarray
    """(S,) float32, its own."""
    logits: Tensor
    """(T, V) float32, its own."""


def stitched_stretches(
    model: TranscriptionModel, blocks: Iterable[np.ndarray], windows: WindowConfig, batch_size: int
) -> Iterator[Stretch]:
    """Yield consecutive stretches of a recording, one per window; no frame is given twice.

    Args:
        model: A fine-tuned model.
        blocks: Consecutive pieces (S,) of the waveform, at the model's sample rate.
        windows: Lengths of window and overlap.
        batch_size: Windows computed at once.
    """
    batch: list[tuple[Window, np.ndarray]] = []
    for item in stream_windows(blocks, windows):
        batch.append(item)
        if len(batch) == batch_size:
            yield from _stretches(model, batch)
            batch = []
    if batch:
        yield from _stretches(model, batch)


def frames_per_hop(model: TranscriptionModel) -> int:
    """Return the logit frames per hop of the encoder: a head may give several."""
    return round(model.hop / (model.frame_seconds * model.sample_rate))


def encode_batch(model: TranscriptionModel, waveforms: Sequence[np.ndarray]) -> list[Tensor]:
    """Return the logits (T, V) float32 of each waveform (S,), computed in one batch."""
    shortest = math.ceil(_SHORTEST_SECONDS * model.sample_rate)
    padded = torch.zeros(len(waveforms), max(shortest, *map(len, waveforms), 0))  # (B, S)
    for row, samples in enumerate(waveforms):
        padded[row, : len(samples)] = torch.from_numpy(samples)
    lengths = torch.tensor([len(samples) for samples in waveforms])
    with torch.inference_mode():
        logits, num_frames = model.logits(padded.to(model.device), lengths.to(model.device))
        logits, num_frames = logits.float().cpu(), num_frames.cpu()
    return [logits[row, : max(0, count)] for row, count in enumerate(num_frames.tolist())]


def _stretches(
    model: TranscriptionModel, batch: list[tuple[Window, np.ndarray]]
) -> Iterator[Stretch]:
    per_hop = frames_per_hop(model)
    valid = encode_batch(model, [samples for _, samples in batch])
    for (window, samples), logits in zip(batch, valid, strict=True):
        kept = window.frame_slice  # in hops of the encoder
        stop = None if kept.stop is None else kept.stop * per_hop
        end = window.end if window.end_frame is None else window.end_frame * window.hop
        yield Stretch(
            end=end,
            samples=samples[kept.start * window.hop : end - window.start],
            logits=logits[kept.start * per_hop : stop].clone(),
        )
