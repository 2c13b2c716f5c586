"""Character and word error rates, their uncertainty, and alignments to look at.

A rate is the Levenshtein distance to the reference, summed over the utterances, divided by the
length of the references (so long utterances weigh more, and a rate may exceed 1). Characters are
Unicode code points, the space between words included, as in jiwer, whose figures these equal: a
letter with a combining mark that has no composed form counts as two. Edit operations come from
rapidfuzz, on which jiwer itself rests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import Levenshtein


@dataclass(frozen=True, kw_only=True)
class EditCounts:
    """What it takes to turn a reference into a hypothesis."""

    substitutions: int
    insertions: int
    """Symbols of the hypothesis that are not in the reference."""
    deletions: int
    """Symbols of the reference that the hypothesis lacks."""
    length: int
    """Number of symbols in the reference."""

    @property
    def edits(self) -> int:
        """Sum of the three kinds of error."""
        return self.substitutions + self.insertions + self.deletions

    @property
    def rate(self) -> float:
        """Edits per reference symbol; with an empty reference 0 if nothing was said, else 1."""
        return _rate(self.edits, self.length)


@dataclass(frozen=True, kw_only=True)
class ErrorRates:
    """Error rates of a set of utterances, with the counts they come from."""

    cer: float
    """Character error rate (fraction, may exceed 1)."""
    wer: float
    """Word error rate (fraction, may exceed 1)."""
    num_utterances: int
    num_characters: int
    """Characters in the references, spaces included."""
    num_words: int
    """Words in the references."""
    characters: EditCounts
    """Totals over the characters."""
    words: EditCounts
    """Totals over the words."""
    per_utterance_characters: tuple[EditCounts, ...]
    per_utterance_words: tuple[EditCounts, ...]


def _rate(edits: int, length: int) -> float:
    if length:
        return edits / length
    return 1.0 if edits else 0.0


def count_edits(reference: Sequence[str], hypothesis: Sequence[str]) -> EditCounts:
    """Count the edits between two sequences: strings (characters) or lists of words."""
    substitutions = insertions = deletions = 0
    for operation in Levenshtein.editops(reference, hypothesis):
        if operation.tag == "replace":
            substitutions += 1
        elif operation.tag == "insert":
            insertions += 1
        else:
            deletions += 1
    return EditCounts(
        substitutions=substitutions,
        insertions=insertions,
        deletions=deletions,
        length=len(reference),
    )


def _total(counts: Sequence[EditCounts]) -> EditCounts:
    return EditCounts(
        substitutions=sum(count.substitutions for count in counts),
        insertions=sum(count.insertions for count in counts),
        deletions=sum(count.deletions for count in counts),
        length=sum(count.length for count in counts),
    )


def error_rates(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorRates:
    """Compute character and word error rates of hypotheses against their references.

    Nothing is normalised here but white space: runs of it count as one space, and the ends are
    stripped. An empty reference adds its hypothesis as insertions; when all references are empty
    the rate is 0 if nothing was said and 1 otherwise.

    Args:
        references: What was said, one string per utterance.
        hypotheses: What was recognised, in the same order.

    Raises:
        ValueError: The two differ in number.
    """
    if len(references) != len(hypotheses):
        raise ValueError(
            f"`references` and `hypotheses` must have the same length, but have "
            f"{len(references)} and {len(hypotheses)} instead"
        )
    characters: list[EditCounts] = []
    words: list[EditCounts] = []
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        reference_words, hypothesis_words = reference.split(), hypothesis.split()
        words.append(count_edits(reference_words, hypothesis_words))
        characters.append(count_edits(" ".join(reference_words), " ".join(hypothesis_words)))
    all_characters, all_words = _total(characters), _total(words)
    return ErrorRates(
        cer=all_characters.rate,
        wer=all_words.rate,
        num_utterances=len(characters),
        num_characters=all_characters.length,
        num_words=all_words.length,
        characters=all_characters,
        words=all_words,
        per_utterance_characters=tuple(characters),
        per_utterance_words=tuple(words),
    )


def bootstrap_interval(
    edits: Sequence[int],
    lengths: Sequence[int],
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return a percentile bootstrap interval of an error rate, drawing whole utterances.

    Utterances are drawn with replacement and the pooled rate recomputed each time (Bisani and
    Ney, 2004, https://doi.org/10.1109/ICASSP.2004.1326009). It says how much the figure depends
    on which utterances are in the set; errors that all utterances of a speaker share make the
    true uncertainty larger.

    Args:
        edits: Number of errors of each utterance.
        lengths: Number of reference symbols of each utterance.
        seed: Of the draws.
        resamples: How many draws.
        level: Coverage of the interval, in (0, 1).

    Returns:
        The bounds (low, high) of the rate, as fractions; (0, 0) where there is no utterance.
    """
    if len(edits) != len(lengths):
        raise ValueError(
            f"`edits` and `lengths` must have the same length, but have "
            f"{len(edits)} and {len(lengths)} instead"
        )
    if not 0.0 < level < 1.0:
        raise ValueError(f"`level` must be between 0 and 1, but is {level} instead")
    if not len(edits):
        return 0.0, 0.0
    generator = np.random.default_rng(seed)
    all_edits, all_lengths = np.asarray(edits, np.int64), np.asarray(lengths, np.int64)
    rates = np.empty(resamples)
    for resample in range(resamples):
        drawn = generator.integers(0, len(all_edits), len(all_edits))
        rates[resample] = _rate(int(all_edits[drawn].sum()), int(all_lengths[drawn].sum()))
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(rates, [tail, 1.0 - tail])
    return float(low), float(high)


def align(
    reference: Sequence[str], hypothesis: Sequence[str]
) -> list[tuple[str, str | None, str | None]]:
    """Align two strings (character by character) or two lists of words, for display.

    Returns:
        `(operation, reference symbol, hypothesis symbol)` in order, where operation is one of
        "equal", "substitute", "insert" (reference symbol is None) and "delete" (hypothesis
        symbol is None).
    """
    aligned: list[tuple[str, str | None, str | None]] = []
    for block in Levenshtein.opcodes(reference, hypothesis):
        left = reference[block.src_start : block.src_end]
        right = hypothesis[block.dest_start : block.dest_end]
        if block.tag == "insert":
            aligned += [("insert", None, symbol) for symbol in right]
        elif block.tag == "delete":
            aligned += [("delete", symbol, None) for symbol in left]
        else:
            operation = "equal" if block.tag == "equal" else "substitute"
            aligned += [(operation, a, b) for a, b in zip(left, right, strict=True)]
    return aligned
