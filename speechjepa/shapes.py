"""Axes and masks.

Axis names used in shape comments throughout:

    B utterances   S samples        T frames         F feature channels   D model width
    M masked frames  K distractors  H heads          L text or unit length  V vocabulary
    G codebooks    N visible frames

`lengths` (B,) is the only stored truth about padding; `padding_mask` (B, T), True = padding, is
always derived from it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def padding_mask(lengths: Tensor, num_frames: int) -> Tensor:
    """Return the padding mask (B, T), True = padding, of sequences with these lengths.

    Args:
        lengths: (B,) number of valid frames (or samples) of each utterance.
        num_frames: T, the padded length.
    """
    steps = torch.arange(num_frames, device=lengths.device)
    return steps[None, :] >= lengths[:, None]


def is_any(mask: Tensor) -> bool:
    """Say whether anything is True; while a graph is recorded, yes: it must hold for any input."""
    return torch.jit.is_tracing() or bool(mask.any())
