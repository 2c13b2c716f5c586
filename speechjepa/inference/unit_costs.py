"""How unlikely each unit is in every frame of a voice's recordings."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

UNIT = 0.12
"""Cost of a nat by which a unit is unlikely."""
_PRIOR_FRAMES = 20.0
"""How many heard frames the distances of centroids count as much as."""


class UnitCosts:
    """Costs of units in recorded frames, each found once, for all that a voice says.

    Args:
        units: (V, N) of the recordings as heard V times, in versions that differ as voices do.
        centroids: (K, D) of the units.
        per_step: Frames of a step.
    """

    def __init__(self, units: NDArray[np.int64], centroids: Tensor, per_step: int) -> None:
        self.num_units = len(centroids)
        self._units = units
        self._per_step = per_step
        self._surprise = _surprise(units, centroids)
        self._found: dict[int, NDArray[np.float32]] = {}

    def of(self, unit: int) -> NDArray[np.float32]:
        """Return (frames per step, M) how unlikely a unit is in each recorded frame."""
        if unit not in self._found:
            chances = np.exp(-self._surprise[unit])[self._units].mean(axis=0)
            cost = (-UNIT * np.log(chances)).astype(np.float32)
            self._found[unit] = np.ascontiguousarray(cost.reshape(-1, self._per_step).T)
        return self._found[unit]


def _surprise(units: NDArray[np.int64], centroids: Tensor) -> NDArray[np.float32]:
    """Return (K, K), how unlikely unit u is where unit w is heard of another voice: -log P(u | w).

    Counted over the versions of the recordings, and evened out by how far centroids lie apart:
    units that were never confused, or never heard, have near ones stand for them.

    Args:
        units: (V, N).
        centroids: (K, D).
    """
    num_units = len(centroids)
    distance = torch.cdist(centroids, centroids).square().numpy().astype(np.float64)
    nearest = np.sort(distance, axis=1)[:, min(5, max(1, num_units // 20))]
    near = np.exp(-distance / np.maximum(nearest, 1e-9)[None, :]) + 1e-4
    prior = near / near.sum(axis=0)
    together = np.zeros(num_units**2)
    for one in range(len(units)):
        for other in range(len(units)):
            if one != other:
                pairs = units[one] * num_units + units[other]
                together += np.bincount(pairs, minlength=num_units**2)
    chance = together.reshape(num_units, num_units) + _PRIOR_FRAMES * prior
    return -np.log(chance / chance.sum(axis=0)).astype(np.float32)
