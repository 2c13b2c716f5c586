"""Loudness: bring recordings of one voice to one level."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SPEECH_LEVEL = 0.08
"""Root mean square of speech, pauses left out (-22 dB below full scale)."""
_BELOW_LOUDEST = 30.0
"""Frames further below the loudest are pauses (dB)."""
_PEAK = 0.95


def set_level(waveform: NDArray[np.float32], level: float = SPEECH_LEVEL) -> NDArray[np.float32]:
    """Return a waveform (S,) whose speech has this level, or less where peaks would clip.

    Args:
        waveform: (S,) in [-1, 1]; silence stays as it is.
        level: Root mean square of the frames of 20 ms less than 30 dB below the loudest.
    """
    frames = waveform[: len(waveform) // 320 * 320].reshape(-1, 320).astype(np.float64)
    power = np.square(frames).mean(axis=1)
    if not len(power) or power.max() < 1e-9:
        return waveform
    speech = power[power >= power.max() * 10 ** (-_BELOW_LOUDEST / 10)]
    gain = min(level / np.sqrt(speech.mean()), _PEAK / float(np.abs(waveform).max()))
    return (waveform * gain).astype(np.float32)
