"""N-gram language models: modified Kneser-Ney smoothing, written as ARPA for KenLM to read.

The estimate is that of KenLM's `lmplz`: interpolated modified Kneser-Ney with three discounts per
order (Chen and Goodman, 1999, https://dash.harvard.edu/handle/1/25104739; Heafield et al., 2013,
https://aclanthology.org/P13-2121/), no pruning, unigrams interpolated with the uniform
distribution. It exists because no maintained builder installs from wheels. One difference is
intended: lmplz files the last unigram under its raw count when it estimates the unigram discounts
(https://github.com/kpu/kenlm/issues/405), which shows on toy corpora.

    p(w | h) = (a(hw) - D(a(hw))) / a(h.) + b(h) p(w | h without its first word)
    b(h) = (D1 N1(h.) + D2 N2(h.) + D3 N3+(h.)) / a(h.)

a() is the count for the highest order and for n-grams that begin with <s>, otherwise the number of
different words seen before the n-gram; Nk(h.) is the number of words whose a(hw) is k.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speechjepa.errors import DataError

UNKNOWN, START, END = "<unk>", "<s>", "</s>"
_UNKNOWN_ID, _START_ID, _END_ID = 0, 1, 2
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""What lmplz --discount_fallback takes where the counts allow no estimate (tiny corpora)."""


@dataclass(frozen=True, kw_only=True)
class NgramTable:
    """All n-grams of one order. Row i holds n-gram i; rows are sorted by `keys`."""

    keys: NDArray[np.int64]
    """Row of the n-gram's first n-1 words in the table below, times the number of words, plus the
    id of its last word."""
    log10_probs: NDArray[np.float64]
    log10_backoffs: NDArray[np.float64]
    discounts: tuple[float, float, float]
    """What was taken off counts of 1, 2, and 3 or more."""
    is_fallback: bool
    """Whether the discounts are the fixed ones."""


class NgramModel:
    """A back-off language model over words (any symbols without white space)."""

    def __init__(self, words: Sequence[str], tables: Sequence[NgramTable]) -> None:
        self.words = tuple(words)
        """The symbols by id; the first three are <unk>, <s> and </s>."""
        self.tables = tuple(tables)
        self._ids = {word: index for index, word in enumerate(self.words)}

    @property
    def order(self) -> int:
        """Length of the longest n-grams."""
        return len(self.tables)

    def log10_prob(self, word: str, history: Sequence[str] = ()) -> float:
        """Return log10 p(word | history); unknown symbols count as <unk>.

        Args:
            word: A symbol, or "</s>" for the end.
            history: The symbols before it; begins with "<s>" at the start of a sentence.
        """
        word_id = self._ids.get(word, _UNKNOWN_ID)
        kept = history[max(0, len(history) - self.order + 1) :]
        return self._log10_prob(word_id, [self._ids.get(item, _UNKNOWN_ID) for item in kept])

    def _log10_prob(self, word_id: int, history: list[int]) -> float:
        backoff = 0.0
        for first in range(len(history) + 1):
            context = history[first:]
            row = self._find(context)
            if row is None:
                continue
            if not context:
                return backoff + float(self.tables[0].log10_probs[word_id])
            extended = self._find_next(row, len(context), word_id)
            if extended is not None:
                return backoff + float(self.tables[len(context)].log10_probs[extended])
            backoff += float(self.tables[len(context) - 1].log10_backoffs[row])
        raise AssertionError("the empty history is always found")

    def _find(self, word_ids: Sequence[int]) -> int | None:
        """Return the row of an n-gram in its table (0 for the empty one), None where absent."""
        row: int | None = word_ids[0] if word_ids else 0
        for length in range(1, len(word_ids)):
            if row is None:
                return None
            row = self._find_next(row, length, word_ids[length])
        return row

    def _find_next(self, row: int, length: int, word_id: int) -> int | None:
        keys = self.tables[length].keys
        key = row * len(self.words) + word_id
        found = int(np.searchsorted(keys, key))
        return found if found < len(keys) and keys[found] == key else None

    def sentence_log10_prob(self, sentence: Sequence[str]) -> float:
        """Return log10 p(sentence </s> | <s>)."""
        return sum(self._sentence_terms(sentence))

    def _sentence_terms(self, sentence: Sequence[str]) -> Iterator[float]:
        ids = [_START_ID, *(self._ids.get(word, _UNKNOWN_ID) for word in sentence), _END_ID]
        for position in range(1, len(ids)):
            yield self._log10_prob(ids[position], ids[max(0, position - self.order + 1) : position])

    def perplexity(self, sentences: Iterable[Sequence[str]]) -> float:
        """Return the perplexity per symbol (ends of sentences included; unknown ones as <unk>)."""
        total, num_terms = 0.0, 0
        for sentence in sentences:
            total += self.sentence_log10_prob(sentence)
            num_terms += len(sentence) + 1
        return math.inf if not num_terms else 10.0 ** (-total / num_terms)

    def write_arpa(self, path: str | Path) -> None:
        """Write the model as an ARPA file (UTF-8), readable by KenLM, SRILM and others."""
        num_words = len(self.words)
        with Path(path).open("w", encoding="utf-8", newline="\n") as file:
            file.write("\\data\\\n")
            for order, table in enumerate(self.tables, start=1):
                file.write(f"ngram {order}={len(table.keys)}\n")
            prefixes: list[str] = [""]
            for order, table in enumerate(self.tables, start=1):
                file.write(f"\n\\{order}-grams:\n")
                parents, last = np.divmod(table.keys, num_words)
                ngrams = [
                    f"{prefixes[parent]} {self.words[word]}" if order > 1 else self.words[word]
                    for parent, word in zip(parents.tolist(), last.tolist(), strict=True)
                ]
                probs = np.minimum(table.log10_probs, 0.0).tolist()
                if order == self.order:
                    lines = (f"{p:.7g}\t{n}\n" for p, n in zip(probs, ngrams, strict=True))
                else:
                    backoffs = table.log10_backoffs.tolist()
                    rows = zip(probs, ngrams, backoffs, strict=True)
                    lines = (f"{p:.7g}\t{n}\t{b:.7g}\n" for p, n, b in rows)
                file.writelines(lines)
                prefixes = ngrams
            file.write("\n\\end\\\n")


def estimate_ngram(
    sequences: Iterable[Sequence[str]],
    order: int,
    *,
    words: Iterable[str] = (),
    discounts: Mapping[int, tuple[float, float, float]] | None = None,
) -> NgramModel:
    """Estimate an interpolated modified Kneser-Ney model from sentences.

    Args:
        sequences: One sequence of symbols per sentence, without <s> and </s>. Empty ones are
            left out.
        order: Length of the longest n-grams, at least 2.
        words: Symbols that the model must know even where no sentence holds them; each gets its
            share of the uniform distribution, like <unk>.
        discounts: Order -> what to take off counts of 1, 2, and 3 or more, where the estimate is
            not wanted.

    Raises:
        DataError: There is no text, or a symbol is reserved, empty or holds white space.
    """
    if order < 2:
        raise ValueError(f"`order` must be at least 2, but is {order} instead")
    sentences = [list(sequence) for sequence in sequences if len(sequence)]
    if not sentences:
        raise DataError("there is no text to estimate a language model from")
    known = {word for sentence in sentences for word in sentence} | set(words)
    for word in known:
        if word in (UNKNOWN, START, END) or not word or any(c in " \t\n\r\v\f\0" for c in word):
            raise DataError(
                f"{word!r} cannot be a symbol of a language model: <unk>, <s> and </s> are "
                "reserved, and symbols hold no white space; take it out of the text"
            )
    all_words = [UNKNOWN, START, END, *sorted(known)]
    ids = {word: index for index, word in enumerate(all_words)}
    stream: list[int] = []
    for sentence in sentences:
        stream.append(_START_ID)
        stream.extend(ids[word] for word in sentence)
        stream.append(_END_ID)
    counts = _count(np.asarray(stream, np.int64), order, len(all_words))
    return NgramModel(all_words, _smooth(counts, len(all_words), discounts or {}))


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """The n-grams of one order, sorted by key."""

    keys: NDArray[np.int64]
    raw: NDArray[np.int64]
    suffixes: NDArray[np.int64]
    """Row of the n-gram without its first word, in the order below."""
    starts: NDArray[np.bool_]
    """Whether the n-gram begins with <s>."""


def _count(stream: NDArray[np.int64], order: int, num_words: int) -> list[_Counts]:
    unigrams = np.arange(num_words)
    counts = [
        _Counts(
            keys=unigrams,
            raw=np.bincount(stream, minlength=num_words),
            suffixes=np.zeros(num_words, np.int64),
            starts=unigrams == _START_ID,
        )
    ]
    rows = stream  # row of the n-gram that ends at each place of the stream; -1 = crosses <s>
    for _ in range(order - 1):
        shorter = counts[-1]
        previous = np.concatenate([[-1], rows[:-1]])
        valid = (previous >= 0) & (stream != _START_ID)
        keys, first, inverse, raw = np.unique(
            previous[valid] * num_words + stream[valid],
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        counts.append(
            _Counts(
                keys=keys,
                raw=raw,
                suffixes=rows[valid][first],
                starts=shorter.starts[keys // num_words],
            )
        )
        rows = np.full_like(rows, -1)
        rows[valid] = inverse
    return counts


def _smooth(
    counts: Sequence[_Counts],
    num_words: int,
    given_discounts: Mapping[int, tuple[float, float, float]],
) -> list[NgramTable]:
    """Turn counts into probabilities, shortest n-grams first."""
    # <s> is never predicted, so it has no share of the uniform distribution.
    shorter_probs = np.full(1, 1.0 / (num_words - 1))
    tables: list[NgramTable] = []
    for n, table in enumerate(counts):
        adjusted = _adjusted_counts(counts, n)
        if n + 1 in given_discounts:
            discounts, is_fallback = given_discounts[n + 1], False
        else:
            discounts, is_fallback = _discounts(adjusted)
        taken = np.array([0.0, *discounts])[np.minimum(adjusted, 3)]
        contexts = table.keys // num_words if n else np.zeros(num_words, np.int64)
        num_contexts = len(counts[n - 1].keys) if n else 1
        totals = np.bincount(contexts, weights=adjusted, minlength=num_contexts)
        mass = np.bincount(contexts, weights=taken, minlength=num_contexts)
        backoffs = np.divide(mass, totals, out=np.ones(num_contexts), where=totals > 0)
        probs = (adjusted - taken) / totals[contexts]
        probs = probs + backoffs[contexts] * shorter_probs[table.suffixes]
        if n:
            tables[-1] = replace(tables[-1], log10_backoffs=np.log10(backoffs))
        log10_probs = np.log10(probs)
        if n == 0:
            log10_probs[_START_ID] = -99.0  # the ARPA convention
        tables.append(
            NgramTable(
                keys=table.keys,
                log10_probs=log10_probs,
                log10_backoffs=np.zeros(len(table.keys)),
                discounts=discounts,
                is_fallback=is_fallback,
            )
        )
        shorter_probs = probs
    return tables


def _adjusted_counts(counts: Sequence[_Counts], n: int) -> NDArray[np.int64]:
    """Return a() of the formula above for the n-grams of `counts[n]`."""
    table = counts[n]
    if n + 1 == len(counts):
        return table.raw
    num_predecessors = np.bincount(counts[n + 1].suffixes, minlength=len(table.keys))
    adjusted = np.where(table.starts, table.raw, num_predecessors)
    if n == 0:
        adjusted[_START_ID] = 0
    return adjusted


def _discounts(adjusted: NDArray[np.int64]) -> tuple[tuple[float, float, float], bool]:
    """Return the discounts of an order (equation 26 of Chen and Goodman), or the fallback."""
    n1, n2, n3, n4 = (int((adjusted == count).sum()) for count in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return FALLBACK_DISCOUNTS, True
    y = n1 / (n1 + 2.0 * n2)
    estimated = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    if any(not 0.0 <= amount <= k for k, amount in enumerate(estimated, start=1)):
        return FALLBACK_DISCOUNTS, True
    return estimated, False


def read_arpa_words(path: str | Path) -> list[str]:
    """Return the symbols of an ARPA file, <unk>, <s> and </s> included, in their order there.

    Raises:
        DataError: The file cannot be read or has no unigrams.
    """
    words: list[str] = []
    inside = False
    try:
        with Path(path).open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                line = line.rstrip("\r\n")
                if line == "\\1-grams:":
                    inside = True
                elif inside and line.startswith("\\"):
                    break
                elif inside and line:
                    fields = line.split("\t")
                    if len(fields) not in (2, 3):
                        raise DataError("this is no line of an ARPA file", path=path, line=number)
                    words.append(fields[1])
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the language model cannot be read: {error}", path=path) from error
    if not words:
        raise DataError("the file holds no unigrams: it must be a text ARPA file", path=path)
    return words


def read_arpa_order(path: str | Path) -> int:
    """Return the length of an ARPA file's longest n-grams as its head counts them; 0 = no head."""
    order = 0
    with Path(path).open(encoding="utf-8", newline="\n") as file:
        for line in file:
            if line.startswith("\\1-grams:"):
                break
            found = re.match(r"ngram\s+(\d+)\s*=", line)
            if found is not None:
                order = max(order, int(found[1]))
    return order
