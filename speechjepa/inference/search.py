"""From CTC logits to text: the best path, and a beam search with an n-gram language model.

The beam search is flashlight-text's (https://github.com/flashlight/text), with KenLM inside its
wheel. Two things it does are easy to get wrong, and are taken care of here: scores of the language
model are base-10 logarithms while those of the acoustic model are natural ones, and its
`create_word_dict` returns symbols in an arbitrary order, so that a character model must be given a
dictionary whose order is that of the token ids.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from speechjepa.errors import ConfigError, ModelError
from speechjepa.text.ngram import END, START, UNKNOWN, read_arpa_order, read_arpa_words
from speechjepa.text.vocabulary import Vocabulary

MAX_KENLM_ORDER = 6
"""Longest n-grams that KenLM as compiled into flashlight-text's wheel can read."""


class Symbols(Protocol):
    """What the columns of logits stand for: a `Vocabulary`, or tokens of another kind."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """By id, the blank first; the others are those of a language model."""

    @property
    def blank_id(self) -> int:
        """Of CTC."""

    @property
    def word_boundary_id(self) -> int | None:
        """None where there are no words."""

    @property
    def silent_ids(self) -> frozenset[int]:
        """What is never written: the blank, and such symbols as <unk>."""

    def decode_ctc(self, frame_ids: Iterable[int]) -> str:
        """Turn the symbol of every frame into text."""

    def __len__(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """What a search believes was said in one utterance."""

    text: str
    score: float
    """Log-probability (nats) of the path, plus the language model's part where there is one."""
    token_ids: tuple[int, ...] = ()
    """The symbols, repeats collapsed and blanks dropped."""
    frames: tuple[int, ...] = ()
    """First frame of each symbol."""
    alternatives: tuple[tuple[str, float], ...] = ()
    """Other texts and their scores, the best first, where they were asked for."""


@dataclass(frozen=True, kw_only=True)
class BeamConfig:
    """Settings of the beam search; the weights are tuned on dev."""

    kind: Literal["character", "word"] = "character"
    """What the language model predicts: characters, or whatever the columns of the logits stand
    for (any word can be written), or words (only those of its vocabulary can)."""
    lm_weight: float = 1.5
    """Weight of the language model's log10 probabilities; 2.3 weighs them like the acoustic ones
    (nats). wav2vec 2.0, with a word model: 3.23 at 10 minutes of labels, 2.46 at 10 hours
    (https://arxiv.org/abs/2006.11477, appendix B)."""
    word_score: float = 0.0
    """Added for each word (nats); with a character model, which knows no words, for each frame
    that is a word boundary. wav2vec 2.0: -0.26 at 10 minutes, -0.59 at 10 hours."""
    blank_score: float = 0.0
    """Added to the blank in each frame (nats). Negative values make up for a model that would
    rather say nothing, as those fine-tuned on minutes do."""
    beam_size: int = 32
    """Hypotheses kept after each frame."""
    beam_size_token: int | None = 12
    """Most probable symbols considered in each frame; None means all. With 12 of some 30 symbols a
    search takes half the time and finds the same."""
    beam_threshold: float = 25.0
    """Hypotheses that score this much below the best are dropped (nats)."""
    log_add: bool = True
    """Sum the probabilities of all CTC paths to a text (the prefix search of Graves et al., 2006)
    rather than keep the best path."""

    def __post_init__(self) -> None:
        if self.kind not in ("character", "word"):
            raise ConfigError(f"`kind` must be 'character' or 'word', but is {self.kind!r} instead")
        if self.beam_size < 1:
            raise ConfigError(f"`beam_size` must be at least 1, but is {self.beam_size} instead")
        if self.beam_threshold <= 0:
            raise ConfigError(
                f"`beam_threshold` must be positive, but is {self.beam_threshold} instead"
            )


def greedy_decode(logits: Tensor, lengths: Tensor, vocabulary: Symbols) -> list[Hypothesis]:
    """Return the text of the best CTC path of each utterance (Graves et al., 2006, section 3.2).

    https://www.cs.toronto.edu/~graves/icml_2006.pdf

    Args:
        logits: (B, T, V) unnormalised scores.
        lengths: (B,) number of valid frames.
        vocabulary: The V symbols; symbol `blank_id` is the blank.
    """
    _check_logits(logits, len(vocabulary))
    log_probs, best = logits.float().log_softmax(dim=-1).max(dim=-1)  # (B, T), (B, T)
    log_probs, best = log_probs.cpu(), best.cpu()
    return [
        _hypothesis(
            best[row, :length].tolist(), float(log_probs[row, :length].sum()), length, vocabulary
        )
        for row, length in enumerate(lengths.tolist())
    ]


def _check_logits(logits: Tensor, num_symbols: int) -> None:
    if logits.dim() != 3 or logits.shape[-1] != num_symbols:
        raise ValueError(
            f"`logits` must be (B, T, {num_symbols}), one column per symbol of the vocabulary, "
            f"but is {tuple(logits.shape)} instead"
        )


def _log_probs(logits: Tensor) -> Tensor:
    log_probs = logits.detach().to("cpu", torch.float32).log_softmax(dim=-1)
    if log_probs.isnan().any():
        raise ModelError("the logits hold NaN: the model or its input is broken")
    return log_probs


def _require_some(results: Sequence[Any]) -> None:
    if not results:
        raise ModelError(
            "the beam search lost every hypothesis; raise `beam_size` or `beam_threshold`"
        )


def _hypothesis(
    path: Sequence[int], score: float, num_frames: int, vocabulary: Symbols
) -> Hypothesis:
    """Read the text off a path: the symbol of every frame, and perhaps of a frame added to it."""
    frames = [
        frame
        for frame, token_id in enumerate(path[:num_frames])
        if token_id not in vocabulary.silent_ids and (frame == 0 or token_id != path[frame - 1])
    ]
    return Hypothesis(
        text=vocabulary.decode_ctc(path),
        score=score,
        token_ids=tuple(path[frame] for frame in frames),
        frames=tuple(frames),
    )


class BeamSearch:
    """CTC beam search with an n-gram language model, on the CPU.

    Args:
        vocabulary: The symbols of the logits, in their order.
        lm_path: ARPA file of these symbols ("|" for the space) or of words; None for no language
            model, which leaves the plain CTC prefix search.
        config: Weights and sizes.

    Raises:
        ConfigError: Words are wanted where there is no language model, or where there are none.
        ModelError: flashlight-text is not installed, the file cannot be read, or its symbols are
            not those of the vocabulary.
    """

    def __init__(self, vocabulary: Symbols, lm_path: str | Path | None, config: BeamConfig) -> None:
        self.vocabulary = vocabulary
        self.config = config
        self._flashlight = import_flashlight()
        self._words: list[str] = []
        if config.kind == "word" and not isinstance(vocabulary, Vocabulary):
            raise ConfigError("a beam search over words needs characters; these symbols are none")
        if lm_path is None:
            if config.kind == "word":
                raise ConfigError("a beam search over words needs a language model: give its file")
            self._lm = self._flashlight.ZeroLM()
        else:
            self._lm = self._load_lm(Path(lm_path))
        self._trie = self._build_trie() if config.kind == "word" else None
        self._decoder = self._build_decoder()

    def with_config(self, config: BeamConfig) -> BeamSearch:
        """Return the same search with other weights; the language model is not read again."""
        if config.kind != self.config.kind:
            raise ConfigError(
                f"this search is over {self.config.kind}s; `kind` cannot become {config.kind!r}"
            )
        other = object.__new__(BeamSearch)
        other.__dict__.update(self.__dict__)
        other.config = config
        other._decoder = other._build_decoder()
        return other

    def decode(self, logits: Tensor, lengths: Tensor) -> list[Hypothesis]:
        """Return the best text of each utterance.

        Args:
            logits: (B, T, V) unnormalised scores.
            lengths: (B,) number of valid frames.
        """
        _check_logits(logits, len(self.vocabulary))
        log_probs = _log_probs(logits)
        return [
            self._decode_one(log_probs[row, :length], 1)[0]
            for row, length in enumerate(lengths.tolist())
        ]

    def candidates(self, logits: Tensor) -> list[Hypothesis]:
        """Return every text that is left at the end of one utterance (T, V), the best first."""
        _check_logits(logits[None], len(self.vocabulary))
        return self._decode_one(_log_probs(logits), self.config.beam_size)

    def readings(self, logits: Tensor, *, ended: bool) -> list[Hypothesis]:
        """Return every sequence of symbols left after frames (T, V), T > 0, the best first.

        Sequences whose texts are the same, but for a space at the end, are two. Not for a search
        over words.

        Args:
            logits: Unnormalised scores.
            ended: Nothing follows; otherwise the language model is not asked whether what was
                heard may be all.
        """
        _check_logits(logits[None], len(self.vocabulary))
        emissions = self._emissions(_log_probs(logits))
        if ended:
            results = self._decoder.decode(emissions.data_ptr(), *emissions.shape)
        else:
            self._decoder.decode_begin()
            self._decoder.decode_step(emissions.data_ptr(), *emissions.shape)
            results = self._decoder.get_all_final_hypothesis()
        _require_some(results)
        found: dict[tuple[int, ...], Hypothesis] = {}
        for result in sorted(results, key=lambda result: -result.score):
            path = result.tokens[1:-1] if ended else result.tokens[1:]
            one = _hypothesis(path, float(result.score), len(logits), self.vocabulary)
            found.setdefault(one.token_ids, one)
        return list(found.values())

    def _emissions(self, log_probs: Tensor) -> Tensor:
        """Return log-probabilities (T, V) as the decoder takes them."""
        emissions = log_probs.clone(memory_format=torch.contiguous_format)
        emissions[:, self.vocabulary.blank_id] += self.config.blank_score
        return emissions

    def _decode_one(self, log_probs: Tensor, count: int) -> list[Hypothesis]:
        num_frames = len(log_probs)
        if num_frames == 0:
            return [Hypothesis(text="", score=0.0)]
        emissions = self._emissions(log_probs)
        boundary_id = self.vocabulary.word_boundary_id
        if self._trie is not None and boundary_id is not None:
            # A word of the lexicon ends with "|": one more frame gives it to the last word.
            boundary = emissions.new_full((1, emissions.shape[1]), -1e4)
            boundary[0, boundary_id] = 0.0
            emissions = torch.cat([emissions, boundary])
        results = self._decoder.decode(emissions.data_ptr(), *emissions.shape)
        _require_some(results)
        found: dict[str, Hypothesis] = {}
        for result in results[:count]:
            # The decoder puts a word boundary, or what stands for it, before the first frame and
            # after the last one.
            hypothesis = _hypothesis(
                result.tokens[1:-1], float(result.score), num_frames, self.vocabulary
            )
            found.setdefault(hypothesis.text, hypothesis)  # results come with the best first
        return list(found.values())

    def _load_lm(self, path: Path) -> Any:
        from flashlight.lib.text.decoder.kenlm import KenLM
        from flashlight.lib.text.dictionary import Dictionary

        words = [word for word in read_arpa_words(path) if word not in (UNKNOWN, START, END)]
        symbols = set(self.vocabulary.symbols[1:])
        if self.config.kind == "character":
            extra, missing = sorted(set(words) - symbols), sorted(symbols - set(words))
            entries = list(self.vocabulary.symbols)
        else:
            extra, missing = sorted(set("".join(words)) - symbols), []
            self._words = words
            entries = [*words, UNKNOWN]
        if extra or missing:
            parts = [f"the vocabulary lacks {extra}"] if extra else []
            parts += [f"the language model lacks {missing}"] if missing else []
            raise ModelError(
                f"{path}: the symbols of the language model are not those of the vocabulary: "
                f"{' and '.join(parts)}; build the language model again for this model"
            )
        order = read_arpa_order(path)
        if order == 1 or order > MAX_KENLM_ORDER:
            raise ModelError(
                f"{path}: its longest n-grams must be of order 2 to {MAX_KENLM_ORDER}, but are of "
                f"order {order} instead; estimate the language model again with such"
            )
        with _quiet_stderr():
            try:
                return KenLM(str(path), Dictionary(entries))
            except (RuntimeError, ValueError) as error:
                raise ModelError(
                    f"{path}: KenLM cannot read it: {_reason(error)}; write the ARPA file again"
                ) from error

    def _build_trie(self) -> Any:
        vocabulary = self.vocabulary
        assert isinstance(vocabulary, Vocabulary)
        trie = self._flashlight.Trie(len(vocabulary), vocabulary.word_boundary_id)
        start = self._lm.start(False)
        for word_id, word in enumerate(self._words):
            spelling = [*vocabulary.encode(word), vocabulary.word_boundary_id]
            trie.insert(spelling, word_id, self._lm.score(start, word_id)[1])
        trie.smear(self._flashlight.SmearingMode.MAX)
        return trie

    def _build_decoder(self) -> Any:
        flashlight, config = self._flashlight, self.config
        sizes: dict[str, Any] = {
            "beam_size": config.beam_size,
            "beam_size_token": config.beam_size_token or len(self.vocabulary),
            "beam_threshold": config.beam_threshold,
            "lm_weight": config.lm_weight,
            "log_add": config.log_add,
            "criterion_type": flashlight.CriterionType.CTC,
        }
        boundary, blank = self.vocabulary.word_boundary_id, self.vocabulary.blank_id
        if boundary is None:
            # The blank at both ends, which is no symbol that the first frame might repeat.
            options = flashlight.LexiconFreeDecoderOptions(sil_score=0.0, **sizes)
            return flashlight.LexiconFreeDecoder(options, self._lm, blank, blank, [])
        if self._trie is None:
            options = flashlight.LexiconFreeDecoderOptions(sil_score=config.word_score, **sizes)
            return flashlight.LexiconFreeDecoder(options, self._lm, boundary, blank, [])
        options = flashlight.LexiconDecoderOptions(
            word_score=config.word_score, unk_score=float("-inf"), sil_score=0.0, **sizes
        )
        return flashlight.LexiconDecoder(
            options, self._trie, self._lm, boundary, blank, len(self._words), [], False
        )


def import_flashlight() -> Any:
    """Return flashlight-text's decoders.

    Raises:
        ModelError: They are not installed.
    """
    try:
        from flashlight.lib.text import decoder
    except ImportError as error:
        raise ModelError(
            "beam search with a language model needs flashlight-text: install it with "
            '`pip install "speechjepa[lm]"`, or decode greedily'
        ) from error
    return decoder


def _reason(error: Exception) -> str:
    """Return the one sentence of KenLM's message that is for whoever wrote the file."""
    lines = [line for line in str(error).splitlines() if not re.search(r"\.(cc|hh):\d+ in ", line)]
    sentence = re.split(r"\.\s| Byte: \d|\.$", lines[0])[0].strip() if lines else ""
    return sentence[:200] or "it is no ARPA file, or damaged"


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hold back what C++ code writes to stderr (KenLM's progress bar)."""
    sys.stderr.flush()
    with open(os.devnull, "wb") as nowhere:
        saved = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
