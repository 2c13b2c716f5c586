"""What decodes logits to text: best path, a beam, another language model, hotwords, n best."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol

from torch import Tensor

from speechjepa.data.readers.text_files import read_text
from speechjepa.errors import ConfigError, DataError, ModelError
from speechjepa.inference.search import BeamConfig, BeamSearch, Hypothesis, greedy_decode
from speechjepa.text.ngram import read_arpa_words
from speechjepa.text.vocabulary import Vocabulary

Decoder = Literal["auto", "greedy", "beam"]
DECODERS: tuple[Decoder, ...] = ("auto", "greedy", "beam")
Decode = Callable[[Tensor, Tensor], list[Hypothesis]]
HOTWORD_BEAM = 100
"""Texts that are kept while hotwords are sought: a word that is not among them cannot be found."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """How the text is chosen."""

    decoder: Decoder = "auto"
    """Best path, or beam search with the language model; auto = beam if there is one."""
    language_model: str | None = None
    """ARPA file to use instead of the bundle's."""
    hotwords: Sequence[str] = ()
    """Words and phrases to prefer; in capitals or not, as the model writes. One string is read as
    `read_hotwords` does: "a,b c"."""
    hotword_score: float = 6.0
    """Added for each time one of them is heard (nats)."""
    n_best: int = 1
    """Texts to give for each segment; those after the first are its alternatives."""

    def __post_init__(self) -> None:
        if self.decoder not in DECODERS:
            raise ConfigError(f"`decoder` must be one of {DECODERS}, but is {self.decoder!r}.")
        if not isinstance(self.n_best, int) or self.n_best < 1:
            raise ConfigError(
                f"`n_best` must be a whole number, at least 1, but is {self.n_best} instead."
            )
        words = self.hotwords
        if isinstance(words, str):
            object.__setattr__(self, "hotwords", read_hotwords(words))
        elif not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
            raise ConfigError(f"`hotwords` must be words, but is {words!r} instead.")
        if not math.isfinite(self.hotword_score):
            raise ConfigError(
                f"`hotword_score` must be a number of nats, but is {self.hotword_score} instead."
            )
        if self.decoder == "greedy" and (self.language_model or self.hotwords or self.n_best > 1):
            raise ConfigError(
                "greedy decoding knows no language model, hotwords or alternatives: use --decoder "
                "beam or auto"
            )


class Search(Protocol):
    """What decodes logits to text with a language model."""

    def decode(self, logits: Tensor, lengths: Tensor) -> list[Hypothesis]: ...


def make_decoder(vocabulary: Vocabulary, search: Search | None, choices: Choices) -> Decode:
    """Return what turns logits (B, T, V) and lengths (B,) into the text of each utterance.

    Args:
        vocabulary: The V symbols.
        search: The bundle's own search, None where it has no language model.
        choices: What to use instead of it, or with it.

    Raises:
        ModelError: There is no language model although beam search was asked for, or the one that
            was named does not fit.
        ConfigError: A hotword holds characters that the model cannot write.
    """
    if choices.decoder == "greedy":
        return lambda logits, lengths: greedy_decode(logits, lengths, vocabulary)
    hotwords = tuple(_as_written(word, vocabulary) for word in choices.hotwords)
    choices = replace(choices, hotwords=hotwords)
    if choices.language_model is not None:
        search = _other_model(vocabulary, choices.language_model)
    chooses = bool(choices.hotwords) or choices.n_best > 1
    if search is None and chooses:
        search = BeamSearch(vocabulary, None, BeamConfig())
    if search is None:
        if choices.decoder == "beam":
            raise ModelError(
                "this model carries no language model for beam search. Use --decoder greedy, name "
                "one with --lm, or add one with the language_model stage of a recipe."
            )
        return lambda logits, lengths: greedy_decode(logits, lengths, vocabulary)
    if not chooses:
        return search.decode
    if not isinstance(search, BeamSearch):
        raise ModelError("this model's search knows no hotwords and no alternatives")
    if choices.hotwords:
        size = max(HOTWORD_BEAM, search.config.beam_size)
        search = search.with_config(replace(search.config, beam_size=size))
    return _chooser(search, choices)


def _as_written(word: str, vocabulary: Vocabulary) -> str:
    """Return a hotword as the model writes it: names are given with capitals, few models have them.

    Raises:
        ConfigError: It holds characters that the model cannot write.
    """
    composed = unicodedata.normalize("NFC", word)
    spellings = (word, composed, composed.lower(), composed.upper())
    missing = [[c for c in spelling if c not in vocabulary] for spelling in spellings]
    for spelling, lacking in zip(spellings, missing, strict=True):
        if spelling.strip() and not lacking:
            return spelling
    fewest = min(missing, key=len)
    unknown = sorted(set(fewest))
    raise ConfigError(
        f"the hotword {word!r} holds {', '.join(map(repr, unknown)) or 'nothing'}, which this "
        "model cannot write"
    )


@lru_cache(maxsize=2)
def _other_model(vocabulary: Vocabulary, path: str) -> BeamSearch:
    """Read a language model of characters or of words, as its symbols say."""
    words = [word for word in read_arpa_words(path) if not word.startswith("<")]
    kind: Literal["character", "word"] = "word"
    if all(len(word) == 1 for word in words):
        kind = "character"
    return BeamSearch(vocabulary, path, BeamConfig(kind=kind))


def _chooser(search: BeamSearch, choices: Choices) -> Decode:
    def decode(logits: Tensor, lengths: Tensor) -> list[Hypothesis]:
        found = []
        for row, length in enumerate(lengths.tolist()):
            scored = [
                replace(h, score=h.score + choices.hotword_score * heard(h.text, choices.hotwords))
                for h in search.candidates(logits[row, :length])
            ]
            scored.sort(key=lambda hypothesis: -hypothesis.score)
            others = tuple((h.text, h.score) for h in scored[1 : choices.n_best])
            found.append(replace(scored[0], alternatives=others))
        return found

    return decode


def heard(text: str, hotwords: Sequence[str]) -> int:
    """Return how often hotwords stand in a text, as whole words."""
    spaced = f" {' '.join(text.split())} "
    return sum(spaced.count(f" {' '.join(word.split())} ") for word in hotwords)


def read_hotwords(text: str) -> tuple[str, ...]:
    """Return the words of "a,b c", or of the lines of a file that is named so.

    Raises:
        DataError: There is no such file, it cannot be read, or is not UTF-8.
    """
    path = Path(text.strip())
    is_file = len(text) < 200 and path.suffix == ".txt" and path.is_file()
    if not is_file and (path.suffix == ".txt" or ("/" in text and "," not in text)):
        raise DataError("there is no such .txt file of hotwords", path=path)
    parts = read_text(path).splitlines() if is_file else text.split(",")
    return tuple(dict.fromkeys(" ".join(part.split()) for part in parts if part.strip()))
