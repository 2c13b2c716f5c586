"""How good a translation is: of units, of text, and of when it came.

BLEU and chrF are sacrebleu's (https://arxiv.org/abs/1804.08771), with its signature.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rapidfuzz.distance import Levenshtein

from speechjepa.errors import DataError


def sequence_error_rate(
    references: Sequence[Sequence[int]], hypotheses: Sequence[Sequence[int]]
) -> float:
    """Return the edits between sequences of units, per unit of the references (may exceed 1)."""
    if len(references) != len(hypotheses):
        raise ValueError(
            f"`references` and `hypotheses` must have the same length, but have "
            f"{len(references)} and {len(hypotheses)} instead"
        )
    edits = sum(
        Levenshtein.distance(list(reference), list(hypothesis))
        for reference, hypothesis in zip(references, hypotheses, strict=True)
    )
    length = sum(map(len, references))
    if not length:
        return 1.0 if edits else 0.0
    return edits / length


@dataclass(frozen=True, kw_only=True)
class Score:
    """A score of a set of translations."""

    value: float
    """0 to 100."""
    signature: str
    """How it was computed, in sacrebleu's words."""


def bleu(references: Sequence[str], hypotheses: Sequence[str], *, tokenize: str = "13a") -> Score:
    """Return corpus BLEU; texts are scored as they are given, so normalise both alike before.

    Args:
        references: One per utterance.
        hypotheses: In the same order.
        tokenize: sacrebleu's tokenizer; "char" for languages without spaces between words.

    Raises:
        DataError: sacrebleu is not installed, or there is nothing to score.
    """
    return _score("BLEU", references, hypotheses, tokenize=tokenize)


def chrf(references: Sequence[str], hypotheses: Sequence[str]) -> Score:
    """Return corpus chrF (characters, up to 6-grams, beta 2); the rest is as in `bleu`."""
    return _score("CHRF", references, hypotheses)


def unit_bleu(references: Sequence[Sequence[int]], hypotheses: Sequence[Sequence[int]]) -> Score:
    """Return corpus BLEU of units, each a word: for targets that nobody writes."""
    return _score(
        "BLEU", *(_words(sequences) for sequences in (references, hypotheses)), tokenize="none"
    )


def _words(sequences: Sequence[Sequence[int]]) -> list[str]:
    return [" ".join(f"u{unit}" for unit in sequence) for sequence in sequences]


def _score(
    name: str, references: Sequence[str], hypotheses: Sequence[str], **settings: Any
) -> Score:
    if len(references) != len(hypotheses):
        raise ValueError(
            f"`references` and `hypotheses` must have the same length, but have "
            f"{len(references)} and {len(hypotheses)} instead"
        )
    if not references:
        raise DataError("there are no translations to score")
    try:
        metrics = importlib.import_module("sacrebleu.metrics")
    except ModuleNotFoundError as error:
        raise DataError(
            "BLEU and chrF need the package `sacrebleu`: pip install 'speechjepa[translation]'."
        ) from error
    metric = getattr(metrics, name)(**settings)
    found = metric.corpus_score(list(hypotheses), [list(references)])
    return Score(value=float(found.score), signature=str(metric.get_signature()))


@dataclass(frozen=True, kw_only=True)
class Latency:
    """When the pieces of a translation came (milliseconds)."""

    al: float
    """Average Lagging."""
    laal: float
    """Length-Adaptive Average Lagging."""
    start_offset: float
    """When the first piece came."""
    end_offset: float
    """How long after the end of the source the last one came."""


def latency(
    delays: Sequence[float], source_length: float, reference_length: float | None = None
) -> Latency:
    """Return the latency of one translation.

    With d_1 .. d_n the delays, T the source's length, n the pieces written and r those of the
    reference, tau the first piece whose delay reaches T:

        AL = 1/tau sum_{i <= tau} (d_i - (i - 1) T / r), and LAAL the same with max(n, r) for r.

    AL: https://arxiv.org/abs/1810.08398 (for speech, https://arxiv.org/abs/2011.02048); LAAL:
    https://arxiv.org/abs/2206.05807; all as SimulEval computes them
    (https://arxiv.org/abs/2007.16193). Where r is not known, n stands for it.

    Args:
        delays: How much of the source had been heard when each piece was written (ms), or, for
            the computation-aware figures, the time on the clock since the source began.
        source_length: T (ms).
        reference_length: r, pieces of the reference.

    Raises:
        ValueError: There are no delays, or the source has no length.
    """
    if not delays or source_length <= 0:
        raise ValueError("latency needs delays and a source that lasts")
    written = len(delays)
    reference = float(written if reference_length is None else reference_length)
    return Latency(
        al=_lagging(delays, source_length, reference),
        laal=_lagging(delays, source_length, max(float(written), reference)),
        start_offset=float(delays[0]),
        end_offset=float(delays[-1]) - source_length,
    )


def _lagging(delays: Sequence[float], source_length: float, target_length: float) -> float:
    if delays[0] > source_length:
        return float(delays[0])
    per_piece = source_length / target_length
    total, count = 0.0, 0
    for place, delay in enumerate(delays):
        total += delay - place * per_piece
        count = place + 1
        if delay >= source_length:
            break
    return total / count
