"""Log-mel features, computed inside the model so that a bundle carries its own front end."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from speechjepa.shapes import padding_mask

Normalization = Literal["utterance", "global"]

# Mean and standard deviation of natural-log mel energies of speech at normal level, used by
# normalization="global": constants, because a streaming front end cannot see the utterance's end.
GLOBAL_MEAN, GLOBAL_STD = -6.0, 4.0


class LogMel(nn.Module):
    """Turn waveforms into log-mel frames every 10 ms.

    Frame t covers samples [160 t - 120, 160 t + 280) at 16 kHz (25 ms), so S samples give
    S // 160 frames. Padding never leaks: samples past `lengths` count as zeros, statistics use
    valid frames only, and padded frames come out as zeros.

    Args:
        num_mels: Mel channels F between 20 Hz and half the sample rate.
        sample_rate: Hz.
        normalization: "utterance" gives every channel zero mean and unit variance over the
            utterance; "global" applies one fixed shift and scale, which a stream can use too.
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self,
        num_mels: int = 80,
        sample_rate: int = 16000,
        normalization: Normalization = "utterance",
    ) -> None:
        super().__init__()
        self.hop = sample_rate // 100
        self.window_size = sample_rate // 40
        self.fft_size = 1 << (self.window_size - 1).bit_length()
        self.normalization = normalization
        filters = melscale_fbanks(
            self.fft_size // 2 + 1, 20.0, sample_rate / 2, num_mels, sample_rate, mel_scale="htk"
        )
        self.register_buffer("window", torch.hann_window(self.window_size), persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Return the number of frames (B,) of utterances of `lengths` samples (B,)."""
        return torch.div(lengths, self.hop, rounding_mode="floor")

    @torch.no_grad()
    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features.

        Args:
            waveform: (B, S) float32 in [-1, 1].
            lengths: (B,) samples.

        Returns:
            Log-mel features (B, T, F) float32 and their lengths (B,) in frames.
        """
        with torch.autocast(waveform.device.type, enabled=False):
            waveform = waveform.float()
            waveform = waveform.masked_fill(padding_mask(lengths, waveform.shape[1]), 0.0)
            frame_lengths = self.output_lengths(lengths)
            num_frames = waveform.shape[1] // self.hop
            margin = self.window_size - self.hop  # 240 samples: 120 before, 120 after
            missing = max(0, self.hop - waveform.shape[1])  # the FFT takes one frame or more
            padded = nn.functional.pad(waveform, (margin // 2, margin - margin // 2 + missing))
            # On a CPU a few seconds at a time: the spectra of a batch do not fit into its caches,
            # and take three times as long to write to memory as to compute.
            if padded.device.type == "cpu" and not torch.jit.is_tracing():
                rows = max(1, 10 * 100 * self.hop // padded.shape[1])
                mel = torch.cat([self._mel(part) for part in padded.split(rows)])
            else:
                mel = self._mel(padded)
            mel = mel[:, :num_frames]  # (B, T, F)
            padding = padding_mask(frame_lengths, num_frames)[:, :, None]
            return self._normalize(mel, frame_lengths, padding), frame_lengths

    def _mel(self, padded: Tensor) -> Tensor:
        if torch.jit.is_tracing():  # a recorded graph knows no Fourier transform of windows
            power = self._power_by_convolution(padded)
        else:
            frames = padded.unfold(1, self.window_size, self.hop)  # (B, T, 400)
            spectrum = torch.fft.rfft(frames * self.window, n=self.fft_size)
            power = spectrum.real.square() + spectrum.imag.square()
        return torch.log(power @ self.filters + 1e-6)  # (B, T, F)

    def _power_by_convolution(self, padded: Tensor) -> Tensor:
        """Return the power (B, T, 257) of every frame's spectrum, each bin a convolution."""
        bins = torch.arange(self.fft_size // 2 + 1, dtype=torch.float64)
        steps = torch.arange(self.window_size, dtype=torch.float64)
        angles = bins[:, None] * steps * (2 * math.pi / self.fft_size)
        waves = torch.cat([angles.cos(), angles.sin()]) * self.window.double()
        parts = nn.functional.conv1d(padded[:, None], waves.float()[:, None], stride=self.hop)
        return parts.square().unflatten(1, (2, -1)).sum(dim=1).transpose(1, 2)

    def _normalize(self, mel: Tensor, lengths: Tensor, padding: Tensor) -> Tensor:
        if self.normalization == "global":
            return ((mel - GLOBAL_MEAN) / GLOBAL_STD).masked_fill(padding, 0.0)
        count = lengths.clamp(min=1)[:, None, None]
        mel = mel.masked_fill(padding, 0.0)
        mean = mel.sum(dim=1, keepdim=True) / count
        centred = (mel - mean).masked_fill(padding, 0.0)
        variance = centred.square().sum(dim=1, keepdim=True) / count
        return centred * torch.rsqrt(variance + 1e-2)
