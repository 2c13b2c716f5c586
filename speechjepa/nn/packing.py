"""Dropping the hidden frames of a sequence, and putting frames back where they were."""

from __future__ import annotations

import torch
from torch import Tensor

from speechjepa.shapes import is_any, padding_mask


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


class FrameLayout:
    """Where packed frames stand on the full time axis.

    Convolutions need neighbours in time: packed visible frames are scattered onto the full axis,
    and the result is gathered again.

    Args:
        valid: (B, N) True where a packed frame is real.
        indices: (B, N) position of each packed frame on the full axis; None when nothing is hidden.
        num_frames: T, length of the full axis.
    """

    def __init__(self, valid: Tensor, indices: Tensor | None, num_frames: int) -> None:
        self.valid = valid
        self.indices = indices
        self.num_frames = num_frames
        self.all_valid = not is_any(~valid)
        if indices is not None:
            batch = torch.arange(valid.shape[0], device=valid.device)[:, None]
            # Packed padding is scattered to one spare row past the end, and cut off.
            spare = torch.full_like(indices, num_frames)
            self._rows = (batch * (num_frames + 1) + torch.where(valid, indices, spare)).flatten()

    def scatter(self, x: Tensor, fill: Tensor | None = None) -> Tensor:
        """Put packed frames x (B, N, D) on the full axis (B, T, D).

        Args:
            x: Packed frames.
            fill: (D,) value of every other frame, padding included (a mask token, for example);
                None = zeros.
        """
        batch, _, width = x.shape
        empty = x.new_zeros(width) if fill is None else fill.to(x.dtype)
        if self.indices is None:
            return x if self.all_valid else torch.where(self.valid[:, :, None], x, empty)
        full = empty.expand(batch * (self.num_frames + 1), width)
        full = full.index_copy(0, self._rows, x.reshape(-1, width))
        return full.view(batch, self.num_frames + 1, width)[:, :-1]

    def gather(self, x: Tensor) -> Tensor:
        """Take the packed frames (B, N, D) of x (B, T, D)."""
        return x if self.indices is None else gather_frames(x, self.indices)
