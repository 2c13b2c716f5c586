"""Overlapping windows over a recording of any length, cut so that their frames tile it exactly.

Every window starts on a multiple of the encoder's hop, so frame `i` of a window that starts at
sample `s` is frame `s / hop + i` of the recording. Neighbours are cut in the middle of their
overlap: the frames next to a window's edge, which lack context, are never used inside a recording.
The last window is moved back to full length, so that a ragged end keeps its context too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from speechjepa.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """How a recording is divided into windows."""

    window_samples: int
    """Length of a window (samples), a multiple of `hop`."""
    overlap_samples: int
    """What neighbours share (samples), a multiple of `hop`, less than half a window."""
    hop: int
    """Samples per frame of the encoder."""

    def __post_init__(self) -> None:
        if self.hop < 1:
            raise ConfigError(f"`hop` must be at least 1 sample, but is {self.hop} instead.")
        for name in ("window_samples", "overlap_samples"):
            value = getattr(self, name)
            if value % self.hop or value < 0:
                raise ConfigError(
                    f"`{name}` must be a multiple of the hop ({self.hop} samples), "
                    f"but is {value} instead."
                )
        if self.window_samples < self.hop:
            raise ConfigError("a window must hold at least one frame, but `window_samples` is 0.")
        if 2 * self.overlap_samples > self.window_samples:
            raise ConfigError(
                f"the overlap must be at most half of the window ({self.window_samples} samples), "
                f"but is {self.overlap_samples} samples instead. Take a longer window or a "
                "shorter overlap."
            )

    @classmethod
    def from_seconds(
        cls, window_seconds: float, overlap_seconds: float, *, hop: int, sample_rate: int
    ) -> WindowConfig:
        """Return the nearest configuration whose lengths are whole frames.

        Args:
            window_seconds: Length of a window (seconds).
            overlap_seconds: What neighbours share (seconds).
            hop: Samples per frame of the encoder.
            sample_rate: Samples per second of the waveform (Hz).
        """
        if not window_seconds > 0 or not overlap_seconds >= 0:
            raise ConfigError(
                "the window must be longer than 0 s and the overlap 0 s or longer, but they are "
                f"{window_seconds} s and {overlap_seconds} s instead."
            )
        return cls(
            window_samples=max(1, round(window_seconds * sample_rate / hop)) * hop,
            overlap_samples=round(overlap_seconds * sample_rate / hop) * hop,
            hop=hop,
        )


@dataclass(frozen=True, kw_only=True)
class Window:
    """One window and the frames of the recording that are taken from it."""

    start: int
    """First sample, a multiple of the hop."""
    num_samples: int
    first_frame: int
    """First frame of the recording that this window gives."""
    end_frame: int | None
    """One past the last frame it gives; None = as many as the encoder makes (last window)."""
    hop: int

    @property
    def end(self) -> int:
        """One past the last sample."""
        return self.start + self.num_samples

    @property
    def frame_slice(self) -> slice:
        """Which of the window's own frames to keep."""
        offset = self.start // self.hop
        stop = None if self.end_frame is None else self.end_frame - offset
        return slice(self.first_frame - offset, stop)


def stream_windows(
    blocks: Iterable[np.ndarray], config: WindowConfig
) -> Iterator[tuple[Window, np.ndarray]]:
    """Yield each window of a stream of samples with its waveform (S,) float32.

    Holds at most two windows and one block, however long the stream is. A stream that fits in one
    window gives exactly one window; an empty stream gives none.

    Args:
        blocks: Consecutive pieces (S,) of the waveform, of any lengths.
        config: Lengths of window and overlap.
    """
    size, hop = config.window_samples, config.hop
    stride = size - config.overlap_samples
    buffer = _Buffer(blocks)
    start = first_frame = 0
    while True:
        buffer.drop_before(start)
        if buffer.fill(start + stride + size):  # the next window is whole, too
            following = start + stride
        elif buffer.end > start + size:  # the next window is the last: move it back to full length
            following = -(-(buffer.end - size) // hop) * hop
        else:
            break
        end_frame = (following + start + size) // (2 * hop)
        yield (
            Window(
                start=start,
                num_samples=size,
                first_frame=first_frame,
                end_frame=end_frame,
                hop=hop,
            ),
            buffer.read(start, start + size),
        )
        start, first_frame = following, end_frame
    if buffer.end > start:
        yield (
            Window(
                start=start,
                num_samples=buffer.end - start,
                first_frame=first_frame,
                end_frame=None,
                hop=hop,
            ),
            buffer.read(start, buffer.end),
        )


def plan_windows(num_samples: int, config: WindowConfig) -> list[Window]:
    """Return the windows of a recording whose length is known.

    Args:
        num_samples: S, length of the recording (samples).
        config: Lengths of window and overlap.
    """
    size, hop = config.window_samples, config.hop
    starts = [0]
    while num_samples > starts[-1] + size:
        regular = starts[-1] + size - config.overlap_samples
        starts.append(min(regular, -(-(num_samples - size) // hop) * hop))
    cuts = [(a + size + b) // (2 * hop) for a, b in zip(starts, starts[1:], strict=False)]
    if num_samples < 1:
        return []
    return [
        Window(
            start=start,
            num_samples=min(size, num_samples - start),
            first_frame=first,
            end_frame=end,
            hop=hop,
        )
        for start, first, end in zip(starts, [0, *cuts], [*cuts, None], strict=True)
    ]


class _Buffer:
    """The part of a stream that is still needed, addressed by absolute sample."""

    def __init__(self, blocks: Iterable[np.ndarray]) -> None:
        self._blocks = iter(blocks)
        self._kept: list[np.ndarray] = []
        self._start = 0
        self.end = 0

    def fill(self, end: int) -> bool:
        """Read on until sample `end` is there; False when the stream ends before it."""
        while self.end < end:
            block = next(self._blocks, None)
            if block is None:
                return False
            self._kept.append(np.asarray(block, dtype=np.float32))
            self.end += len(block)
        return True

    def drop_before(self, start: int) -> None:
        while self._kept and self._start < start:
            unneeded = min(start - self._start, len(self._kept[0]))
            self._start += unneeded
            if unneeded == len(self._kept[0]):
                self._kept.pop(0)
            else:
                self._kept[0] = self._kept[0][unneeded:]

    def read(self, start: int, end: int) -> np.ndarray:
        if len(self._kept) > 1:
            self._kept = [np.concatenate(self._kept)]
        return self._kept[0][start - self._start : end - self._start].copy()
