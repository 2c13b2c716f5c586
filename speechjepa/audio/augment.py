"""Augmentation while fine-tuning: speed, and masks over time and channels."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from speechjepa.shapes import padding_mask


def perturb_speed(
    waveform: Tensor, lengths: Tensor, most: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Play a batch faster or slower by one random factor within 1 +- `most`; pitch moves along.

    Speed perturbation, https://www.isca-archive.org/interspeech_2015/ko15_interspeech.html, by
    linear interpolation: at factors this close to 1 its images lie above the speech band.

    Args:
        waveform: (B, S).
        lengths: (B,) samples.
        most: Largest change; 0.1 gives factors between 0.9 and 1.1.
        generator: Source of the factor (CPU).

    Returns:
        The waveform (B, S') and its lengths (B,).
    """
    factor = 1.0 + most * (2.0 * float(torch.rand((), generator=generator)) - 1.0)
    new_size = max(1, int(waveform.shape[1] / factor))
    changed = functional.interpolate(
        waveform[:, None], size=new_size, mode="linear", align_corners=False
    )
    new_lengths = torch.div(lengths * new_size, waveform.shape[1], rounding_mode="floor")
    return changed[:, 0], new_lengths.clamp(min=1)


def fewest_samples(lengths: Tensor, most: float) -> Tensor:
    """Return what `perturb_speed` leaves at least of lengths (B,), rounding included (samples)."""
    return ((lengths / (1.0 + most)).long() - 2).clamp(min=0) if most else lengths


def mask_features(
    features: Tensor,
    lengths: Tensor,
    *,
    mask_prob: float,
    mask_length: int,
    mask_channel_prob: float,
    mask_channel_length: int,
    generator: torch.Generator,
) -> Tensor:
    """Set spans of frames and spans of channels to zero.

    As wav2vec 2.0 does while fine-tuning (https://arxiv.org/abs/2006.11477, section 4.3). Differs
    from the paper: hidden frames become zeros, not the embedding learned in pretraining, which a
    JEPA does not have; both probabilities are expected shares.

    Args:
        features: (B, T, D).
        lengths: (B,) valid frames.
        mask_prob: Expected share of frames.
        mask_length: Frames per span.
        mask_channel_prob: Expected share of channels.
        mask_channel_length: Channels per span.
        generator: Source of randomness (CPU).
    """
    batch, frames, width = features.shape
    time = _spans((batch, frames), mask_prob, mask_length, generator)
    channels = _spans((batch, width), mask_channel_prob, mask_channel_length, generator)
    hidden = time[:, :, None] | channels[:, None, :]
    hidden = hidden & ~padding_mask(lengths.cpu(), frames)[:, :, None]
    return features.masked_fill(hidden.to(features.device), 0.0)


def _spans(shape: tuple[int, int], share: float, length: int, generator: torch.Generator) -> Tensor:
    """Return a mask (B, T) in which an expected `share` is covered by spans of `length`."""
    if share <= 0.0:
        return torch.zeros(shape, dtype=torch.bool)
    start_probability = -math.expm1(math.log1p(-min(share, 0.99)) / length)
    starts = torch.rand((shape[0], shape[1] + length - 1), generator=generator) < start_probability
    covered = functional.max_pool1d(starts.float()[:, None], kernel_size=length, stride=1)
    return covered[:, 0] > 0.5
