"""Make clean synthetic speech less clean: a room, a microphone, noise, a level."""

from __future__ import annotations

import numpy as np


def disturb(waveform: np.ndarray, rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """Return speech as if recorded in a random small room by a random cheap microphone.

    Half of the utterances get reverberation (60 dB decay in 0.1 to 0.4 s), most get a tilted or
    band-limited spectrum and coloured noise at 15 to 35 dB, all get silence around them and a
    peak between -20 and -2 dB of full scale.

    Args:
        waveform: (S,) float32.
        rng: Where all choices come from.
        sample_rate: Hz.

    Returns:
        (S',) float32 in [-1, 1], longer by the silence.
    """
    return disturb_and_place(waveform, rng, sample_rate)[0]


def disturb_and_place(
    waveform: np.ndarray, rng: np.random.Generator, sample_rate: int
) -> tuple[np.ndarray, float]:
    """Return what `disturb` returns, and how much later everything is in it (seconds)."""
    silence = (rng.uniform(0.05, 0.3, size=2) * sample_rate).astype(int)
    first, end = _audible(waveform)
    speech = record_elsewhere(np.pad(waveform[first:end], silence), rng, sample_rate)
    return speech, (int(silence[0]) - first) / sample_rate


def record_elsewhere(speech: np.ndarray, rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """Return speech (S,) as another room, microphone, noise and level leave it, as long as before;
    arguments as `disturb`."""
    if rng.random() < 0.5:
        speech = _add_room(speech, rng, sample_rate)
    if rng.random() < 0.8:
        speech = _colour(speech, rng, sample_rate)
    if rng.random() < 0.8:
        speech = _add_noise(speech, rng)
    peak = 10.0 ** (rng.uniform(-20.0, -2.0) / 20.0)
    return (speech * (peak / max(float(np.abs(speech).max()), 1e-6))).astype(np.float32)


def _audible(waveform: np.ndarray) -> tuple[int, int]:
    """Return the first audible sample and the end of the last one (-50 dB of the peak)."""
    audible = np.flatnonzero(np.abs(waveform) > 0.003 * np.abs(waveform).max())
    return (int(audible[0]), int(audible[-1]) + 1) if audible.size else (0, len(waveform))


def _add_room(speech: np.ndarray, rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    decay_seconds = rng.uniform(0.1, 0.4)
    num_taps = int(decay_seconds * sample_rate)
    # 60 dB of decay over `num_taps`.
    envelope = 10.0 ** (-3.0 * np.arange(num_taps) / num_taps)
    tail = rng.standard_normal(num_taps) * envelope
    direct_to_reverberant = 10.0 ** (rng.uniform(3.0, 15.0) / 20.0)
    response = tail / (np.linalg.norm(tail) * direct_to_reverberant)
    response[0] += 1.0
    size = _fast_size(len(speech) + num_taps)
    product = np.fft.rfft(speech, size) * np.fft.rfft(response, size)
    return np.fft.irfft(product, size)[: len(speech)]


def _colour(speech: np.ndarray, rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """Filter by a smooth random response: +-6 dB, a high-pass and a low-pass."""
    size = _fast_size(len(speech))
    frequencies = np.fft.rfftfreq(size, 1.0 / sample_rate)
    knots = np.linspace(0.0, sample_rate / 2, 6)
    gain = 10.0 ** (np.interp(frequencies, knots, rng.uniform(-6.0, 6.0, size=6)) / 20.0)
    low, high = rng.uniform(40.0, 200.0), rng.uniform(3800.0, sample_rate / 2)
    gain /= np.sqrt(1.0 + (low / np.maximum(frequencies, 1.0)) ** 4)
    gain /= np.sqrt(1.0 + (frequencies / high) ** 8)
    return np.fft.irfft(np.fft.rfft(speech, size) * gain, size)[: len(speech)]


def _add_noise(speech: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add noise whose power falls with frequency to a random power, at a random ratio."""
    size = _fast_size(len(speech))
    spectrum = np.fft.rfft(rng.standard_normal(size))
    spectrum *= np.maximum(np.arange(len(spectrum)), 8.0) ** -rng.uniform(0.0, 0.8)
    noise = np.fft.irfft(spectrum, size)[: len(speech)]
    ratio = 10.0 ** (rng.uniform(15.0, 35.0) / 20.0)
    return speech + noise * (np.std(speech) / (np.std(noise) * ratio))


def _fast_size(length: int) -> int:
    """Return the next length that the FFT is quick at: 2^k or 3 * 2^k."""
    power = 1 << max(length - 1, 1).bit_length()
    return power * 3 // 4 if power * 3 // 4 >= length else power
