"""Exponential moving average of a module: the target encoder of self-distillation."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def target_copy(module: M) -> M:
    """Return a frozen copy in evaluation mode (no dropout, no drop-path, no gradient)."""
    target = copy.deepcopy(module)
    for parameter in target.parameters():
        parameter.requires_grad_(False)
    return target.eval()


@torch.no_grad()
def update_ema(target: nn.Module, source: nn.Module, decay: float) -> None:
    """Move the target towards the source: target = decay * target + (1 - decay) * source.

    Call once per optimizer step, never per batch: under gradient accumulation the teacher would
    otherwise run ahead of its time constant.

    Args:
        target: Copy made by `target_copy`.
        source: Module being trained.
        decay: In [0, 1].
    """
    targets = [parameter.detach() for parameter in target.parameters()]
    sources = [parameter.detach() for parameter in source.parameters()]
    torch._foreach_lerp_(targets, sources, 1.0 - decay)
    for kept, new in zip(target.buffers(), source.buffers(), strict=True):
        kept.copy_(new)


def ema_decay_at(progress: float, start: float, end: float, annealed_by: float) -> float:
    """Return the decay after a share of the run: linear from start to end, then constant.

    data2vec anneals the same way over a number of steps, https://arxiv.org/abs/2202.03555.

    Args:
        progress: Share of the run done, in [0, 1].
        start: First decay.
        end: Last decay.
        annealed_by: Share of the run at which `end` is reached.
    """
    if annealed_by <= 0.0:
        return end
    return start + (end - start) * min(1.0, progress / annealed_by)
