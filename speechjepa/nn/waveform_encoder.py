"""Front end of wav2vec 2.0: convolutions over the waveform."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from speechjepa.shapes import is_any, padding_mask


class WaveformFeatureEncoder(nn.Module):
    """Strided convolutions over the waveform, each followed by GELU.

    wav2vec 2.0, section 2, https://arxiv.org/abs/2006.11477. With `norm` "group" the first
    convolution alone is normalised, each channel over time; with "layer" every one is, each frame
    over channels.

    Differs from the published code: group statistics are taken over valid frames only, so that
    results do not depend on padding. Without padding the two are equal.

    Args:
        widths: Output channels of each convolution.
        kernels: Kernel of each convolution, in steps of its input.
        strides: Stride of each convolution, in steps of its input.
        norm: "group" or "layer".
        bias: Whether the convolutions have a bias.
        layer_norm_eps: Added to variances of layer norms.
    """

    def __init__(
        self,
        widths: Sequence[int],
        kernels: Sequence[int],
        strides: Sequence[int],
        *,
        norm: Literal["group", "layer"] = "group",
        bias: bool = False,
        layer_norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.kernels = tuple(kernels)
        self.strides = tuple(strides)
        inputs = [1, *widths[:-1]]
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        for i, (source, width) in enumerate(zip(inputs, widths, strict=True)):
            convolution = nn.Conv1d(source, width, kernels[i], strides[i], bias=bias)
            nn.init.kaiming_normal_(convolution.weight)
            self.convolutions.append(convolution)
            if norm == "layer":
                self.norms.append(nn.LayerNorm(width, eps=layer_norm_eps))
            elif i == 0:
                self.norms.append(ChannelNorm(width))

    @property
    def hop(self) -> int:
        """Samples per frame."""
        product = 1
        for stride in self.strides:
            product *= stride
        return product

    @property
    def receptive_field(self) -> int:
        """Samples that one frame sees, the least that gives a frame."""
        field = 1
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            field = (field - 1) * stride + kernel
        return field

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Return the number of frames (B,) of utterances of `lengths` samples (B,)."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            lengths = _convolved_lengths(lengths, kernel, stride)
        return lengths

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, T, F) of waveform (B, S), T at least 1, and their lengths (B,)."""
        x = waveform.masked_fill(padding_mask(lengths, waveform.shape[1]), 0.0)
        x = functional.pad(x, (0, max(0, self.receptive_field - x.shape[1])))[:, None]  # (B, 1, S)
        for i, convolution in enumerate(self.convolutions):
            x = convolution(x)  # (B, F, T)
            lengths = _convolved_lengths(lengths, self.kernels[i], self.strides[i])
            if i < len(self.norms):
                norm = self.norms[i]
                if isinstance(norm, ChannelNorm):
                    x = norm(x, lengths)
                else:
                    x = norm(x.transpose(1, 2)).transpose(1, 2)
            x = functional.gelu(x)
        return x.transpose(1, 2), lengths


class ChannelNorm(nn.Module):
    """Group norm with one channel per group: each channel to mean 0, variance 1 over valid frames.

    Args:
        width: Channels F.
        eps: Added to the variance.
    """

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Normalise x (B, F, T) with `lengths` (B,) valid frames; padding frames become 0."""
        num_frames = x.shape[2]
        padding = padding_mask(lengths, num_frames)[:, None, :]
        if not is_any(padding):
            return functional.group_norm(x, x.shape[1], self.weight, self.bias, self.eps)
        # float32: a sum over tens of thousands of frames has no precision left in bfloat16.
        values = x.float().masked_fill(padding, 0.0)
        count = lengths.clamp_min(1)[:, None, None]
        mean = values.sum(dim=2, keepdim=True) / count
        centred = (values - mean).masked_fill(padding, 0.0)
        scale = torch.rsqrt(centred.square().sum(dim=2, keepdim=True) / count + self.eps)
        y = centred * (scale * self.weight[:, None]) + self.bias[:, None]
        return y.masked_fill(padding, 0.0).to(x.dtype)


def normalize_waveform(waveform: Tensor, lengths: Tensor, eps: float = 1e-7) -> Tensor:
    """Return waveform (B, S) with mean 0 and variance 1 over the valid samples of each utterance.

    Args:
        waveform: (B, S) samples.
        lengths: (B,) number of valid samples; the rest becomes 0.
        eps: Added to the variance, so that silence stays silence.
    """
    padding = padding_mask(lengths, waveform.shape[1])
    count = lengths.clamp_min(1)[:, None]
    x = waveform.float().masked_fill(padding, 0.0)
    x = (x - x.sum(dim=1, keepdim=True) / count).masked_fill(padding, 0.0)
    return x * torch.rsqrt(x.square().sum(dim=1, keepdim=True) / count + eps)


def _convolved_lengths(lengths: Tensor, kernel: int, stride: int) -> Tensor:
    return (torch.div(lengths - kernel, stride, rounding_mode="floor") + 1).clamp_min(0)
