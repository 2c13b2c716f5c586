"""Pitch of the voice, every 10 ms, by autocorrelation and a search for a smooth path."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LOWEST, HIGHEST = 60.0, 480.0
"""Pitches that are told apart (Hz)."""
_STEPS = 36
"""Candidates per octave; the pitch itself is finer."""
_WINDOW = 0.025
"""What is compared with its like a period later (seconds)."""
_UNVOICED = 0.55
"""Correlation below which a frame counts as unvoiced, at equal cost of change."""
_HIGHER = 0.02
"""Taken from a candidate per octave below the highest: two periods correlate as well as one."""
_STEP_COST, _MAX_STEPS = 0.03, 24
"""Of a change by one candidate from a frame to the next; larger changes cost as much as this."""
_SWITCH_COST = 0.4
"""Of a change between voiced and unvoiced."""


class Pitch(NamedTuple):
    """Pitch of each frame of 10 ms."""

    hertz: NDArray[np.float32]
    """(T,) interpolated where the voice is silent; nowhere voiced: 0 throughout."""
    voiced: NDArray[np.bool_]
    """(T,)"""


def track_pitch(waveform: NDArray[np.float32], sample_rate: int = 16000) -> Pitch:
    """Find the pitch of speech by one voice.

    Normalised cross-correlation of 25 ms with what follows one period later, and the path of
    least cost through its candidates (as Talkin, "A robust algorithm for pitch tracking", 1995).

    Args:
        waveform: (S,) in [-1, 1].
        sample_rate: Hz.

    Returns:
        S // (sample_rate / 100) frames; frame t is centred on the middle of its 10 ms.
    """
    hop = sample_rate // 100
    num_frames = len(waveform) // hop
    if num_frames == 0:
        return Pitch(np.zeros(0, np.float32), np.zeros(0, np.bool_))
    lags = np.arange(int(sample_rate / HIGHEST) - 2, int(sample_rate / LOWEST) + 3)
    correlation = _correlation(waveform, sample_rate, num_frames, lags)
    num_candidates = int(np.log2(HIGHEST / LOWEST) * _STEPS) + 1
    candidates = HIGHEST * 2.0 ** (-np.arange(num_candidates) / _STEPS)
    at = sample_rate / candidates - lags[0]  # position on the axis of lags
    half = 2.0 ** (0.5 / _STEPS)
    # The highest within the candidate's share of the lags: peaks may be narrower than a share.
    score = np.stack(
        [
            correlation[:, int((place + lags[0]) / half - lags[0]) : end].max(axis=1)
            for place, end in zip(
                at, np.ceil((at + lags[0]) * half - lags[0]).astype(int) + 1, strict=True
            )
        ],
        axis=1,
    )
    score = score - (_HIGHER * np.arange(num_candidates) / _STEPS).astype(np.float32)
    path = _best_path(score)
    voiced = path < num_candidates
    if not voiced.any():
        return Pitch(np.zeros(num_frames, np.float32), voiced)
    frames = np.flatnonzero(voiced)
    lag = _refine(correlation[frames], at[path[frames]]) + lags[0]
    hertz = np.interp(np.arange(num_frames), frames, sample_rate / lag)
    return Pitch(hertz.astype(np.float32), voiced)


def _correlation(
    waveform: NDArray[np.float32], sample_rate: int, num_frames: int, lags: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return (T, N) normalised correlations at each lag; the pair is centred on the frame."""
    hop, window, longest = sample_rate // 100, int(sample_rate * _WINDOW), int(lags[-1])
    span = window + longest
    left = (span - hop) // 2
    padded = np.pad(waveform.astype(np.float32), (left, span))
    fft_size = 1 << (span + window - 1).bit_length()
    rows = []
    for first in range(0, num_frames, 500):
        starts = hop * np.arange(first, min(first + 500, num_frames))
        frames = padded[starts[:, None] + np.arange(span)]
        frames = frames - frames.mean(axis=1, keepdims=True)
        spectrum = np.fft.rfft(frames, fft_size)
        head = np.fft.rfft(frames[:, :window], fft_size)
        products = np.fft.irfft(spectrum * head.conj(), fft_size)[:, lags]
        energy = np.cumsum(np.pad(frames.astype(np.float64) ** 2, ((0, 0), (1, 0))), axis=1)
        own = energy[:, window : window + 1]
        other = energy[:, lags + window] - energy[:, lags]
        # A floor of -66 dB: in near silence, rounding correlates perfectly.
        rows.append(products / np.sqrt((own + 2e-7 * window) * (other + 2e-7 * window)))
    return np.concatenate(rows).astype(np.float32)


def _best_path(score: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return for each frame the candidate of the best path; the number of candidates = unvoiced."""
    num_frames, num_candidates = score.shape
    distance = np.abs(np.subtract.outer(np.arange(num_candidates), np.arange(num_candidates)))
    moving = (-_STEP_COST * np.minimum(distance, _MAX_STEPS)).astype(np.float32)
    total, silent = score[0].copy(), _UNVOICED
    came = np.zeros((num_frames, num_candidates + 1), np.int64)
    every = np.arange(num_candidates)
    for frame in range(1, num_frames):
        reached = total[:, None] + moving
        best = reached.argmax(axis=0)
        value = reached[best, every]
        loudest = int(total.argmax())
        from_silence = value < silent - _SWITCH_COST
        came[frame, :-1] = np.where(from_silence, num_candidates, best)
        stays = silent >= total[loudest] - _SWITCH_COST
        came[frame, -1] = num_candidates if stays else loudest
        voiced = np.maximum(value, np.float32(silent - _SWITCH_COST)) + score[frame]
        silent = max(silent, float(total[loudest]) - _SWITCH_COST) + _UNVOICED
        total = voiced
        shift = max(silent, float(total.max()))  # keeps the sums small
        silent, total = silent - shift, total - np.float32(shift)
    path = np.zeros(num_frames, np.int64)
    path[-1] = num_candidates if silent >= total.max() else int(total.argmax())
    for frame in range(num_frames - 1, 0, -1):
        path[frame - 1] = came[frame, path[frame]]
    return path


def _refine(correlation: NDArray[np.float32], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the position of the highest correlation near `at`, between the lags."""
    last = correlation.shape[1] - 2
    reach = np.maximum(1, np.round(at * 0.02)).astype(np.int64)
    centre = np.clip(np.round(at).astype(np.int64), 1, last)
    widest = int(reach.max())
    near = np.clip(centre[:, None] + np.arange(-widest, widest + 1), 1, last)
    rows = np.arange(len(at))[:, None]
    values = np.where(
        np.abs(near - centre[:, None]) <= reach[:, None], correlation[rows, near], -np.inf
    )
    best = near[rows[:, 0], values.argmax(axis=1)]
    low, mid, high = (correlation[rows[:, 0], best + step] for step in (-1, 0, 1))
    bend = low - 2 * mid + high
    shift = np.where(bend < -1e-9, 0.5 * (low - high) / np.minimum(bend, -1e-9), 0.0)
    return best + np.clip(shift, -0.5, 0.5)
