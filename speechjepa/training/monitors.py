"""Collapse: what is read while pretraining, and when a run is stopped."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from speechjepa.errors import CollapseError
from speechjepa.metrics.collapse import dead_dimensions, mean_std, rankme
from speechjepa.training.config import CollapseConfig
from speechjepa.training.objective import ObjectiveOutput

MAX_FRAMES = 2048

ADVICE = {
    "target_std": "lower jepa.ema_decay or learning_rate, or lengthen warmup",
    "prediction_std": "lower learning_rate, or lengthen warmup",
    "rankme": "lower learning_rate, or raise jepa.context_std_weight; without a teacher also "
    "jepa.sigreg_weight or VICReg's weights",
    "code_perplexity": "raise contrastive.diversity_weight or contrastive.gumbel_end_temp",
}


@torch.no_grad()
def read_monitors(output: ObjectiveOutput) -> dict[str, float]:
    """Return the monitors' readings of one batch, on an even sample of its frames."""
    readings = {
        "target_std": mean_std(_sample(output.targets)),
        "prediction_std": mean_std(_sample(output.predictions)),
        "rankme": rankme(_sample(output.representation)),
        "dead_dimensions": float(dead_dimensions(_sample(output.representation))),
    }
    readings.update({name: float(value) for name, value in output.extra.items()})
    return readings


class CollapseMonitor:
    """Raise `CollapseError` when readings stay bad.

    Args:
        config: Thresholds.
    """

    def __init__(self, config: CollapseConfig) -> None:
        self.limits = {
            "target_std": config.min_target_std,
            "prediction_std": config.min_prediction_std,
            "rankme": config.min_rankme,
            "code_perplexity": config.min_code_perplexity,
        }
        self.grace_steps = config.grace_steps
        self.patience = config.patience
        self.bad_readings = 0

    def check(self, step: int, readings: Mapping[str, float]) -> None:
        """Judge one reading.

        Raises:
            CollapseError: `patience` readings in a row were bad after the grace period.
        """
        fallen = {
            name: limit
            for name, limit in self.limits.items()
            if name in readings and not readings[name] >= limit  # NaN counts as fallen
        }
        if step < self.grace_steps or not fallen:
            self.bad_readings = 0
            return
        self.bad_readings += 1
        if self.bad_readings >= self.patience:
            said = "; ".join(
                f"{name} fell to {readings[name]:.3g} (healthy: at least {limit:g}): {ADVICE[name]}"
                for name, limit in fallen.items()
            )
            raise CollapseError(f"the representation collapsed at step {step}: {said}.")


def diverged(step: int, loss: float, section: str) -> CollapseError:
    """Return what is raised when a loss is no longer finite.

    Args:
        step: Optimizer step.
        loss: Its loss.
        section: Of the settings to change, "pretrain" or "finetune".
    """
    return CollapseError(
        f"the run diverged: at step {step} the loss is {loss}. Lower {section}.learning_rate, or "
        f"set {section}.precision=float32."
    )


def _sample(frames: torch.Tensor) -> torch.Tensor:
    stride = max(1, -(-frames.shape[0] // MAX_FRAMES))
    return frames[::stride].float()
