"""Cut long recordings into utterances at their pauses: as a model hears them, or where nobody
speaks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from speechjepa.audio.files import stream_audio
from speechjepa.audio.voice import make_detector
from speechjepa.data.labels import STRETCH
from speechjepa.data.utterance import Utterance
from speechjepa.errors import AudioError
from speechjepa.inference.chunks import ChunkConfig, speech_chunks
from speechjepa.inference.encoding import encode_blocks
from speechjepa.inference.recognise import CtcTranscriber
from speechjepa.inference.search import BeamSearch
from speechjepa.inference.segment import SegmentConfig, Segmenter
from speechjepa.inference.transcribe import TranscribeConfig, TranscriptionModel

LONG_SECONDS = SegmentConfig().max_seconds
"""What is longer is no utterance: attention over minutes costs gigabytes, and a model that was
fine-tuned on sentences makes many errors in it."""


class LongTranscriber(CtcTranscriber, TranscriptionModel, Protocol):
    """A model that hears utterances and long recordings; `speechjepa.load` returns one."""

    @property
    def beam_search(self) -> BeamSearch | None: ...


@torch.inference_mode()
def cut_at_pauses(
    model: LongTranscriber, recording: Utterance, *, batch_seconds: float = 120.0
) -> Iterator[tuple[Utterance, NDArray[np.float32]]]:
    """Yield the stretches of a recording in which characters are heard, and their logits (T, V).

    They are the segments that `transcribe` would write, in bounded memory however long it is. A
    stretch's id is the recording's with `@START-STOP` in milliseconds of the file.

    Args:
        model: A fine-tuned model.
        recording: With its duration.
        batch_seconds: Audio encoded at once, padding included (seconds).

    Raises:
        AudioError: The file cannot be read; one that is damaged raises when all that comes before
            the damage has been yielded.
    """
    config = TranscribeConfig()
    config = replace(config, batch_size=max(1, int(batch_seconds / config.window_seconds)))
    blocks = stream_audio(
        recording.audio_path,
        sample_rate=model.sample_rate,
        start=recording.start,
        duration=recording.duration,
        block_seconds=config.window_seconds,
    )
    damage: list[AudioError] = []

    def readable() -> Iterator[NDArray[np.float32]]:
        try:
            yield from blocks
        except AudioError as error:
            damage.append(error)

    segmenter = Segmenter(
        frame_seconds=model.frame_seconds,
        blank_id=model.vocabulary.blank_id,
        word_boundary_id=model.vocabulary.word_boundary_id,
        config=config.segments,
    )

    def stretch(first_frame: int, num_frames: int, heard_seconds: float) -> Utterance:
        start = first_frame * model.frame_seconds
        stop = min(start + num_frames * model.frame_seconds, heard_seconds)
        return _stretch(recording, start, stop)

    seconds = 0.0
    for samples, logits in encode_blocks(model, readable(), config):
        seconds = samples / model.sample_rate
        for span in segmenter.push(logits):
            yield stretch(span.first_frame, len(span.logits), seconds), span.logits.numpy()
    for span in segmenter.finish():
        yield stretch(span.first_frame, len(span.logits), seconds), span.logits.numpy()
    if damage:
        raise damage[0]


def cut_where_nobody_speaks(
    recording: Utterance, *, sample_rate: int, max_seconds: float
) -> Iterator[Utterance]:
    """Yield the stretches of speech of a recording, found by Silero's detector, in order of time.

    Needs no model that knows the language. Ids are as in `cut_at_pauses`; memory is bounded.

    Args:
        recording: Of any length.
        sample_rate: 16000 (Hz).
        max_seconds: Speech that goes on for longer is cut at its longest pause (seconds).

    Raises:
        AudioError: The file cannot be read; of one that is damaged what comes before is yielded.
    """
    config = ChunkConfig(
        max_seconds=max_seconds,
        target_seconds=min(4.0, max_seconds),
        pause_seconds=0.4,
        long_pause_seconds=0.8,
        margin_seconds=0.15,
        context_seconds=0.0,
    )
    blocks = stream_audio(
        recording.audio_path,
        sample_rate=sample_rate,
        start=recording.start,
        duration=recording.duration,
    )
    detector = make_detector("silero")
    for chunk in speech_chunks(blocks, detector, config, hop=1, rate=sample_rate):
        if chunk.samples is not None:
            yield _stretch(recording, chunk.start / sample_rate, chunk.end / sample_rate)


def _stretch(recording: Utterance, start: float, stop: float) -> Utterance:
    """Return what lies between two times of a recording (seconds from where it starts)."""
    first, last = (round(1000 * (recording.start + seconds)) for seconds in (start, stop))
    whole, _, place = recording.id.rpartition("@")  # a gap between transcripts has times in its id
    name = whole if STRETCH.fullmatch(place) else recording.id
    return replace(
        recording,
        id=f"{name}@{first}-{last}",
        start=recording.start + start,
        duration=stop - start,
    )
