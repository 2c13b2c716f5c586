"""Sequences of units: each once with how long it lasts, and frame by frame again."""

from __future__ import annotations

import torch
from torch import Tensor


def deduplicate(sequence: Tensor) -> tuple[Tensor, Tensor]:
    """Return the units of a sequence, those that last once, and for how many frames they do.

    (5, 5, 5, 2, 2, 5) gives (5, 2, 5) and (3, 2, 1).

    Args:
        sequence: (T,) whole numbers.

    Returns:
        Units (L,) and durations (L,) int64, in frames; their sum is T.
    """
    if sequence.dim() != 1:
        raise ValueError(f"`sequence` must be (T,), but is {tuple(sequence.shape)} instead")
    units, durations = torch.unique_consecutive(sequence, return_counts=True)
    return units, durations


def repeat(units: Tensor, durations: Tensor) -> Tensor:
    """Return units (L,) frame by frame, (T,), each `durations` (L,) times: undo `deduplicate`."""
    if units.shape != durations.shape or units.dim() != 1:
        raise ValueError(
            "`units` and `durations` must be (L,) both, "
            f"but are {tuple(units.shape)} and {tuple(durations.shape)} instead"
        )
    if (durations < 0).any():
        raise ValueError(f"`durations` must be 0 or more, but one is {int(durations.min())}")
    return torch.repeat_interleave(units, durations)
