"""Losses of a vocoder: spectra at several resolutions, mel spectra, pitch and durations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torchaudio.functional import melscale_fbanks

RESOLUTIONS = ((512, 128), (1024, 256), (2048, 512))
"""Window and hop of each STFT (samples)."""
FLOOR = 1e-4
"""Added to amplitudes before the logarithm: -80 dB below full scale."""
QUIET = 1e-2
"""Least mean amplitude that a difference is divided by: a pause would weigh without bounds."""


def stft_magnitude(waveform: Tensor, window_size: int, hop: int) -> Tensor:
    """Return amplitudes (B, T, F) of the STFT; white noise of deviation s has a mean square of s^2.

    Args:
        waveform: (B, S), S at least one window.
        window_size: Samples of the Hann window.
        hop: Samples from one frame to the next.
    """
    window = torch.hann_window(window_size, device=waveform.device, dtype=waveform.dtype)
    frames = waveform.unfold(1, window_size, hop) * (window / window.square().sum().sqrt())
    spectrum = torch.fft.rfft(frames)
    power = spectrum.real.square() + spectrum.imag.square()
    return torch.sqrt(power + 1e-12)  # the gradient of a root is infinite at 0


def multi_resolution_stft_loss(
    predicted: Tensor, target: Tensor, resolutions: Sequence[tuple[int, int]] = RESOLUTIONS
) -> Tensor:
    """Return the distance of two waveforms' spectra, whatever their phases.

    mean over resolutions of ||Y - X||_F / ||Y||_F + mean |log Y - log X|, Y the target's
    amplitudes, X the prediction's (Parallel WaveGAN, https://arxiv.org/abs/1910.11480).
    Differs from the paper: logarithms have a floor of -80 dB, and the norm one of -40 dB.

    Args:
        predicted: (B, S).
        target: (B, S).
        resolutions: Window and hop of each (samples).

    Returns:
        A scalar; the second term is in nepers (8.7 dB).
    """
    losses = []
    for window_size, hop in resolutions:
        found = stft_magnitude(predicted, window_size, hop)
        wanted = stft_magnitude(target, window_size, hop)
        least = QUIET * math.sqrt(wanted[0].numel())
        norm = torch.linalg.vector_norm(wanted, dim=(1, 2)).clamp(min=least)
        convergence = torch.linalg.vector_norm(wanted - found, dim=(1, 2)) / norm
        distance = (torch.log(wanted + FLOOR) - torch.log(found + FLOOR)).abs()
        losses.append(convergence.mean() + distance.mean())
    return torch.stack(losses).mean()


def log_mel_loss(predicted: Tensor, target: Tensor, sample_rate: int = 16000) -> Tensor:
    """Return the mean distance of log-mel spectra (nepers), 80 bands, windows of 64 ms every 10 ms.

    mean |log(M Y) - log(M X)|, as HiFi-GAN's (https://arxiv.org/abs/2010.05646).

    Args:
        predicted: (B, S).
        target: (B, S).
        sample_rate: Hz.
    """
    size, hop = 1024 * sample_rate // 16000, sample_rate // 100
    filters = _filters(sample_rate, size // 2 + 1).to(predicted.device)
    mels = [stft_magnitude(wave, size, hop) @ filters for wave in (predicted, target)]
    return (torch.log(mels[0] + FLOOR) - torch.log(mels[1] + FLOOR)).abs().mean()


@lru_cache
def _filters(sample_rate: int, num_bins: int) -> Tensor:
    return melscale_fbanks(num_bins, 20.0, sample_rate / 2, 80, sample_rate, mel_scale="htk")


def pitch_loss(predicted: Tensor, target: Tensor, voiced: Tensor) -> Tensor:
    """Return the mean distance of pitches where the voice is heard (octaves); 0 if nowhere.

    Args:
        predicted: (B, T) log2 of Hz.
        target: (B, T) log2 of Hz.
        voiced: (B, T) True = counted.
    """
    distance = (predicted - target).abs().masked_fill(~voiced, 0.0)
    return distance.sum() / voiced.sum().clamp(min=1)


def duration_loss(predicted: Tensor, durations: Tensor) -> Tensor:
    """Return the Poisson negative log-likelihood of durations, up to a constant (nats).

    exp(p) - d p: least where exp(p) is the mean duration, so that speech keeps its pace; squares
    of logarithms would give the geometric mean, which is shorter.

    Args:
        predicted: (B, L) natural logarithms of frames.
        durations: (B, L) frames, 1 or more.
    """
    return (torch.exp(predicted) - durations * predicted).mean()
