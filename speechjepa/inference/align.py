"""Where each word of a text is in the audio: CTC forced alignment."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from speechjepa.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from speechjepa.text.vocabulary import Vocabulary


SMALLEST = 1e-9
"""Posteriors below this count as it: a character that the model thinks impossible."""


EDGE_SECONDS = 0.02
"""How far a word reaches beyond the frames of its first and last symbol (seconds), where nothing
else is. A CTC model writes a symbol within its sound, not over all of it (Zeyer et al., 2021,
https://arxiv.org/abs/2105.14849): on synthetic speech whose boundaries are known, words taken to
their symbols' frames began 15 to 18 ms late and ended 21 to 24 ms early, for a head of characters
and one of phones alike."""


@dataclass(frozen=True, kw_only=True)
class TokenSpan:
    """The frames of one symbol."""

    token_id: int
    first_frame: int
    end_frame: int
    """One past its last frame."""
    score: float
    """Mean posterior of the symbol over its frames, in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class CharacterSpan:
    """A character of a word and its place in the audio."""

    character: str
    start: float
    """Seconds; where its own frames begin, or the word."""
    end: float
    """Seconds; where the next character begins, or the word ends."""
    score: float
    """Mean posterior over its frames, in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class WordSpan:
    """A word and its place in the audio."""

    word: str
    start: float
    """Seconds."""
    end: float
    """Seconds."""
    score: float
    """Mean posterior of its characters over their frames, in [0, 1]; or, where the model has been
    calibrated, the probability that the word is right."""
    log_probability: float = -math.inf
    """Sum of the logarithms of the mean posteriors of its characters and of the word boundaries
    beside it (nats): what the model itself makes of the whole word being right. It parts right from
    wrong words better than the mean does: one doubtful character makes a wrong word."""
    characters: tuple[CharacterSpan, ...] = ()
    """Its characters, without a gap between them."""

    def as_dict(
        self, to_milliseconds: Callable[[float], float], *, characters: bool
    ) -> dict[str, Any]:
        """Return the word as results hold it, its times rounded, perhaps with its characters."""
        found: dict[str, Any] = {
            "word": self.word,
            "start": to_milliseconds(self.start),
            "end": to_milliseconds(self.end),
            "score": round(self.score, 4),
        }
        if characters:
            found["characters"] = [
                {
                    "character": one.character,
                    "start": to_milliseconds(one.start),
                    "end": to_milliseconds(one.end),
                    "score": round(one.score, 4),
                }
                for one in self.characters
            ]
        return found


def frames_needed(token_ids: Sequence[int]) -> int:
    """Return the fewest frames CTC can write these symbols in: a blank parts equal neighbours."""
    repeats = sum(a == b for a, b in zip(token_ids, token_ids[1:], strict=False))
    return len(token_ids) + repeats


def align_tokens(logits: Tensor, token_ids: Sequence[int], *, blank_id: int = 0) -> list[TokenSpan]:
    """Return the frames of each symbol on the most probable CTC path that writes them all.

    The Viterbi path through the lattice of Graves et al., 2006, section 4.1
    (https://www.cs.toronto.edu/~graves/icml_2006.pdf), computed in float32.

    Args:
        logits: (T, V) unnormalised scores, padding removed.
        token_ids: (L,) symbols, without blanks.
        blank_id: The CTC blank.

    Returns:
        One span per symbol, in order and without overlap.

    Raises:
        DataError: The symbols cannot be written in T frames.
    """
    if logits.dim() != 2:
        raise ValueError(f"`logits` must be (T, V), but is {tuple(logits.shape)} instead")
    if not token_ids:
        return []
    if blank_id in token_ids:
        raise ValueError(f"`token_ids` must not hold the blank ({blank_id})")
    needed = frames_needed(token_ids)
    if needed > len(logits):
        raise DataError(
            f"a text of {len(token_ids)} symbols needs at least {needed} frames, but the audio "
            f"gives {len(logits)}. Check that the text belongs to this audio."
        )
    from torchaudio.functional import forced_align, merge_tokens

    log_probs = logits.detach().float().cpu().log_softmax(dim=-1)  # (T, V)
    targets = torch.tensor([list(token_ids)], dtype=torch.int32)  # (1, L)
    path, log_scores = forced_align(log_probs[None], targets, blank=blank_id)
    return [
        TokenSpan(
            token_id=int(span.token),
            first_frame=int(span.start),
            end_frame=int(span.end),
            score=min(1.0, max(0.0, float(span.score))),
        )
        for span in merge_tokens(path[0], log_scores[0].exp(), blank=blank_id)
    ]


def align_words(
    logits: Tensor,
    text: str,
    vocabulary: Vocabulary,
    *,
    frame_seconds: float,
    offset: float = 0.0,
    end_of_audio: float | None = None,
) -> list[WordSpan] | None:
    """Return the time and score of each word of a text.

    Args:
        logits: (T, V) unnormalised scores, padding removed.
        text: Normalised text of characters of the vocabulary, words parted by spaces.
        vocabulary: The V symbols.
        frame_seconds: Length of a frame (seconds).
        offset: Time of the first frame (seconds).
        end_of_audio: No time is later than this (seconds); None = the end of the last frame.

    Returns:
        One span per word, times (seconds) never decreasing and word not overlapping word; an empty
        list for an empty text; None when the text is too long for the frames.

    Raises:
        DataError: The text holds a character that is not in the vocabulary.
    """
    words = text.split()
    token_ids = vocabulary.encode(" ".join(words))
    if frames_needed(token_ids) > len(logits):
        return None
    spans = align_tokens(logits, token_ids, blank_id=vocabulary.blank_id)
    edges = _edges(words, spans, frame_seconds, len(logits) * frame_seconds)
    last = offset + len(logits) * frame_seconds
    limit = last if end_of_audio is None else min(last, end_of_audio)
    placed = []
    position = 0
    for word, (first, behind) in zip(words, edges, strict=True):
        start, end = min(limit, offset + first), min(limit, offset + behind)
        characters = spans[position : position + len(word)]
        num_frames = [span.end_frame - span.first_frame for span in characters]
        total = sum(n * span.score for n, span in zip(num_frames, characters, strict=True))
        with_boundaries = spans[max(0, position - 1) : position + len(word) + 1]
        placed.append(
            WordSpan(
                word=word,
                start=start,
                end=end,
                score=total / sum(num_frames),
                log_probability=sum(
                    math.log(max(span.score, SMALLEST)) for span in with_boundaries
                ),
                characters=_characters(
                    word,
                    [span.score for span in characters],
                    [min(limit, offset + span.first_frame * frame_seconds) for span in characters],
                    (start, end),
                ),
            )
        )
        position += len(word) + 1  # and the word boundary
    return placed


def _characters(
    word: str, scores: Sequence[float], starts: Sequence[float], word_times: tuple[float, float]
) -> tuple[CharacterSpan, ...]:
    """Return the characters of a word: each lasts until the next one begins."""
    bounds = [word_times[0], *starts[1:], word_times[1]]
    return tuple(
        CharacterSpan(character=character, start=start, end=end, score=score)
        for character, score, start, end in zip(word, scores, bounds, bounds[1:], strict=False)
    )


def _edges(
    words: Sequence[str], spans: Sequence[TokenSpan], frame_seconds: float, duration: float
) -> list[tuple[float, float]]:
    """Return start and end of each word (seconds): its symbols' frames and EDGE_SECONDS around.

    Two words that have less than twice that between them share it.
    """
    edges: list[tuple[float, float]] = []
    position, before = 0, 0.0
    for word in words:
        characters = spans[position : position + len(word)]
        position += len(word) + 1  # and the word boundary
        start = characters[0].first_frame * frame_seconds
        end = characters[-1].end_frame * frame_seconds
        gap = start - before
        if edges:
            reach = min(EDGE_SECONDS, gap / 2)
            edges[-1] = (edges[-1][0], before + reach)
        else:
            reach = min(EDGE_SECONDS, gap)
        edges.append((start - reach, end))
        before = end
    if edges:
        edges[-1] = (edges[-1][0], min(duration, before + EDGE_SECONDS))
    return edges
