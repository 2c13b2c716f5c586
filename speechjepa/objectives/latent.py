"""Prediction in representation space: targets and loss of a JEPA."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from speechjepa.shapes import padding_mask


class Mean(NamedTuple):
    """A mean that is still a sum and a number, so that several processes can share it exactly."""

    total: Tensor
    """Sum over the elements of this process, scalar float32."""
    number: Tensor
    """How many they are, scalar float32."""

    @property
    def value(self) -> Tensor:
        """The mean over this process alone; 0 when there is nothing to average."""
        return self.total / self.number.clamp(min=1.0)


def instance_norm(x: Tensor, lengths: Tensor, eps: float = 1e-5) -> Tensor:
    """Give each channel of each utterance zero mean and unit variance over its valid frames.

    Args:
        x: (B, T, D).
        lengths: (B,) valid frames.
        eps: Added to the variance.

    Returns:
        (B, T, D) float32, zeros on padded frames.
    """
    valid = ~padding_mask(lengths, x.shape[1])[:, :, None]
    count = lengths.clamp(min=1)[:, None, None]
    x = torch.where(valid, x.float(), 0.0)
    mean = x.sum(dim=1, keepdim=True) / count
    centred = torch.where(valid, x - mean, 0.0)
    variance = centred.square().sum(dim=1, keepdim=True) / count
    return centred * torch.rsqrt(variance + eps)


def layer_targets(layers: list[Tensor], lengths: Tensor, average_top_k_layers: int) -> Tensor:
    """Return JEPA targets (B, T, D): the mean of the top K instance-normalised layer outputs.

    data2vec 2.0, https://arxiv.org/abs/2212.07525; feed-forward outputs, not attention outputs,
    which do not train (data2vec, https://arxiv.org/abs/2202.03555, table 4).

    Args:
        layers: Feed-forward output of each block, (B, T, D) each.
        lengths: (B,) valid frames.
        average_top_k_layers: K, at least 1; every layer where there are fewer.
    """
    if average_top_k_layers < 1:  # a slice from -0 would take all of them
        raise ValueError(
            f"`average_top_k_layers` must be at least 1, but is {average_top_k_layers} instead"
        )
    top = layers[-average_top_k_layers:]
    return sum(instance_norm(layer, lengths) for layer in top) / len(top)  # type: ignore[return-value]


def latent_prediction_loss(predictions: Tensor, targets: Tensor, target_mask: Tensor) -> Mean:
    """Mean squared error on the frames to predict: mean over frames of |p - t|^2 / D.

    Args:
        predictions: (B, T, D).
        targets: (B, T, D); detach them when they come from a target encoder.
        target_mask: (B, T) True = to predict.
    """
    error = (predictions.float() - targets.float()).square().mean(dim=-1)  # (B, T)
    weight = target_mask.float()
    return Mean((error * weight).sum(), weight.sum())
