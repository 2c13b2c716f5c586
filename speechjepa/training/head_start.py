"""A CTC head that knows its symbols before the encoder begins to learn."""

from __future__ import annotations

import logging
import math

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from speechjepa.data.batches import BatchPlan
from speechjepa.errors import CollapseError
from speechjepa.models.ctc import CtcModel
from speechjepa.objectives.ctc import ctc_loss
from speechjepa.training.frames import encode_items
from speechjepa.training.labelled import LabelledItems

logger = logging.getLogger(__name__)

MOST_SECONDS = 900.0
"""Labelled audio that the head learns from, at most (seconds)."""
MOST_WEIGHTS = 200_000
"""Weights of a head that is trained so unless told otherwise: a larger one, of thousands of symbols
on a wide encoder, takes many minutes."""
BATCH_SECONDS = 40.0
LEARNING_RATE = 5e-3
"""First; it falls to zero in a line."""
DROPOUT = 0.3
"""Share of what frames hold that a step does without, so that the head does not learn minutes of
labels by heart (docs/LOG.md)."""


@torch.no_grad()
def level_blank(model: CtcModel, data: LabelledItems) -> None:
    """Make a new head's blank as likely as transcripts leave frames without a symbol, one frame
    being a symbol's, in place.

    From a blank as rare as any symbol, a head that learns by itself may go where symbols fill the
    frames, and fine-tuning does not come back; fresh weights take longer until they write anything
    (docs/LOG.md).

    Args:
        model: Its head is changed, a fresh one: no bias and small weights.
        data: Labelled items whose transcripts fit their frames.
    """
    num_frames = int(model.output_lengths(torch.from_numpy(data.items.lengths)).sum())
    num_symbols = sum(len(ids) for ids in data.token_ids)
    # Where they leave fewer than that, a blank is as likely as any symbol.
    share = max(1.0 - num_symbols / num_frames, 1.0 / model.vocabulary_size)
    bias = math.log(share / (1.0 - share) * (model.vocabulary_size - 1))
    model.head.bias.unflatten(0, (model.upsample, -1))[:, 0] += bias


def train_head(model: CtcModel, data: LabelledItems, steps: int, *, seed: int = 0) -> None:
    """Train a head on what the encoder gives as it is, which is computed once.

    The encoder then learns from gradients that mean something from its first step: what pretraining
    found is not bent to a head that knows nothing (https://arxiv.org/abs/2202.10054). Differs from
    the paper: of the frames a part is dropped at random, and so many steps are taken, not until
    nothing improves.

    Args:
        model: Its head is changed, in place.
        data: Labelled items whose transcripts fit their frames.
        steps: Of batches of 40 s, at least 1.
        seed: Of which items are heard, of the order of the batches, and of what is dropped.

    Raises:
        CollapseError: The encoder gives something that is not finite.
    """
    used = _sample(data.items.lengths, seed)
    logger.info("the head learns by itself from %d utterances", len(used))
    features = encode_items(model.encoder, data.items, used)
    if not all(bool(frames.isfinite().all()) for frames in features):
        raise CollapseError(
            "what training starts from gives frames that are not finite: its weights are broken; "
            "start from another model"
        )
    lengths = torch.tensor([len(frames) for frames in features], device=features[0].device)
    plan = BatchPlan(lengths.cpu().numpy() * model.encoder.hop, BATCH_SECONDS, seed=seed)
    optimizer = torch.optim.Adam(model.head.parameters(), betas=(0.9, 0.98))
    # Of its own, so not nn.cpu's dropout: what training draws afterwards stays as it was.
    generator = torch.Generator(features[0].device).manual_seed(seed)
    for step, requests in zip(range(steps), plan, strict=False):
        rows = [item for item, _ in requests]
        padded = pad_sequence([features[row] for row in rows], batch_first=True)  # (B, T, D)
        token_ids = [data.token_ids[used[row]] for row in rows]
        kept = torch.rand(padded.shape, device=padded.device, generator=generator) >= DROPOUT
        logits = model.head_logits(padded * kept / (1.0 - DROPOUT))
        loss = ctc_loss(logits, lengths[rows] * model.upsample, token_ids).value
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1.0 - step / steps)
        optimizer.step()
        optimizer.zero_grad()
    logger.info("the head by itself: %.2f nats per character", float(loss.detach()))


def _sample(lengths: np.ndarray, seed: int) -> list[int]:
    """Return items in random order, as many as fit into `MOST_SECONDS`, at least one."""
    order = np.random.default_rng(seed).permutation(len(lengths))
    seconds = np.cumsum(lengths[order]) / 16000
    return order[: max(1, int((seconds <= MOST_SECONDS).sum()))].tolist()
