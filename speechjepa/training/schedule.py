"""Learning rates, budgets and optimizer groups."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

import torch
from torch import nn


class Budget:
    """How much of a run is done, by steps or by the clock, whichever is further.

    Args:
        max_steps: Optimizer steps; None = unbounded.
        minutes: Wall-clock minutes over all sittings; None = unbounded.
    """

    def __init__(self, max_steps: int | None, minutes: float | None) -> None:
        if max_steps is None and minutes is None:
            raise ValueError("a budget needs `max_steps` or `minutes`")
        self.max_steps = max_steps
        self.minutes = minutes
        self.earlier = 0.0
        self._started: float | None = None

    def start(self, earlier_seconds: float = 0.0) -> None:
        """Start the clock, after this many seconds in earlier sittings."""
        self.earlier = earlier_seconds
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds spent, earlier sittings included."""
        return self.earlier + (0.0 if self._started is None else time.monotonic() - self._started)

    def progress(self, step: int) -> float:
        """Return the share of the run that is done after `step` optimizer steps, in [0, 1]."""
        by_steps = 0.0 if self.max_steps is None else step / max(1, self.max_steps)
        by_clock = 0.0 if self.minutes is None else self.seconds / max(1e-9, 60.0 * self.minutes)
        return min(1.0, max(by_steps, by_clock))


def cosine(progress: float, warmup: float, final: float) -> float:
    """Return the learning-rate factor: linear over `warmup` to 1, then a cosine to `final`."""
    if progress < warmup:
        return progress / warmup
    share = (progress - warmup) / max(1e-9, 1.0 - warmup)
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))


def tri_stage(progress: float, stages: tuple[float, float, float], final: float) -> float:
    """Return the learning-rate factor: linear rise, constant, exponential fall to `final`.

    wav2vec 2.0 fine-tunes so, https://arxiv.org/abs/2006.11477.
    """
    rise, hold, fall = (share / sum(stages) for share in stages)
    if progress < rise:
        return progress / rise
    if progress < rise + hold or fall == 0.0:
        return 1.0
    return final ** min(1.0, (progress - rise - hold) / fall)


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], learning_rate: float, weight_decay: float
) -> list[dict[str, object]]:
    """Return optimizer groups: matrices with weight decay, vectors without.

    Each group keeps its peak learning rate under "peak".
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for _, parameter in named:
        if parameter.requires_grad:
            (decayed if parameter.dim() > 1 else plain).append(parameter)
    groups: list[dict[str, object]] = []
    for parameters, decay in ((decayed, weight_decay), (plain, 0.0)):
        if parameters:
            groups.append(
                {
                    "params": parameters,
                    "lr": learning_rate,
                    "peak": learning_rate,
                    "weight_decay": decay,
                }
            )
    return groups


def layer_groups(
    encoder: nn.Module,
    blocks: Iterable[nn.Module],
    learning_rate: float,
    decay: float,
    weight_decay: float,
) -> list[dict[str, object]]:
    """Return groups of an encoder whose blocks learn `decay` times as fast as the one above.

    The top block learns at `learning_rate`; what is no block learns slowest.
    """
    bottom_first = list(blocks)
    inside = {id(p) for block in bottom_first for p in block.parameters()}
    rest = [(n, p) for n, p in encoder.named_parameters() if id(p) not in inside]
    parts = [list(block.named_parameters()) for block in reversed(bottom_first)] + [rest]
    groups: list[dict[str, object]] = []
    for depth, part in enumerate(parts):
        groups += parameter_groups(part, learning_rate * decay**depth, weight_decay)
    return groups


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set every group's learning rate to `factor` of its peak; return the largest."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return max(group["lr"] for group in optimizer.param_groups)
