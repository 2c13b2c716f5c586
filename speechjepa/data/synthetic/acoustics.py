"""Make clean synthetic speech less clean: a room, a microphone, noise, a level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How much recordings differ: ranges that are drawn from evenly."""

    lead_seconds: tuple[float, float] = (0.05, 0.3)
    """Silence before, and again after, what is said."""
    decay_seconds: tuple[float, float] = (0.1, 0.4)
    """In which the reverberation falls by 60 dB, where there is any (half of the recordings)."""
    direct_to_reverberant_db: tuple[float, float] = (3.0, 15.0)
    colour_db: float = 6.0
    """Most that a microphone, where it colours (80 %), takes from or adds to a part of the
    spectrum."""
    colour_knots: int = 6
    """Frequencies, evenly spaced, whose gains are drawn."""
    high_pass_hz: tuple[float, float] = (40.0, 200.0)
    low_pass_hz: float = 3800.0
    """Lowest; the highest is half the sampling rate."""
    low_pass_order: int = 4
    noise_slope: float = 0.8
    """The amplitude of noise falls with frequency to a power of at most this."""
    noise_ratio_db: tuple[float, float] = (15.0, 35.0)
    """Signal to noise, where there is any (80 %)."""
    clipped: float = 0.0
    """Share of recordings that are cut off at a fifth to seven tenths of their peak."""
    peak_db: tuple[float, float] = (-20.0, -2.0)
    """Of full scale."""


USUAL = Conditions()
"""Small rooms, cheap microphones, little noise."""
WIDE = Conditions(
    lead_seconds=(0.0, 0.3),
    decay_seconds=(0.1, 0.8),
    direct_to_reverberant_db=(0.0, 15.0),
    colour_db=10.0,
    colour_knots=9,
    high_pass_hz=(40.0, 400.0),
    low_pass_hz=2800.0,
    low_pass_order=8,
    noise_slope=1.0,
    noise_ratio_db=(5.0, 35.0),
    clipped=0.1,
    peak_db=(-30.0, -1.0),
)
"""Whatever recording equipment and places there are, the telephone and the market too."""


def disturb(
    waveform: np.ndarray,
    rng: np.random.Generator,
    sample_rate: int,
    conditions: Conditions = USUAL,
) -> np.ndarray:
    """Return speech as if recorded in a random room by a random microphone.

    Args:
        waveform: (S,) float32.
        rng: Where all choices come from.
        sample_rate: Hz.
        conditions: What they are drawn from.

    Returns:
        (S',) float32 in [-1, 1], longer by the silence around it.
    """
    return disturb_and_place(waveform, rng, sample_rate, conditions)[0]


def disturb_and_place(
    waveform: np.ndarray,
    rng: np.random.Generator,
    sample_rate: int,
    conditions: Conditions = USUAL,
) -> tuple[np.ndarray, float]:
    """Return what `disturb` returns, and how much later everything is in it (seconds)."""
    silence = (rng.uniform(*conditions.lead_seconds, size=2) * sample_rate).astype(int)
    first, end = _audible(waveform)
    padded = np.pad(waveform[first:end], silence)
    speech = record_elsewhere(padded, rng, sample_rate, conditions)
    return speech, (int(silence[0]) - first) / sample_rate


def record_elsewhere(
    speech: np.ndarray,
    rng: np.random.Generator,
    sample_rate: int,
    conditions: Conditions = USUAL,
) -> np.ndarray:
    """Return speech (S,) as another room, microphone, noise and level leave it, as long as before;
    arguments as `disturb`."""
    if rng.random() < 0.5:
        speech = _add_room(speech, rng, sample_rate, conditions)
    if rng.random() < 0.8:
        speech = _colour(speech, rng, sample_rate, conditions)
    if rng.random() < 0.8:
        speech = _add_noise(speech, rng, conditions)
    if conditions.clipped and rng.random() < conditions.clipped:
        most = float(np.abs(speech).max()) * rng.uniform(0.2, 0.7)
        speech = np.clip(speech, -most, most)
    peak = 10.0 ** (rng.uniform(*conditions.peak_db) / 20.0)
    return (speech * (peak / max(float(np.abs(speech).max()), 1e-6))).astype(np.float32)


def _audible(waveform: np.ndarray) -> tuple[int, int]:
    """Return the first audible sample and the end of the last one (-50 dB of the peak)."""
    audible = np.flatnonzero(np.abs(waveform) > 0.003 * np.abs(waveform).max())
    return (int(audible[0]), int(audible[-1]) + 1) if audible.size else (0, len(waveform))


def _add_room(
    speech: np.ndarray, rng: np.random.Generator, sample_rate: int, conditions: Conditions
) -> np.ndarray:
    decay_seconds = rng.uniform(*conditions.decay_seconds)
    num_taps = int(decay_seconds * sample_rate)
    # 60 dB of decay over `num_taps`.
    envelope = 10.0 ** (-3.0 * np.arange(num_taps) / num_taps)
    tail = rng.standard_normal(num_taps) * envelope
    direct_to_reverberant = 10.0 ** (rng.uniform(*conditions.direct_to_reverberant_db) / 20.0)
    response = tail / (np.linalg.norm(tail) * direct_to_reverberant)
    response[0] += 1.0
    size = _fast_size(len(speech) + num_taps)
    product = np.fft.rfft(speech, size) * np.fft.rfft(response, size)
    return np.fft.irfft(product, size)[: len(speech)]


def _colour(
    speech: np.ndarray, rng: np.random.Generator, sample_rate: int, conditions: Conditions
) -> np.ndarray:
    """Filter by a smooth random response, a high-pass and a low-pass."""
    size = _fast_size(len(speech))
    frequencies = np.fft.rfftfreq(size, 1.0 / sample_rate)
    knots = np.linspace(0.0, sample_rate / 2, conditions.colour_knots)
    most = conditions.colour_db
    decibels = rng.uniform(-most, most, size=conditions.colour_knots)
    gain = 10.0 ** (np.interp(frequencies, knots, decibels) / 20.0)
    low = rng.uniform(*conditions.high_pass_hz)
    high = rng.uniform(conditions.low_pass_hz, sample_rate / 2)
    gain /= np.sqrt(1.0 + (low / np.maximum(frequencies, 1.0)) ** 4)
    gain /= np.sqrt(1.0 + (frequencies / high) ** (2 * conditions.low_pass_order))
    return np.fft.irfft(np.fft.rfft(speech, size) * gain, size)[: len(speech)]


def _add_noise(speech: np.ndarray, rng: np.random.Generator, conditions: Conditions) -> np.ndarray:
    """Add noise whose power falls with frequency to a random power, at a random ratio."""
    size = _fast_size(len(speech))
    spectrum = np.fft.rfft(rng.standard_normal(size))
    spectrum *= np.maximum(np.arange(len(spectrum)), 8.0) ** -rng.uniform(
        0.0, conditions.noise_slope
    )
    noise = np.fft.irfft(spectrum, size)[: len(speech)]
    ratio = 10.0 ** (rng.uniform(*conditions.noise_ratio_db) / 20.0)
    return speech + noise * (np.std(speech) / (np.std(noise) * ratio))


def _fast_size(length: int) -> int:
    """Return the next length that the FFT is quick at: 2^k or 3 * 2^k."""
    power = 1 << max(length - 1, 1).bit_length()
    return power * 3 // 4 if power * 3 // 4 >= length else power
