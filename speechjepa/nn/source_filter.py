"""Speech from its pitch and two spectral envelopes: filtered pulses and filtered noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

HOP = 160
"""Samples per control frame: 10 ms at 16 kHz."""
SAMPLE_RATE = 16000
WINDOW = 4 * HOP
OVERHANG = (WINDOW - HOP) // 2
"""Samples that a frame's window reaches beyond its own hop, on either side."""
HIGHEST_HARMONIC = 7600.0
"""Pulses hold no harmonic above this (Hz)."""


def pulse_train(hertz: Tensor, phase: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return pulses of a pitch, with equal power in every harmonic up to 7.6 kHz, power 1 in all.

    sum_k cos(k x), k = 1..N, as the Dirichlet kernel: sin((N + 1/2) x) / (2 sin(x / 2)) - 1/2.

    Args:
        hertz: (B, T) pitch of each frame, constant within its 10 ms.
        phase: (B,) float64, where the first pulse starts, from an earlier call (radians).

    Returns:
        (B, 160 T) pulses, and the phase (B,) at which the next frame goes on.
    """
    step = (2 * math.pi / SAMPLE_RATE) * hertz.double()
    step = step.repeat_interleave(HOP, dim=1)  # (B, S)
    start = torch.zeros(len(hertz), dtype=torch.float64) if phase is None else phase
    angle = start.to(step.device)[:, None] + torch.cumsum(step, dim=1)
    number = torch.floor(HIGHEST_HARMONIC / hertz.double()).clamp(min=1)
    number = number.repeat_interleave(HOP, dim=1)
    half = torch.sin(angle / 2)
    near = half.abs() < 1e-6
    kernel = torch.sin((number + 0.5) * angle) / (2 * half.masked_fill(near, 1.0)) - 0.5
    kernel = torch.where(near, number, kernel)
    pulses = kernel * torch.sqrt(2 / number)
    end = angle[:, -1] if angle.shape[1] else start
    return pulses.to(hertz.dtype), torch.remainder(end, 2 * math.pi)


class SourceFilter(nn.Module):
    """Filter pulses and noise frame by frame, and overlap the frames: an inverse STFT.

    y = iSTFT(H STFT(pulses) + N STFT(noise)), after DDSP (https://arxiv.org/abs/2001.04643).
    Differs from it in bands on the mel scale for both filters, and in pulses, whose harmonics
    weigh the same, in place of a sum of sines.

    Args:
        num_bands: Bands of each envelope, evenly spaced on the mel scale.
    """

    window: Tensor
    interpolation: Tensor

    def __init__(self, num_bands: int) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        filters = melscale_fbanks(
            WINDOW // 2 + 1, 0.0, SAMPLE_RATE / 2, num_bands, SAMPLE_RATE, mel_scale="htk"
        )
        # Triangles of neighbouring bands add up to 1 between their peaks, so they interpolate.
        weight = filters / filters.sum(dim=1, keepdim=True).clamp(min=1e-6)
        empty = filters.sum(dim=1) < 1e-6  # the first and the last bin
        weight[empty & (torch.arange(len(weight)) < len(weight) // 2), 0] = 1.0
        weight[empty & (torch.arange(len(weight)) >= len(weight) // 2), -1] = 1.0
        self.register_buffer("interpolation", weight.T.contiguous(), persistent=False)

    def forward(self, pulses: Tensor, noise: Tensor, envelopes: Tensor) -> Tensor:
        """Return overlapped frames (B, 160 T + 480), the first and last 240 samples of which belong
        to the frames before and after.

        Args:
            pulses: (B, 160 T + 480) excitation, with 240 samples more on either side.
            noise: The same, of power 1.
            envelopes: (B, T, 2, bands) natural logarithms of amplitude: pulses', noise's.
        """
        filters = torch.exp(envelopes @ self.interpolation)  # (B, T, 2, bins)
        sources = torch.stack([pulses, noise], dim=1).unfold(2, WINDOW, HOP)  # (B, 2, T, W)
        spectra = torch.fft.rfft(sources * self.window) * filters.transpose(1, 2)
        frames = torch.fft.irfft(spectra.sum(dim=1), n=WINDOW) * self.window  # (B, T, W)
        size = (1, HOP * frames.shape[1] + 2 * OVERHANG)
        joined = nn.functional.fold(frames.transpose(1, 2), size, (1, WINDOW), stride=(1, HOP))
        return joined[:, 0, 0] / 1.5  # what four squared Hann windows add up to
