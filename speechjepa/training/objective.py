"""What every pretraining objective gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from speechjepa.data.batches import Batch


@dataclass
class ObjectiveOutput:
    """What one batch gave."""

    total: Tensor
    """Scalar to minimise."""
    parts: dict[str, Tensor]
    """Its parts, detached scalars."""
    representation: Tensor
    """(N, D) encoder output on valid frames, detached."""
    predictions: Tensor
    """(M, D') what was predicted for hidden frames, detached."""
    targets: Tensor
    """(M, D') what should have been."""
    extra: dict[str, Tensor] = field(default_factory=dict)
    """Further monitor readings, such as code perplexity."""


class Objective(nn.Module, ABC):
    """A model, and the losses it is trained with."""

    model: Any
    config: Any

    @abstractmethod
    def forward(self, batch: Batch, progress: float, step: int = 0) -> ObjectiveOutput:
        """Return the losses of a batch.

        What is random depends on the batch's keys or on `step` alone, never on the process.

        Args:
            batch: This process's share.
            progress: Share of the run that is done.
            step: Optimizer step; every process must be given the same.
        """

    def fit(self, waveforms: list[Tensor], seed: int) -> None:  # noqa: B027
        """Prepare what is fitted to audio before training starts; utterances (S,) float32."""

    def after_step(self, progress: float) -> None:  # noqa: B027
        """Follow an optimizer step; called once per step, never per batch."""
