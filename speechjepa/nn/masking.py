"""Span masks: which frames are hidden from the context encoder."""

from __future__ import annotations

import numpy as np


def span_mask(
    num_frames: int,
    *,
    mask_prob: float,
    mask_length: int,
    generator: np.random.Generator,
    min_visible: int = 2,
) -> np.ndarray:
    """Return a mask (T,) bool, True = hidden, made of spans that may overlap.

    As in wav2vec 2.0 (https://arxiv.org/abs/2006.11477) a share of the frames is drawn without
    replacement as starts of spans. Differs from the paper: `mask_prob` is the expected share of
    hidden frames, not of span starts, so that it keeps its meaning when `mask_length` changes;
    spans that would leave the utterance are shifted inside; at least one frame is hidden and at
    least `min_visible` stay visible.

    Args:
        num_frames: T.
        mask_prob: Expected share of hidden frames, in (0, 1).
        mask_length: Frames per span.
        generator: Source of randomness.
        min_visible: Frames that must stay visible.
    """
    if num_frames <= min_visible:
        return np.zeros(num_frames, dtype=bool)
    length = min(mask_length, max(1, (num_frames - min_visible) // 2))
    # A frame stays visible when none of the `length` starts that would cover it is drawn.
    start_prob = 1.0 - (1.0 - mask_prob) ** (1.0 / length)
    num_spans = max(1, int(start_prob * num_frames + generator.random()))
    last_start = num_frames - length
    starts = generator.choice(last_start + 1, size=min(num_spans, last_start + 1), replace=False)
    mask = np.zeros(num_frames, dtype=bool)
    mask[(starts[:, None] + np.arange(length)).ravel()] = True
    hidden = np.flatnonzero(mask)
    excess = min_visible - (num_frames - len(hidden))
    if excess > 0:
        mask[hidden[:excess]] = False
    return mask


def span_masks(
    lengths: np.ndarray,
    keys: np.ndarray,
    *,
    mask_prob: float,
    mask_length: int,
    num_masks: int = 1,
) -> np.ndarray:
    """Return masks (num_masks * B, T) bool, True = hidden; row b * num_masks + m is mask m of b.

    Every mask depends on its utterance's key alone: neither the batch it falls in nor the process
    that draws it changes it.

    Args:
        lengths: (B,) frames.
        keys: (B,) integers that name the utterance and the visit.
        mask_prob: Expected share of hidden frames.
        mask_length: Frames per span.
        num_masks: Masks per utterance.
    """
    masks = np.zeros((len(lengths) * num_masks, int(lengths.max(initial=0))), dtype=bool)
    for row, (length, key) in enumerate(zip(lengths, keys, strict=True)):
        generator = np.random.default_rng(int(key))
        for m in range(num_masks):
            masks[row * num_masks + m, : int(length)] = span_mask(
                int(length), mask_prob=mask_prob, mask_length=mask_length, generator=generator
            )
    return masks
