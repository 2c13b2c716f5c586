"""The most probable tokens of an autoregressive decoder: greedy, and beam search."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from speechjepa.models.speech_to_units import END, Memory, UnitDecoder
from speechjepa.nn.decoder import Cache


@torch.no_grad()
def greedy_tokens(decoder: UnitDecoder, memory: Memory, most: int) -> list[list[int]]:
    """Return the best token after each, for every utterance of a batch, up to `END`.

    Args:
        decoder: In evaluation mode.
        memory: From its `remember`, of B utterances.
        most: Tokens at most.
    """
    batch = memory.layers[0][0].shape[0]
    device = memory.layers[0][0].device
    newest = torch.full((batch, 1), END, device=device)
    over = torch.zeros(batch, dtype=torch.bool, device=device)
    written: list[Tensor] = []
    caches: list[Cache] | None = None
    for _ in range(most):
        logits, caches = decoder(newest, memory, caches)
        newest = logits[:, -1].argmax(dim=-1, keepdim=True)
        over |= newest[:, 0] == END
        if bool(over.all()):
            break
        written.append(newest[:, 0].masked_fill(over, END))
    rows = torch.stack(written, dim=1).tolist() if written else [[] for _ in range(batch)]
    return [row[: row.index(END)] if END in row else row for row in rows]


@dataclass(frozen=True, kw_only=True)
class Written:
    """A sequence that beam search found."""

    tokens: tuple[int, ...]
    score: float
    """Log-probability per token, `END` included (nats)."""


@torch.no_grad()
def beam_tokens(decoder: UnitDecoder, memory: Memory, *, most: int, beam: int = 5) -> list[Written]:
    """Return the best sequences of one utterance, the most probable per token first.

    Dividing by the length keeps short sequences from winning for being short; the search stops
    when `beam` sequences have ended.

    Args:
        decoder: In evaluation mode.
        memory: From its `remember`, of one utterance.
        most: Tokens at most.
        beam: Sequences kept at every step.
    """
    device = memory.layers[0][0].device
    newest = torch.full((1, 1), END, device=device)
    scores = torch.zeros(1, device=device)
    prefixes: list[tuple[int, ...]] = [()]
    ended: list[Written] = []
    caches: list[Cache] | None = None
    for size in range(1, most + 1):
        logits, caches = decoder(newest, _widened(memory, len(prefixes)), caches)
        step = logits[:, -1].log_softmax(dim=-1)  # (K, V)
        total = scores[:, None] + step
        best, places = total.flatten().topk(min(2 * beam, total.numel()))
        parents, tokens = places // step.shape[1], places % step.shape[1]
        kept: list[int] = []
        for place, (parent, token) in enumerate(
            zip(parents.tolist(), tokens.tolist(), strict=True)
        ):
            if token == END:
                if place < beam:
                    score = float(best[place]) / size
                    ended.append(Written(tokens=prefixes[parent], score=score))
            elif len(kept) < beam:
                kept.append(place)
        if len(ended) >= beam or not kept:
            break
        chosen = parents[kept]
        prefixes = [(*prefixes[int(parents[k])], int(tokens[k])) for k in kept]
        scores, newest = best[kept], tokens[kept][:, None]
        caches = [(key[chosen], value[chosen]) for key, value in caches]
    if not ended:
        ended = [
            Written(tokens=prefix, score=float(score) / max(1, len(prefix)))
            for prefix, score in zip(prefixes, scores, strict=True)
        ]
    return sorted(ended, key=lambda found: -found.score)[:beam]


def _widened(memory: Memory, size: int) -> Memory:
    layers = [(k.expand(size, -1, -1, -1), v.expand(size, -1, -1, -1)) for k, v in memory.layers]
    mask = None if memory.mask is None else memory.mask.expand(size, -1, -1, -1)
    return Memory(layers, mask)
