"""Make one channel of several: their mean, or the first where two cancel each other out."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speechjepa.errors import AudioError

logger = logging.getLogger(__name__)

Samples = NDArray[np.float32]

MAX_PEAK = 16.0
"""A floating-point file louder than this is in another scale, not merely hot."""
UNREADABLE = "Open it in an audio editor and export it as WAV or FLAC, or leave it out."
SILENT_DB = -60.0
"""Blocks below this say nothing of how the channels belong together (dB below full scale)."""
CANCELLED_DB = -20.0
"""The mean of two channels this far below the louder one is what is left of a signal that stands
in one of them upside down."""
DECIDED_SECONDS = 1.0
"""So much audible sound decides for the rest of the file (seconds)."""


class MonoMixer:
    """Takes the blocks of one recording in their order, and returns each as one channel.

    Two channels in opposite phase (a balanced cable recorded as stereo) have a mean of nothing.
    Each is the whole recording then: by the triangle inequality they differ by less than 2 dB, so
    the first is taken, and stretches of a file agree with the whole of it.

    Args:
        path: Of the recording, for messages.
        sample_rate: Hz.
    """

    def __init__(self, path: Path, sample_rate: int) -> None:
        self.path = path
        self.undecided = round(DECIDED_SECONDS * sample_rate)  # samples
        self.energies = np.zeros(3)  # of the two channels, and of their mean
        self.cancels = False

    def __call__(self, block: Samples) -> Samples:
        """Return a block (samples, channels) as (samples,), checked for sanity."""
        _refuse_insane(self.path, block)
        if block.shape[1] == 1:
            return block[:, 0]
        mean = block.mean(axis=1, dtype=np.float32)
        if block.shape[1] == 2 and self.undecided > 0 and len(block):
            self._listen(block, mean)
        return block[:, 0] if self.cancels else mean

    def _listen(self, block: Samples, mean: Samples) -> None:
        # Variances: a constant offset of a recorder is no sound.
        powers = np.array([x.var(dtype=np.float64) for x in (block[:, 0], block[:, 1], mean)])
        if powers[:2].max() < 10 ** (SILENT_DB / 10):
            return
        self.undecided -= len(block)
        self.energies += len(block) * powers
        self.cancels = self.energies[2] < 10 ** (CANCELLED_DB / 10) * self.energies[:2].max()
        if self.cancels:
            _warn(self.path)


@lru_cache(maxsize=4096)
def _warn(path: Path) -> None:
    """Say it once of each file, in however many stretches it is read."""
    logger.warning(
        "%s: its two channels are in opposite phase and cancel each other out; the first is taken",
        path,
    )


def _refuse_insane(path: Path, block: Samples) -> None:
    # A sum is finite only if every sample is: one pass, no temporary mask.
    if not np.isfinite(block.sum(dtype=np.float64)):
        raise AudioError(path, "holds samples that are not numbers (NaN or inf).", UNREADABLE)
    if block.size and max(block.max(), -block.min()) > MAX_PEAK:
        raise AudioError(
            path,
            f"holds floating-point samples up to {np.abs(block).max():.0f}, not within [-1, 1].",
            "Export it again with normalised samples, or as 16-bit WAV.",
        )
