"""Masked reconstruction of log-mel frames: the foil that predicting representations must beat."""

from __future__ import annotations

from torch import Tensor

from speechjepa.objectives.latent import Mean


def reconstruction_loss(predictions: Tensor, log_mel: Tensor, target_mask: Tensor) -> Mean:
    """Mean absolute error on hidden frames: mean over frames and channels of |p - x|.

    Mockingjay and TERA use the same loss, https://arxiv.org/abs/2007.06028.

    Args:
        predictions: (B, T, R * F), R log-mel frames of F channels for each encoder frame.
        log_mel: (B, T, R * F), normalised.
        target_mask: (B, T) True = to predict.
    """
    error = (predictions.float() - log_mel.float()).abs().mean(dim=-1)  # (B, T)
    weight = target_mask.float()
    return Mean((error * weight).sum(), weight.sum())
