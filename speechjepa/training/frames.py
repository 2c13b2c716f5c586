"""What an encoder makes of utterances, kept for a head that learns while it does not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from speechjepa.data.batches import BatchPlan, CachedItems, collate
from speechjepa.models.encoder import Encoder


@torch.no_grad()
def encode_items(encoder: Encoder, items: CachedItems, used: Sequence[int]) -> list[Tensor]:
    """Return the output (T, D) float32 of each used item, without dropout, on the encoder's device.

    Args:
        encoder: In training or not, and left so.
        items: Audio.
        used: Places of items.
    """
    device = next(encoder.parameters()).device
    training = encoder.training
    encoder.eval()
    found: list[Tensor] = [torch.empty(0)] * len(used)
    for rows in BatchPlan(items.lengths[list(used)], 60.0).epoch(0):
        batch = collate([items[(used[row], 0)] for row in rows]).to(device)
        output = encoder(batch.waveform, batch.lengths)
        for place, frames, length in zip(rows, output.features, output.lengths, strict=True):
            found[place] = frames[: int(length)].float()
    encoder.train(training)
    return found
