"""Divide a recording where speech pauses, before anything is decoded.

Chunks and the silence between them tile the recording. A chunk holds speech and begins and ends in
pauses, so it needs no overlap with its neighbours; only speech that goes on for longer than a chunk
may be is cut inside, and then heard beyond the cut on both sides. Silence is not encoded at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from speechjepa.audio.voice import FRAME, FRAME_SECONDS, RATE, Detector, SpeechFrames
from speechjepa.errors import ConfigError
from speechjepa.inference.segment import SegmentConfig, Segmenter, SegmentLogits

_PARTING_SECONDS = 0.1  # a pause between words; the closure of a stop is shorter


@dataclass(frozen=True, kw_only=True)
class ChunkConfig:
    """How speech is divided, in seconds."""

    max_seconds: float
    """A chunk that grows longer is cut at its longest pause; a recording that is no longer than
    this is one chunk, if there is any speech in it."""
    target_seconds: float
    """From this length on a chunk ends at the next `pause_seconds`."""
    pause_seconds: float
    long_pause_seconds: float
    """A pause this long always ends a chunk."""
    margin_seconds: float
    """Silence kept on both sides of a chunk; less than half of `pause_seconds`."""
    context_seconds: float
    """Heard, but not kept, on a side where the speech goes on without a pause."""

    @classmethod
    def of_windows(cls, seconds: float, overlap_seconds: float) -> ChunkConfig:
        """Return the chunks for a model that is at home in windows of this length (seconds)."""
        long_pause = min(3.0, seconds / 4)
        pause = min(0.6, long_pause)
        return cls(
            max_seconds=seconds,
            target_seconds=0.5 * seconds,
            pause_seconds=pause,
            long_pause_seconds=long_pause,
            margin_seconds=0.4 * pause,
            context_seconds=overlap_seconds / 2,
        )

    @classmethod
    def of_utterances(cls, seconds: float) -> ChunkConfig:
        """Return the chunks for a model fine-tuned on utterances of this mean length (seconds)."""
        return cls(
            max_seconds=2.0 * seconds,
            target_seconds=0.4 * seconds,
            pause_seconds=0.3,
            long_pause_seconds=0.4,
            margin_seconds=0.12,
            context_seconds=0.5,
        )


@dataclass(frozen=True, eq=False)
class Chunk:
    """Samples [start, end) of a recording: speech, or what lies between."""

    start: int
    end: int
    heard_from: int
    """The sample that `samples` begins with."""
    samples: np.ndarray | None
    """(S,) float32, what is encoded; None where there is no speech."""
    parts_words: bool = False
    """Whether it touches the chunk before it in a pause that is long enough to part words."""


def speech_chunks(
    blocks: Iterable[np.ndarray], detector: Detector, config: ChunkConfig, *, hop: int, rate: int
) -> Iterator[Chunk]:
    """Yield a stream of samples as chunks that tile it; those of silence have no samples.

    Holds the longest chunk, its context and one block, however long the stream is.

    Args:
        blocks: Consecutive pieces (S,) of the waveform.
        detector: Of speech; new for every recording.
        config: How speech is divided.
        hop: Samples per frame of the encoder; all chunks but the last end on a multiple.
        rate: Samples per second (Hz).

    Raises:
        ConfigError: The rate is not the one that speech can be found at.
    """
    if rate != RATE:
        raise ConfigError(
            f"speech is found at {RATE} Hz only, but the model takes {rate} Hz: give `--vad none`."
        )
    recording = _Recording(detector, config, hop)
    for block in blocks:
        yield from recording.push(np.asarray(block, np.float32))
    yield from recording.finish()


class _Planned(NamedTuple):
    """A chunk that is not made yet."""

    start: int
    end: int
    parts_words: bool


class _Recording:
    """The part of a recording that is not in a chunk yet."""

    def __init__(self, detector: Detector, config: ChunkConfig, hop: int) -> None:
        self._hop = hop
        self._speech = SpeechFrames(detector)
        self._planner = Segmenter(
            frame_seconds=FRAME_SECONDS,
            blank_id=0,
            word_boundary_id=None,
            config=SegmentConfig(
                long_pause_seconds=config.long_pause_seconds,
                pause_seconds=config.pause_seconds,
                target_seconds=config.target_seconds,
                max_seconds=config.max_seconds,
                margin_seconds=config.margin_seconds,
            ),
        )
        self._longest = round(config.max_seconds * RATE)
        self._context = round(config.context_seconds * RATE)
        self._samples = np.zeros(0, np.float32)  # [self._from, ...)
        self._from = 0
        self._end = 0
        self._done = 0  # samples that chunks were made of
        self._spoken_to = -1  # where the last chunk of speech ended
        self._planned: list[_Planned] = []
        self._silent_end = 0  # frames of silence that the last planned chunk ends with

    def push(self, block: np.ndarray) -> Iterator[Chunk]:
        self._samples = np.concatenate([self._samples, block])
        self._end += len(block)
        self._plan(self._planner.push(_as_logits(self._speech.push(block))))
        if self._end <= self._longest:
            return  # as yet it may be one chunk
        while self._planned and self._end >= self._planned[0].end + self._context + self._hop:
            yield from self._chunk(self._planned.pop(0))
        # Nothing before what a chunk to come may hold is speech.
        coming = [planned.start for planned in self._planned] + [self._planner.kept_from * FRAME]
        yield from self._silence(min(coming) // self._hop * self._hop)
        self._forget()

    def finish(self) -> Iterator[Chunk]:
        last = self._speech.finish()
        self._plan(self._planner.push(_as_logits(last)))
        self._plan(self._planner.finish())
        if self._end <= self._longest:
            whole = _Planned(0, self._end, parts_words=False)
            self._planned = [whole] if self._speech.was_heard else []
        while self._planned:
            yield from self._chunk(self._planned.pop(0))
        yield from self._silence(self._end)

    def _plan(self, segments: list[SegmentLogits]) -> None:
        for segment in segments:
            spoken = segment.logits.argmax(dim=-1).nonzero()
            first, last = int(spoken[0]), int(spoken[-1])
            pause_seconds = (self._silent_end + first) * FRAME_SECONDS
            self._silent_end = len(segment.logits) - 1 - last
            start, end = segment.first_frame, segment.first_frame + len(segment.logits)
            self._planned.append(
                _Planned(start * FRAME, end * FRAME, pause_seconds >= _PARTING_SECONDS)
            )

    def _chunk(self, planned: _Planned) -> Iterator[Chunk]:
        hop = self._hop
        start = max(self._done, planned.start // hop * hop)
        end = self._end if planned.end >= self._end else planned.end // hop * hop
        if end <= start:
            return
        goes_on_before = start == self._spoken_to
        yield from self._silence(start)
        heard_from = (
            max(self._from, start - self._context // hop * hop) if goes_on_before else start
        )
        # One hop more, since some encoders give no frame for the last one.
        beyond = hop + (self._context if self._goes_on_after(end) else 0)
        heard = self._samples[heard_from - self._from : end + beyond - self._from].copy()
        parts_words = goes_on_before and planned.parts_words
        yield Chunk(start, end, heard_from, heard, parts_words)
        self._done = self._spoken_to = end

    def _goes_on_after(self, end: int) -> bool:
        following = self._planned[0].start if self._planned else self._planner.kept_from * FRAME
        return following // self._hop * self._hop <= end < self._end

    def _silence(self, end: int) -> Iterator[Chunk]:
        if end > self._done:
            yield Chunk(self._done, end, self._done, None)
            self._done = end

    def _forget(self) -> None:
        needless = max(0, self._done - self._context - self._hop) - self._from
        if needless > 0:
            self._samples = self._samples[needless:].copy()
            self._from += needless


def _as_logits(is_speech: np.ndarray) -> torch.Tensor:
    """Return (T, 2): symbol 1 where there is speech, for the `Segmenter`."""
    ones = torch.from_numpy(is_speech.astype(np.float32))
    return torch.stack([0.5 - ones, ones - 0.5], dim=1)
