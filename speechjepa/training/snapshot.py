"""One utterance seen through a pretrained model, for the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from speechjepa.audio.features import LogMel
from speechjepa.data.batches import CachedItems, collate
from speechjepa.training.objective import ObjectiveOutput
from speechjepa.training.objectives import draw_masks

SNAPSHOT_SECONDS = 4.0


@torch.no_grad()
def write_snapshot(objective: nn.Module, items: CachedItems, path: Path) -> None:
    """Write spectrogram, span mask and predicted-against-target similarity of one utterance.

    The similarity is the cosine of prediction and target at each hidden frame, both centred over
    the hidden frames so that a constant offset does not count; NaN where the frame is visible.

    Args:
        objective: Trained, on the CPU, in evaluation mode.
        items: The pool; the item whose length is nearest to 4 s is taken.
        path: npz with spectrogram (T', F), span_mask (T,), similarity (T,), hop_seconds, id.
    """
    nearest = int(np.abs(items.lengths - SNAPSHOT_SECONDS * 16000).argmin())
    batch = collate([items[(nearest, 0)]])
    output: ObjectiveOutput = objective(batch, 1.0)
    encoder = objective.model.encoder  # type: ignore[union-attr]
    config = objective.config  # type: ignore[union-attr]
    frames = encoder.output_lengths(batch.lengths)  # type: ignore[union-attr, operator]
    hop: int = encoder.hop  # type: ignore[union-attr, assignment]
    mask = draw_masks(
        batch,
        frames,
        hop,
        config.mask_prob,  # type: ignore[union-attr, arg-type]
        config.mask_length_seconds,  # type: ignore[union-attr, arg-type]
        getattr(config, "num_masks", 1),
    )[0].numpy()
    # The first mask's hidden frames come first: rows of the masks follow one another.
    hidden = int(mask.sum())
    predictions, targets = output.predictions[:hidden].float(), output.targets[:hidden].float()
    similarity = np.full(len(mask), np.nan, dtype=np.float32)
    if hidden:
        centred = functional.cosine_similarity(
            predictions - predictions.mean(dim=0), targets - targets.mean(dim=0), dim=-1
        )
        similarity[mask] = centred.numpy()
    mel, _ = LogMel()(batch.waveform, batch.lengths)
    np.savez_compressed(
        path,
        spectrogram=mel[0].numpy().astype(np.float32),
        span_mask=mask,
        similarity=similarity,
        hop_seconds=hop / 16000,
        id=items.cache.utterances[items.pieces[nearest][0]].id,
    )
