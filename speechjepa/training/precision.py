"""Number format of training: the faster of float32 and bfloat16, by measurement."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from speechjepa.training.config import Precision

logger = logging.getLogger(__name__)

CLEAR = 3.0
"""So many times slower is slower whatever else ran: a step of bfloat16 without instructions for it
takes seconds, and is not repeated."""


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Return the context in which a model runs in this precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def pick_precision(
    wanted: Precision, device: torch.device, step: Callable[[], Tensor], repeats: int = 3
) -> str:
    """Return "float32" or "bfloat16".

    With "auto", runs `step` (forward, returning a scalar loss; its backward is timed too) each way
    and takes the faster one. On a CPU with AMX, bfloat16 measured 2 to 4 times faster; on one
    without bfloat16 instructions it is slower.

    Args:
        wanted: The setting.
        device: Where the model runs.
        step: One forward pass under autocast.
        repeats: Timed steps each way, after one to warm up; fewer where the first are clear.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    times: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for _ in range(repeats + 1):
        for precision, found in times.items():  # in turn: other load then hits both alike
            started = time.perf_counter()
            with autocast(device, precision):
                loss = step()
            loss.backward()
            found.append(time.perf_counter() - started)
        seconds = {precision: min(found[1:] or found) for precision, found in times.items()}
        if len(times["float32"]) > 1 and max(seconds.values()) > CLEAR * min(seconds.values()):
            break
    faster = min(seconds, key=lambda name: seconds[name])
    logger.info(
        "precision: %s (float32 %.2f s, bfloat16 %.2f s a step)",
        faster,
        seconds["float32"],
        seconds["bfloat16"],
    )
    return faster
