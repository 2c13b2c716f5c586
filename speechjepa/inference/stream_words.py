"""Words of a stream of CTC logits: which of them can no longer change, and the guess after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from speechjepa.inference.align import align_words
from speechjepa.inference.confidence import calibrate
from speechjepa.inference.search import BeamSearch, Hypothesis, greedy_decode
from speechjepa.metrics.calibration import ScoreMap
from speechjepa.text.vocabulary import Vocabulary

LIKELY = 5.0
"""Readings that score this much below the best are not waited for (nats): words come 50 ms earlier
than if all of the beam had to agree, and with the same errors (docs/LOG.md)."""
CONTEXT_WORDS = 5
"""Final words that a language model goes on from; its n-grams are no longer."""


@dataclass(frozen=True, kw_only=True)
class WordsConfig:
    """When words of a stream become final."""

    pause_seconds: float = 0.48
    """A pause this long ends a word and a line, with or without a word boundary in it."""
    settle_seconds: float = 0.24
    """With a language model: a finished word this old becomes final even if other readings of it
    are likely, so that the wait is bounded (seconds)."""
    max_seconds: float = 12.0
    """What was not parted into words for so long is parted at its longest pause (seconds)."""
    margin_seconds: float = 0.2
    """Silence kept before speech (seconds)."""


@dataclass(frozen=True)
class Found:
    """What becomes final at one point of a stream, and what is guessed after it."""

    final: list[dict[str, Any]]
    partial: list[dict[str, Any]]
    endpoint: bool
    """A pause follows the final words."""


@dataclass(frozen=True)
class _Guess:
    words: list[str]
    ends: list[int]
    """Frame of the boundary after each finished word; the last word may lack one."""
    num_final: int
    """Finished words, from the first on, that do not depend on what comes."""

    @property
    def rest(self) -> list[str]:
        """The words after those."""
        return self.words[self.num_final :]


class StreamWords:
    """Turn consecutive logits into words.

    Logits are divided at pauses; what follows the last final word is decoded again with each piece,
    from the boundary where that word ended. A word is final once its boundary was heard (best
    path), or once all likely readings agree on it, or its boundary is `settle_seconds` old.

    Args:
        vocabulary: The V symbols.
        search: Beam search with a language model; None = the best path.
        frame_seconds: Length of a frame (seconds).
        config: When words become final.
        score_map: Makes scores probabilities of being right; None = mean posteriors.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        search: BeamSearch | None,
        *,
        frame_seconds: float,
        config: WordsConfig,
        score_map: ScoreMap | None = None,
    ) -> None:
        self._score_map = score_map
        self._vocabulary = vocabulary
        self._search = search
        self._frame_seconds = frame_seconds
        self._pause, self._settle, self._max, self._margin = (
            max(1, round(seconds / frame_seconds))
            for seconds in (
                config.pause_seconds,
                config.settle_seconds,
                config.max_seconds,
                config.margin_seconds,
            )
        )
        self._logits = torch.zeros(0, len(vocabulary))  # from frame `_first` of the stream on
        self._first = 0
        self._silence = 0  # silent frames at the end of `_logits`
        self._has_speech = False
        self._spoke = False  # a word became final since the last endpoint
        self._context: list[str] = []

    @property
    def num_symbols(self) -> int:
        """V, the size of the vocabulary."""
        return len(self._vocabulary)

    def silent_frames(self, logits: Tensor) -> Tensor:
        """Say of each frame (T, V) whether it holds no character: (T,) bool."""
        blank, boundary = self._vocabulary.blank_id, self._vocabulary.word_boundary_id
        if self._search is not None and len(logits):
            shift = torch.zeros(logits.shape[1])
            shift[blank] = self._search.config.blank_score
            logits = logits + shift
        best = logits.argmax(dim=-1)
        return (best == blank) | (best == boundary)

    def push(
        self,
        logits: Tensor,
        tentative: Tensor,
        *,
        nearly_sure: bool = False,
        last: bool = False,
    ) -> list[Found]:
        """Take the next frames and return what they make final, one entry per pause, and the guess.

        Args:
            logits: (T, V) that no longer change.
            tentative: (T', V) of the frames after them, which may; for the guess.
            nearly_sure: They hardly will: they also say which reading of the frames before them is
                the better one, and that a pause follows.
            last: Nothing follows: everything becomes final.
        """
        found = []
        start = 0
        for frame, silent in enumerate(self.silent_frames(logits).tolist(), start=1):
            self._silence = self._silence + 1 if silent else 0
            self._has_speech |= not silent
            if self._silence >= self._pause:
                self._logits = torch.cat([self._logits, logits[start:frame]])
                start = frame
                found += self.pause()
        self._logits = torch.cat([self._logits, logits[start:]])
        context = tentative if nearly_sure else tentative[:0]
        silent = self.silent_frames(context).tolist()
        if self._silence + [*silent, False].index(False) >= self._pause:
            found += self.pause()
        if not self._has_speech:
            self._drop(len(self._logits) - self._margin)
        if last:
            return [*found, Found(self._finalize(), [], endpoint=True)]
        return [*found, self._read(tentative, context)]

    def pause(self) -> list[Found]:
        """Return what is made final by silence that is not even heard."""
        if not (self._has_speech or self._spoke):
            return []
        found = Found(self._finalize(), [], endpoint=True)
        self._spoke = False
        return [found]

    @property
    def first_seconds(self) -> float:
        """Time of the first frame that is not final yet (seconds)."""
        return self._first * self._frame_seconds

    def _finalize(self) -> list[dict[str, Any]]:
        """Take all that is there as words that are final."""
        words = self._guess(self._logits, ends=True).words if self._has_speech else []
        final = self._place(words, self._logits)
        self._remember(words)
        self._drop(len(self._logits))
        self._has_speech = False
        return final

    def _read(self, tentative: Tensor, context: Tensor) -> Found:
        """Make final what can be, and guess the rest."""
        if not self._has_speech and not bool((~self.silent_frames(tentative)).any()):
            return Found([], [], endpoint=False)
        guess = self._guess(torch.cat([self._logits, context]), settled=len(self._logits))
        words, rest, end = guess.words[: guess.num_final], guess.rest, 0
        if words:
            end = guess.ends[guess.num_final - 1]
        elif len(self._logits) > self._max:
            end = self._longest_pause()
            words = self._guess(self._logits[:end], ends=True).words
        final = self._place(words, self._logits[:end])
        if end:
            self._remember(words)
            self._drop(end)
            self._has_speech = not bool(self.silent_frames(self._logits).all())
        remaining = torch.cat([self._logits, tentative])
        if len(context) == 0 and (end or len(tentative)) or (end and not guess.num_final):
            rest = self._guess(remaining).words
        return Found(final, self._place(rest, remaining), endpoint=False)

    def _longest_pause(self) -> int:
        """Return the middle of the last of the longest pauses; the end where there is no pause."""
        best, run, end = 0, 0, len(self._logits)
        for frame, silent in enumerate(self.silent_frames(self._logits).tolist()):
            run = run + 1 if silent else 0
            if run and run >= best and frame >= self._margin + run:
                best, end = run, frame + 1 - run // 2
        return end

    def _guess(self, logits: Tensor, *, ends: bool = False, settled: int | None = None) -> _Guess:
        """Decode frames (T, V).

        Args:
            logits: Of the frames after the last final word.
            ends: Nothing belongs to their last word any more.
            settled: The first so many no longer change: a word that is final ends in them. What
                follows says which reading is the better one all the same. None = all.
        """
        settled = len(logits) if settled is None else settled
        if not len(logits):
            return _Guess([], [], 0)
        if self._search is None:
            hypothesis = greedy_decode(logits[None], torch.tensor([len(logits)]), self._vocabulary)
            words, bounds = self._words(hypothesis[0])
            return _Guess(words, bounds, sum(bound < settled for bound in bounds))
        prefix = self._forced(logits)
        skip = len(prefix)
        candidates = self._search.candidates(torch.cat([prefix, logits]))
        likely = [one for one in candidates if one.score > candidates[0].score - LIKELY]
        readings = [self._words(hypothesis, skip) for hypothesis in likely]
        words, bounds = readings[0]
        if ends:
            return _Guess(words, bounds, len(bounds))
        agreed = 0
        for index, (word, bound) in enumerate(zip(words, bounds, strict=False)):
            if bound >= settled:
                break
            agrees = all(w[index : index + 1] == [word] and len(b) > index for w, b in readings)
            if not agrees and len(logits) - bound < self._settle:
                break
            agreed = index + 1
        return _Guess(words, bounds, agreed)

    def _words(self, hypothesis: Hypothesis, skip: int = 0) -> tuple[list[str], list[int]]:
        """Return the words after `skip` frames, and the boundary frame of each finished one."""
        words, ends, letters = [], [], ""
        for token_id, frame in zip(hypothesis.token_ids, hypothesis.frames, strict=True):
            if frame < skip:
                continue
            if token_id != self._vocabulary.word_boundary_id:
                letters += self._vocabulary.symbols[token_id]
            elif letters:
                words.append(letters)
                ends.append(frame - skip)
                letters = ""
        return ([*words, letters] if letters else words), ends

    def _forced(self, logits: Tensor) -> Tensor:
        """Return frames (T', V) that can only be read as the final words before these frames."""
        vocabulary = self._vocabulary
        path: list[int] = []
        for token_id in vocabulary.encode(" ".join([*self._context, ""])):
            if path and path[-1] == token_id:
                path.append(vocabulary.blank_id)
            path.append(token_id)
        forced = logits.new_full((len(path), logits.shape[1]), -1e4)
        forced[torch.arange(len(path)), path] = 0.0
        return forced

    def _remember(self, words: Sequence[str]) -> None:
        self._context = [*self._context, *words][-CONTEXT_WORDS:]
        self._spoke |= bool(words)

    def _drop(self, count: int) -> None:
        if count > 0:
            self._logits = self._logits[count:].clone()
            self._first += count

    def _place(self, words: Sequence[str], logits: Tensor) -> list[dict[str, Any]]:
        """Return words of frames that start at `_first` as dicts with times and scores."""
        if not words:
            return []
        offset = self._first * self._frame_seconds
        end = offset + len(logits) * self._frame_seconds
        spans = align_words(
            logits,
            " ".join(words),
            self._vocabulary,
            frame_seconds=self._frame_seconds,
            offset=offset,
        )
        if spans is None:  # more symbols than frames: share the time out
            score = round(float(logits.softmax(dim=-1).amax(dim=-1).mean()), 4)
            each = (end - offset) / len(words)
            return [
                {
                    "word": word,
                    "start": round(offset + index * each, 3),
                    "end": round(offset + (index + 1) * each, 3),
                    "score": score,
                }
                for index, word in enumerate(words)
            ]
        return [
            {
                "word": span.word,
                "start": round(span.start, 3),
                "end": round(span.end, 3),
                "score": round(span.score, 4),
            }
            for span in calibrate(spans, self._score_map)
        ]
