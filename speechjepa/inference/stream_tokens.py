"""Tokens of a stream of CTC logits: units or characters, each settled once and never revised."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from speechjepa.inference.search import MAX_KENLM_ORDER, BeamSearch, Hypothesis

SETTLE_SECONDS = 0.48
"""With a language model: a token this old is settled even if there are other likely readings of
it, so that the wait is bounded (seconds)."""
MARGIN = 5.0
"""Readings that score this much below the best are not waited for (nats)."""
_NEVER = -1e4  # nats; far below the searches' threshold
_NOTHING = (_NEVER, 0.0)
"""Of dropped frames, the log-probabilities (nats, but for a constant) that they end in a blank,
and that they are the last token going on; this, that there are none."""


class TokenStream:
    """Turn consecutive logits into tokens.

    By the best path a token is settled as soon as it is heard. With a language model what follows
    the last settled token is searched again with every piece; a token is settled once all likely
    readings have it in that place, or with the first piece by which it is `SETTLE_SECONDS` old.

    Args:
        search: Beam search with a language model; None = the best path.
        frame_seconds: Length of a logit frame (seconds).
    """

    def __init__(self, search: BeamSearch | None, *, frame_seconds: float) -> None:
        # A decoder of its own: that of a search holds one utterance at a time.
        self._search = None if search is None else search.with_config(search.config)
        self._settle = max(1, round(SETTLE_SECONDS / frame_seconds))
        self._previous = 0  # best path: the symbol of the last frame
        self._context: list[int] = []  # the last settled tokens, which the language model goes on
        self._pending = torch.zeros(0, 0)  # (T, V), from the frame after the last settled one's
        self._dropped = _NOTHING  # frames between them that hold no new token

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
        found = search.readings(torch.cat([prefix, pending]), ended=last)
        likely = [h for h in found if h.score > found[0].score - MARGIN]
        best, *others = [_after(hypothesis, len(prefix)) for hypothesis in likely]
        settled: list[int] = []
        end = 0
        for place, (token, frame) in enumerate(best):
            agreeing = [o for o in others if len(o) > place and o[place][0] == token]
            is_old = len(pending) - frame > self._settle
            if not (last or is_old or len(agreeing) == len(others)):
                break
            settled.append(token)
            others = agreeing  # one that reads it otherwise has no say any more
            end = frame + 1
        if settled:
            self._dropped = _NOTHING
        elif not best and len(pending) > self._settle:
            end = len(pending) - self._settle
            self._drop(pending[:end])
        self._pending = pending[len(pending) if last else end :].clone()
        self._context = [*self._context, *settled][-MAX_KENLM_ORDER:]
        return settled

    def _drop(self, logits: Tensor) -> None:
        """Sum up frames (T, V) that hold nothing new: blanks, or the last token going on."""
        if not self._context or self._search is None:
            return
        blank, going_on = self._dropped
        log_probs = logits.detach().float().log_softmax(dim=-1)
        score = self._search.config.blank_score
        for frame in log_probs[:, [0, self._context[-1]]].tolist():
            blank = _log_add(blank, going_on) + frame[0] + score
            going_on += frame[1]
            most = max(blank, going_on)
            blank, going_on = max(blank - most, _NEVER), max(going_on - most, _NEVER)
        self._dropped = blank, going_on

    def _forced(self, logits: Tensor) -> Tensor:
        """Return frames (T', V) that can only be read as the tokens settled last, and what was
        dropped after them."""
        path: list[int] = []
        for token in self._context:
            if path and path[-1] == token:
                path.append(0)
            path.append(token)
        forced = logits.new_full((len(path), logits.shape[1]), _NEVER, dtype=torch.float32)
        forced[torch.arange(len(path)), path] = 0.0
        if not self._context or self._dropped == _NOTHING or self._search is None:
            return forced
        row = forced.new_full((1, logits.shape[1]), _NEVER)
        row[0, 0] = self._dropped[0] - self._search.config.blank_score  # which is added again
        row[0, self._context[-1]] = self._dropped[1]
        return torch.cat([forced, row])


def _log_add(a: float, b: float) -> float:
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))


def _after(hypothesis: Hypothesis, skip: int) -> Sequence[tuple[int, int]]:
    """Return tokens and their frames, those of the first `skip` frames left out."""
    return [
        (token, frame - skip)
        for token, frame in zip(hypothesis.token_ids, hypothesis.frames, strict=True)
        if frame >= skip
    ]
