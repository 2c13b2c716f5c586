"""Several processes that train together, as if they were one."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_reduce

from speechjepa.models.encoder import Encoder
from speechjepa.objectives.latent import Mean
from speechjepa.training.config import PretrainConfig


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def over_processes(mean: Mean) -> Tensor:
    """Return a mean over all processes, scaled so that averaging gradients gives its gradient.

    Gradients are averaged over W processes, so each process's share of the sum counts W times.
    """
    if world_size() == 1:
        return mean.value
    count = mean.number.detach().clone()
    dist.all_reduce(count)
    count = count.clamp(min=1.0)
    total = mean.total.detach().clone()
    dist.all_reduce(total)
    share = mean.total * world_size() / count
    return share + (total / count - share).detach()  # every process sees the value of the whole


def weighted_mean(x: Tensor, count: Tensor) -> Tensor:
    """Return the mean over processes of `x`, each weighted by its `count` (), with gradient.

    For what enters a loss other than as a sum over elements, such as mean code probabilities: every
    process then computes the same loss, and the sum of their gradients, which the averaging divides
    by their number again, is its gradient.
    """
    if world_size() == 1:
        return x
    weight = count.detach().float().clone()
    dist.all_reduce(weight)
    return all_reduce(x * count) / weight.clamp(min=1.0)


def generators(keys: Tensor, device: torch.device) -> list[torch.Generator]:
    """Return one source of randomness per utterance, which depends on its key alone.

    What is drawn from it depends neither on the batch the utterance falls in nor on the process.

    Args:
        keys: (B,) int64.
        device: Where to draw.
    """
    return [torch.Generator(device).manual_seed(key) for key in keys.tolist()]


def pick_strategy(config: PretrainConfig, encoder: Encoder) -> str:
    """Return Lightning's strategy for these settings.

    Several processes are spawned for the training alone. Lightning's "ddp" runs the whole command
    once per process instead, and with it every other stage of a recipe: "auto" and "ddp" therefore
    mean "ddp_spawn" here. Parameters that get no gradient (layers that layerdrop skips, the mask
    embedding of an objective that drops hidden frames) are looked for only where there are any,
    since looking costs time.
    """
    if config.devices == 1 or config.strategy not in ("auto", "ddp", "ddp_spawn"):
        return config.strategy
    skipped = getattr(encoder.config, "layerdrop", 0.0) > 0.0
    idle = hasattr(encoder, "mask_embedding") and config.objective != "contrastive"
    if config.objective == "future":  # nothing of the encoder is trained
        return "ddp_spawn"
    return "ddp_spawn_find_unused_parameters_true" if skipped or idle else "ddp_spawn"
