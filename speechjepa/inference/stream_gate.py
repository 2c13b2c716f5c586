"""Let speech through and keep long pauses back, so that noise is never taken for words.

What is kept back is neither encoded nor counted by the running statistics of the front end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from speechjepa.audio.voice import FRAME, Detector

STEP = 3 * FRAME
"""Samples that the gate decides about at once; 96 ms at 16 kHz."""
ENTER, LEAVE = 0.25, 0.15
"""Probabilities of speech at which the gate opens and stays open: rather noise than a lost word."""
BEFORE_SECONDS, AFTER_SECONDS = 0.4, 0.8
"""Let through before speech begins and after it ends (seconds)."""


class Passed(NamedTuple):
    """Samples that are let through."""

    samples: Tensor
    """(S,), perhaps none."""
    closes: bool
    """A pause follows."""


class Gate:
    """Divide one stream into speech and what lies between.

    While it is open, samples pass at once. It opens and closes at multiples of `STEP`, so that it
    does not matter how the stream is cut.

    Args:
        detector: Tells speech from everything else; None = everything passes.
        sample_rate: Hz.
    """

    def __init__(self, detector: Detector | None, sample_rate: int) -> None:
        self._detector = detector
        self._rate = sample_rate
        self._before = round(BEFORE_SECONDS * sample_rate)
        self._after = round(AFTER_SECONDS * sample_rate)
        self._is_open = detector is None
        self._held = torch.zeros(0)  # while it is closed
        self._step = torch.zeros(0)  # what is not decided about
        self._quiet = 0  # samples since speech
        self._num_samples = self._num_passed = 0
        self._segments: deque[tuple[int, int]] = deque([(0, 0)])  # (passed, stream) samples

    def push(self, samples: Tensor) -> Iterator[Passed]:
        """Take the next samples (S,) and yield what passes."""
        if self._detector is None:
            yield self._pass(samples, len(samples))
            return
        while len(samples):
            n = min(STEP - len(self._step), len(samples))
            taken, samples = samples[:n], samples[n:]
            self._step = torch.cat([self._step, taken])
            if self._is_open:
                yield self._pass(taken, n)
            else:
                self._num_samples += n
                self._held = torch.cat([self._held, taken])
            if len(self._step) == STEP:
                yield from self._decide(self._detector)
                self._step = self._step[:0]

    def finish(self) -> Iterator[Passed]:
        """Yield what the end of the stream lets pass: a word that was cut off may be there."""
        if self._detector is not None and not self._is_open:
            rest = self._detector.push(self._step.numpy())  # less than a step was not judged yet
            probabilities = np.concatenate([rest, self._detector.finish()])
            if len(probabilities) and probabilities.max() >= ENTER:
                yield self._open()

    def seconds(self, passed: float) -> float:
        """Return the time in the stream of a time in what has passed (seconds)."""
        sample = passed * self._rate
        begins = next((s for s in reversed(self._segments) if s[0] <= sample + 0.5), None)
        first_passed, first = begins or self._segments[0]
        return passed + (first - first_passed) / self._rate

    def count(self, passed: int) -> None:
        """Take it that so many samples have passed: the listener dropped what made no frame."""
        self._num_passed = passed

    def forget(self, passed: float) -> None:
        """Drop what is needed for times before this one only (seconds of what has passed)."""
        while len(self._segments) > 1 and self._segments[1][0] <= passed * self._rate:
            self._segments.popleft()

    def _pass(self, samples: Tensor, new: int, closes: bool = False) -> Passed:
        self._num_samples += new
        self._num_passed += len(samples)
        return Passed(samples, closes)

    def _decide(self, detector: Detector) -> Iterator[Passed]:
        probabilities = detector.push(self._step.numpy())
        is_speech = bool((probabilities >= (LEAVE if self._is_open else ENTER)).any())
        self._quiet = 0 if is_speech else self._quiet + STEP
        if is_speech and not self._is_open:
            yield self._open()
        elif self._is_open and self._quiet >= self._after:
            self._is_open = False
            yield self._pass(self._step[:0], 0, closes=True)
        elif not self._is_open:
            self._held = self._held[-self._before :].clone()

    def _open(self) -> Passed:
        self._is_open = True
        held, self._held = self._held, self._held[:0]
        self._segments.append((self._num_passed, self._num_samples - len(held)))
        return self._pass(held, 0)
