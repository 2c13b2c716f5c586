"""Connectionist temporal classification."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from speechjepa.objectives.latent import Mean


def frames_needed(token_ids: Tensor) -> int:
    """Return the fewest frames CTC can write these token ids (L,) in.

    One per token, and a blank between equal neighbours.
    """
    return int(len(token_ids) + (token_ids[1:] == token_ids[:-1]).sum())


def ctc_loss(logits: Tensor, lengths: Tensor, token_ids: Sequence[Tensor]) -> Mean:
    """Return the negative log-likelihood of the transcripts (nats), summed over utterances, with
    the number of tokens as its count: `value` is nats per token.

    Graves et al. 2006, https://www.cs.toronto.edu/~graves/icml_2006.pdf; always in float32.

    Args:
        logits: (B, T, V) with the blank at 0.
        lengths: (B,) valid frames.
        token_ids: B tensors (L,) without blanks.

    Raises:
        ValueError: A transcript needs more frames than there are; leaving it out silently would
            hide it (`frames_needed` tells beforehand).
    """
    needed = [frames_needed(ids) for ids in token_ids]
    for row, (need, has) in enumerate(zip(needed, lengths.tolist(), strict=True)):
        if need > has:
            raise ValueError(f"utterance {row} of the batch needs {need} frames, but has {has}")
    log_probs = logits.float().log_softmax(dim=-1).transpose(0, 1)  # (T, B, V)
    target_lengths = torch.tensor([len(ids) for ids in token_ids], device=logits.device)
    total = functional.ctc_loss(
        log_probs,
        torch.cat(list(token_ids)).to(logits.device),
        lengths.to(torch.long),
        target_lengths,
        reduction="sum",
    )
    return Mean(total, target_lengths.sum().float())
