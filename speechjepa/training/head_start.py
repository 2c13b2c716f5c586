"""A CTC head that knows its symbols before the encoder begins to learn."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from speechjepa.data.batches import BatchPlan
from speechjepa.models.ctc import CtcModel
from speechjepa.objectives.ctc import ctc_loss
from speechjepa.training.frames import encode_items
from speechjepa.training.labelled import LabelledItems

logger = logging.getLogger(__name__)

MOST_SECONDS = 900.0
"""Labelled audio that the head learns from, about, at most (seconds)."""
BATCH_SECONDS = 40.0
LEARNING_RATE = 5e-3
"""First; it falls to zero in a line."""


def train_head(model: CtcModel, data: LabelledItems, steps: int, *, seed: int = 0) -> None:
    """Train a head on what the encoder gives as it is, which is computed once.

    A step costs a hundredth of one that trains the encoder, and the encoder then learns from
    gradients that mean something from its first step: what pretraining found is not bent to a
    head that knows nothing (https://arxiv.org/abs/2202.10054).

    Args:
        model: Its head is changed, in place.
        data: Labelled items whose transcripts fit their frames.
        steps: Of batches of 40 s.
        seed: Of the order of the batches; nothing else is random.
    """
    features, token_ids = _frames(model, data)
    lengths = torch.tensor([len(frames) for frames in features], device=features[0].device)
    plan = BatchPlan(lengths.cpu().numpy() * model.encoder.hop, BATCH_SECONDS, seed=seed)
    optimizer = torch.optim.Adam(model.head.parameters(), betas=(0.9, 0.98))
    losses: list[float] = []
    for step, requests in zip(range(steps), plan, strict=False):
        rows = [item for item, _ in requests]
        padded = pad_sequence([features[row] for row in rows], batch_first=True)  # (B, T, D)
        frames = lengths[rows] * model.upsample
        loss = ctc_loss(model.head_logits(padded), frames, [token_ids[row] for row in rows]).value
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1.0 - step / steps)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    logger.info("the head by itself: %.2f -> %.2f nats per character", losses[0], losses[-1])


def _frames(model: CtcModel, data: LabelledItems) -> tuple[list[Tensor], list[Tensor]]:
    """Return frames (T, D) of an even sample of the items, and their token ids (L,)."""
    step = max(1, math.ceil(float(data.items.lengths.sum()) / 16000 / MOST_SECONDS))
    used = range(0, len(data.items), step)
    frames = encode_items(model.encoder, data.items, used)
    return frames, [data.token_ids[item] for item in used]
