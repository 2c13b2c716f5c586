"""Tokens of a stream of CTC logits: units or characters, each settled once and never revised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from speechjepa.inference.search import MAX_KENLM_ORDER, BeamSearch, Hypothesis

SETTLE_SECONDS = 0.32
"""With a language model: a token this old is settled even if the beam still holds other readings
of it, so that the wait is bounded (seconds)."""


class TokenStream:
    """Turn consecutive logits into tokens.

    By the best path a token is settled as soon as it is heard. With a language model what follows
    the last settled token is searched again with every piece; a token is settled once every
    sequence of the beam has it in that place, or once it is `SETTLE_SECONDS` old.

    Args:
        search: Beam search with a language model; None = the best path.
        frame_seconds: Length of a logit frame (seconds).
    """

    def __init__(self, search: BeamSearch | None, *, frame_seconds: float) -> None:
        self._search = search
        self._settle = max(1, round(SETTLE_SECONDS / frame_seconds))
        self._previous = 0  # best path: the symbol of the last frame
        self._context: list[int] = []  # the last settled tokens, which the language model goes on
        self._paused = False  # blanks after them are no longer pending
        self._pending = torch.zeros(0, 0)  # (T, V), from the frame after the last settled one's

    def push(self, logits: Tensor) -> list[int]:
        """Return the tokens that the next frames (T, V) of unnormalised scores settle."""
        if self._search is None:
            return self._best_path(logits)
        pending = torch.cat([self._pending, logits]) if len(self._pending) else logits
        return self._beam(self._search, pending, last=False)

    def finish(self) -> list[int]:
        """Return the tokens that were not settled yet: nothing follows."""
        if self._search is None:
            return []
        return self._beam(self._search, self._pending, last=True)

    def _best_path(self, logits: Tensor) -> list[int]:
        found = []
        for token in logits.argmax(dim=-1).tolist():
            if token not in (0, self._previous):
                found.append(token)
            self._previous = token
        return found

    def _beam(self, search: BeamSearch, pending: Tensor, *, last: bool) -> list[int]:
        self._pending = pending
        if not len(pending):
            return []
        prefix = self._forced(pending)
        readings = [
            _after(hypothesis, len(prefix))
            for hypothesis in search.candidates(torch.cat([prefix, pending]))
        ]
        settled: list[int] = []
        end = 0
        for place, (token, frame) in enumerate(readings[0]):
            agrees = all(len(r) > place and r[place][0] == token for r in readings)
            if not (last or agrees or len(pending) - frame > self._settle):
                break
            settled.append(token)
            end = frame + 1
        if settled:
            self._paused = False
        elif not readings[0] and len(pending) > self._settle:
            # Nothing new: blanks, or the last token going on.
            end = len(pending) - self._settle
            going_on = self._context[-1] if self._context else 0
            self._paused |= bool((pending[:end].argmax(dim=-1) != going_on).any())
        self._pending = pending[len(pending) if last else end :].clone()
        self._context = [*self._context, *settled][-MAX_KENLM_ORDER:]
        return settled

    def _forced(self, logits: Tensor) -> Tensor:
        """Return frames (T', V) that can only be read as the tokens settled last."""
        path: list[int] = []
        for token in self._context:
            if path and path[-1] == token:
                path.append(0)
            path.append(token)
        if self._paused:
            path.append(0)
        forced = logits.new_full((len(path), logits.shape[1]), -1e4)
        forced[torch.arange(len(path)), path] = 0.0
        return forced


def _after(hypothesis: Hypothesis, skip: int) -> Sequence[tuple[int, int]]:
    """Return tokens and their frames, those of the first `skip` frames left out."""
    return [
        (token, frame - skip)
        for token, frame in zip(hypothesis.token_ids, hypothesis.frames, strict=True)
        if frame >= skip
    ]
