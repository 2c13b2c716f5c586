"""Dropping the hidden frames of a sequence, and putting frames back where they were."""

from __future__ import annotations

import torch
from torch import Tensor

from speechjepa.shapes import padding_mask


def pack_visible(x: Tensor, visible: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Keep only the visible frames of every sequence, in time order.

    Args:
        x: (B, T, D) frames.
        visible: (B, T) bool, True = keep. Padding frames must be False already.

    Returns:
        packed: (B, N, D), N the largest number of visible frames in the batch.
        lengths: (B,) int64, number of visible frames of each utterance.
        indices: (B, N) int64, the frame of `x` that each packed row came from. Rows past `lengths`
            hold frame 0, so that gathering with `indices` is always legal; mask them by `lengths`.
    """
    if visible.dtype != torch.bool or visible.shape != x.shape[:2]:
        raise ValueError(
            f"`visible` must be bool of shape {tuple(x.shape[:2])}, "
            f"but is {visible.dtype} of shape {tuple(visible.shape)} instead"
        )
    lengths = visible.sum(dim=1)
    num_packed = int(lengths.max()) if lengths.numel() else 0
    # A stable sort puts the visible frames first and leaves them in time order.
    order = torch.argsort((~visible).to(torch.uint8), dim=1, stable=True)
    indices = order[:, :num_packed].masked_fill(padding_mask(lengths, num_packed), 0)
    return gather_frames(x, indices), lengths, indices


def gather_frames(x: Tensor, indices: Tensor) -> Tensor:
    """Take the frames `indices` (B, N) of `x` (B, T, D); returns (B, N, D)."""
    return x.gather(1, indices[:, :, None].expand(-1, -1, x.shape[2]))


def unpack(
    packed: Tensor,
    lengths: Tensor,
    indices: Tensor,
    num_frames: int,
    *,
    fill: Tensor | None = None,
) -> Tensor:
    """Put packed frames back at their places; the inverse of `pack_visible` on visible frames.

    Args:
        packed: (B, N, D) frames.
        lengths: (B,) number of valid rows of `packed`.
        indices: (B, N) the frame each row belongs to, as given by `pack_visible`.
        num_frames: T of the result.
        fill: (D,) value of every frame that no row belongs to (a mask token, for example); zeros
            when not given.

    Returns:
        (B, T, D) frames.
    """
    batch, num_packed, width = packed.shape
    # One spare frame at the end takes the padding rows, so that they never overwrite frame 0.
    places = indices.masked_fill(padding_mask(lengths, num_packed), num_frames)
    if fill is None:
        base = packed.new_zeros(batch, num_frames + 1, width)
    else:
        base = fill.to(packed.dtype).expand(batch, num_frames + 1, width)
    frames = base.scatter(1, places[:, :, None].expand(-1, -1, width), packed)
    return frames[:, :num_frames]
