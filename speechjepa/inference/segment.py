"""Divide a stream of CTC logits into segments at pauses, as it comes in.

A pause is a run of frames whose best symbol is no character (blank or word boundary). Decisions
depend on the frames alone, not on how the stream is cut into pieces, and memory is bounded by the
longest segment.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from speechjepa.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """Where to cut, in seconds."""

    long_pause_seconds: float = 1.0
    """A pause this long always ends a segment, with or without a word boundary in it."""
    pause_seconds: float = 0.4
    """A pause this long with a word boundary in it ends a segment that is long enough."""
    target_seconds: float = 4.0
    """From this length on a segment ends at the next `pause_seconds`."""
    max_seconds: float = 15.0
    """A longer segment is cut at the longest pause inside it that has a word boundary."""
    margin_seconds: float = 0.2
    """Silence kept on both sides of a segment; at most half of the pause."""

    def __post_init__(self) -> None:
        if not 0 < self.pause_seconds <= self.long_pause_seconds:
            raise ConfigError(
                "`pause_seconds` must be above 0 and at most `long_pause_seconds` "
                f"({self.long_pause_seconds}), but is {self.pause_seconds} instead."
            )
        if not 0 < self.target_seconds <= self.max_seconds:
            raise ConfigError(
                f"`target_seconds` must be above 0 and at most `max_seconds` ({self.max_seconds}), "
                f"but is {self.target_seconds} instead."
            )
        if not 0 <= 2 * self.margin_seconds <= self.pause_seconds:
            raise ConfigError(
                f"`margin_seconds` must be at most half of `pause_seconds` ({self.pause_seconds}), "
                f"but is {self.margin_seconds} instead."
            )


@dataclass(frozen=True)
class SegmentLogits:
    """The logits of one segment."""

    first_frame: int
    """Frame of the recording that `logits` starts at."""
    logits: Tensor
    """(T, V) float32."""


@dataclass
class _Pause:
    """Frames [start, end) without a character."""

    start: int
    end: int
    has_boundary: bool


class Segmenter:
    """Cut a stream of logits into segments.

    Args:
        frame_seconds: Length of a frame (seconds).
        blank_id: The CTC blank.
        word_boundary_id: The symbol between words; None when the vocabulary has none, and then
            every pause may part words.
        config: Where to cut.
    """

    def __init__(
        self,
        *,
        frame_seconds: float,
        blank_id: int,
        word_boundary_id: int | None,
        config: SegmentConfig,
    ) -> None:
        self._blank_id = blank_id
        self._boundary_id = word_boundary_id
        self._long_pause = max(1, round(config.long_pause_seconds / frame_seconds))
        self._pause = max(1, round(config.pause_seconds / frame_seconds))
        self._target = max(1, round(config.target_seconds / frame_seconds))
        self._max = max(1, round(config.max_seconds / frame_seconds))
        self._margin = round(config.margin_seconds / frame_seconds)
        self._logits: list[Tensor] = []  # frames [self._kept_from, ...) of the recording
        self._kept_from = 0
        self._num_frames = 0
        self._left_limit = 0  # the previous segment owns what is before it
        self._first: int | None = None  # first character of the segment that is open
        self._last = -1  # its last character so far
        self._pauses: list[_Pause] = []  # inside it, closed
        self._open_pause: _Pause | None = None

    @property
    def kept_from(self) -> int:
        """The first frame that a segment still to come may hold."""
        return self._kept_from

    def push(self, logits: Tensor) -> list[SegmentLogits]:
        """Take the next frames (T, V) and return the segments that they complete."""
        if len(logits) == 0:
            return []
        self._logits.append(logits)
        start = self._num_frames
        self._num_frames += len(logits)
        done = []
        for frame, symbol in enumerate(logits.argmax(dim=-1).tolist(), start=start):
            segment = (
                self._on_silence(frame, symbol == self._boundary_id)
                if symbol in (self._blank_id, self._boundary_id)
                else self._on_character(frame)
            )
            if segment is not None:
                done.append(segment)
        self._forget(self._num_frames if self._first is None else self._first)
        return done

    def finish(self) -> list[SegmentLogits]:
        """Return the segment that the end of the recording completes, if one is open."""
        if self._first is None:
            return []
        last_pause = _Pause(self._last + 1, self._num_frames, has_boundary=True)
        return [self._close(last_pause, limit=self._num_frames)]

    def _on_silence(self, frame: int, is_boundary: bool) -> SegmentLogits | None:
        if self._first is None:
            return None
        if self._open_pause is None:
            self._open_pause = _Pause(frame, frame, has_boundary=self._boundary_id is None)
        pause = self._open_pause
        pause.end = frame + 1
        pause.has_boundary |= is_boundary
        length = pause.end - pause.start
        is_long_enough = pause.start - self._first >= self._target
        if length < self._long_pause and not (
            length >= self._pause and pause.has_boundary and is_long_enough
        ):
            return None
        return self._close(pause)

    def _on_character(self, frame: int) -> SegmentLogits | None:
        if self._first is None:
            self._first = self._last = frame
            return None
        if self._open_pause is not None:
            self._pauses.append(self._open_pause)
            self._open_pause = None
        segment = None
        if frame + 1 - self._first > self._max:
            segment = self._cut_inside(frame)
        self._last = frame
        return segment

    def _cut_inside(self, frame: int) -> SegmentLogits:
        """End the open segment at its best pause and begin the next one after it."""
        assert self._first is not None
        at_boundary = [pause for pause in self._pauses if pause.has_boundary]
        usable = at_boundary or self._pauses or [_Pause(frame, frame, has_boundary=False)]
        late = [pause for pause in usable if pause.start - self._first >= self._target]
        best = max(late or usable, key=lambda pause: (pause.end - pause.start, pause.start))
        later = [pause for pause in self._pauses if pause.start >= best.end and pause is not best]
        segment = self._close(best)
        self._first = best.end
        self._pauses = later
        return segment

    def _close(self, pause: _Pause, *, limit: int | None = None) -> SegmentLogits:
        """Take the open segment up to a pause, with its margins of silence.

        Args:
            pause: What ends the segment.
            limit: The margin goes no further than this frame; None = the middle of the pause.
        """
        assert self._first is not None
        middle = (pause.start + pause.end) // 2
        end = min(pause.start + self._margin, middle if limit is None else limit)
        start = max(self._first - self._margin, self._left_limit)
        self._left_limit = end
        self._first = None
        self._pauses = []
        self._open_pause = None
        kept = torch.cat(self._logits)  # (frames since kept_from, V)
        self._logits = [kept]
        return SegmentLogits(start, kept[start - self._kept_from : end - self._kept_from].clone())

    def _forget(self, frame: int) -> None:
        """Drop frames that no segment from `frame` on can need."""
        needless = max(self._left_limit, frame - self._margin) - self._kept_from
        if needless > 0:
            self._logits = [torch.cat(self._logits)[needless:].clone()]
            self._kept_from += needless
