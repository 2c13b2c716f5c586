"""What keeps a JEPA without a teacher from collapsing: SIGReg and VICReg.

Both look at a cloud of embeddings. With several processes the cloud is the union of theirs: the
statistics are summed over processes inside the gradient, so two processes equal one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_reduce


def sigreg(
    embeddings: Tensor,
    *,
    num_slices: int = 256,
    num_points: int = 17,
    max_frequency: float = 3.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Distance of the embeddings from a standard normal, seen through random directions.

    For each slice a (unit vector), with the empirical characteristic function
    phi(t) = mean_n exp(i t <a, z_n>), the Epps-Pulley statistic
    int |phi(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt over [-t_max, t_max], by the trapezoid rule on
    `num_points` points of [0, t_max], doubled by symmetry. LeJEPA, https://arxiv.org/abs/2511.08544.

    Differs from the paper: the statistic is NOT multiplied by the number of embeddings N, so that
    its weight keeps its meaning when the batch changes. 0 for a normal cloud of infinite size,
    0.40 for one collapsed to the origin: sqrt(2 pi) (1 - sqrt(2) + 1 / sqrt(3)) = 0.409 over all
    frequencies; more for one collapsed elsewhere.

    Args:
        embeddings: (N, D); this process's share.
        num_slices: Random directions, drawn anew at each call.
        num_points: Points of the integral.
        max_frequency: t_max.
        generator: Of the directions; give every process the same seed.

    Returns:
        Scalar float32, the mean over slices.
    """
    z = embeddings.float()
    directions = torch.randn(z.shape[1], num_slices, device=z.device, generator=generator)
    directions = directions / directions.norm(dim=0, keepdim=True)
    t = torch.linspace(0.0, max_frequency, num_points, device=z.device)
    with torch.autocast(z.device.type, enabled=False):
        angles = (z @ directions)[:, :, None] * t  # (N, slices, points)
    count = _sum_over_processes(z.new_tensor(float(z.shape[0])))
    real = _sum_over_processes(angles.cos().sum(dim=0)) / count  # (slices, points)
    imaginary = _sum_over_processes(angles.sin().sum(dim=0)) / count
    gaussian = torch.exp(-t.square() / 2)
    squared = (real - gaussian).square() + imaginary.square()
    return 2.0 * torch.trapezoid(squared * gaussian, t, dim=-1).mean()


class VicregTerms(NamedTuple):
    """The two parts of VICReg's regulariser."""

    variance: Tensor
    covariance: Tensor


def vicreg(embeddings: Tensor, *, target_std: float = 1.0, eps: float = 1e-4) -> VicregTerms:
    """Variance and covariance terms of VICReg.

    variance = mean_d max(0, target_std - sqrt(Var(z_d) + eps)),
    covariance = sum_{d != e} Cov(z)_{de}^2 / D. https://arxiv.org/abs/2105.04906
    float32 whatever the input.

    Args:
        embeddings: (N, D); this process's share.
        target_std: Below this a dimension is pushed apart.
        eps: Keeps the root's gradient finite.
    """
    z = embeddings.float()
    count = _sum_over_processes(z.new_tensor(float(z.shape[0])))
    mean = _sum_over_processes(z.sum(dim=0)) / count
    centred = z - mean
    with torch.autocast(z.device.type, enabled=False):
        products = centred.T @ centred
    covariance = _sum_over_processes(products) / (count - 1).clamp(min=1.0)  # (D, D)
    variances = covariance.diagonal()
    variance_term = torch.relu(target_std - torch.sqrt(variances + eps)).mean()
    off_diagonal = covariance.square().sum() - variances.square().sum()
    return VicregTerms(variance_term, off_diagonal / z.shape[1])


def _sum_over_processes(x: Tensor) -> Tensor:
    """Sum a tensor over processes, with gradient; the tensor itself when there is one process."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return all_reduce(x)
    return x
