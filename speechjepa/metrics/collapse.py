"""Numbers that fall when a representation collapses."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def rankme(embeddings: Tensor, eps: float = 1e-7) -> float:
    """Return the effective rank of embeddings (N, D): between 1 and min(N, D).

    exp(-sum_k p_k log p_k) with p_k = s_k / |s|_1 + eps over the singular values s.
    RankMe, https://arxiv.org/abs/2210.02885. Differs from the paper: the embeddings are centred
    first, so that a constant offset does not hide a collapse. NaN where a value is not finite.
    """
    z = embeddings.float()
    if not bool(z.isfinite().all()):
        return float("nan")  # the decomposition would raise an error
    singular = torch.linalg.svdvals(z - z.mean(dim=0))
    p = singular / singular.sum().clamp(min=eps) + eps
    return float(torch.exp(-(p * p.log()).sum()))


@torch.no_grad()
def mean_std(embeddings: Tensor) -> float:
    """Return the standard deviation over N of each channel of (N, D), averaged over channels."""
    return float(embeddings.float().std(dim=0).mean())


@torch.no_grad()
def dead_dimensions(embeddings: Tensor, threshold: float = 0.01) -> int:
    """Return how many channels of (N, D) vary less than `threshold` of the average channel."""
    std = embeddings.float().std(dim=0)
    return int((std < threshold * std.mean().clamp(min=1e-12)).sum())
