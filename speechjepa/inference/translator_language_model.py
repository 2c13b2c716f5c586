"""The language models of a CTC translator: n-grams of what it writes, with weights tuned on dev.

A best path takes every frame's likeliest token by itself; beam search with an n-gram model of the
training targets takes what was seen to follow what. It is the search that writes transcripts
(`speechjepa.inference.search`), over units, characters, or both where a translator of units also
writes text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from speechjepa.config import from_dict
from speechjepa.errors import ConfigError, ModelError
from speechjepa.inference.decoding import DECODERS, Decoder
from speechjepa.inference.language_model import DECODER_FILE, FORMAT_VERSION, read_decoder
from speechjepa.inference.search import (
    MAX_KENLM_ORDER,
    BeamConfig,
    BeamSearch,
    Hypothesis,
    Symbols,
    greedy_decode,
)
from speechjepa.metrics.translation import sequence_error_rate
from speechjepa.models.speech_to_units import collapse
from speechjepa.models.translator_files import FOLDER, TranslatorFiles
from speechjepa.progress import track
from speechjepa.text.ngram import estimate_ngram
from speechjepa.text.vocabulary import BLANK

Part = Literal["tokens", "text"]
PARTS: tuple[Part, ...] = ("tokens", "text")
"""What a translator writes: its units or characters, and the text beside units."""
ARPA_FILES: dict[Part, str] = {"tokens": "lm.arpa", "text": "text_lm.arpa"}


@dataclass(frozen=True, kw_only=True)
class TokenModelConfig:
    """What the language models of a translator are, and which weights are tried on dev."""

    order: int = 6
    """Length of the longest n-grams; KenLM's wheel reads at most 6."""
    lm_weights: tuple[float, ...] = (0.5, 1.0, 1.5, 2.3)
    """Of the language model's log10 probabilities; 2.3 weighs them like those of the frames."""
    blank_scores: tuple[float, ...] = (0.0, -1.0, -2.0)
    """Added to the blank in each frame (nats)."""
    beam_size: int = 32
    """Sequences kept after each frame."""
    max_tuning_pairs: int = 100
    """Pairs of dev that every two weights are tried on, evenly spaced."""

    def __post_init__(self) -> None:
        if not 2 <= self.order <= MAX_KENLM_ORDER:
            raise ConfigError(
                f"`order` must be between 2 and {MAX_KENLM_ORDER}, but is {self.order} instead"
            )
        for name in ("beam_size", "max_tuning_pairs"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"`{name}` must be at least 1, but is {getattr(self, name)} instead"
                )
        for name in ("lm_weights", "blank_scores"):
            if not getattr(self, name):
                raise ConfigError(f"`{name}` must hold at least one weight, but is empty instead")


class UnitSymbols:
    """Units as the columns of CTC logits: the blank, then one symbol for each unit.

    Args:
        num_units: Kinds of units.
    """

    blank_id = 0
    word_boundary_id = None
    silent_ids = frozenset({0})

    def __init__(self, num_units: int) -> None:
        self.symbols: tuple[str, ...] = (BLANK, *(f"u{unit}" for unit in range(num_units)))

    def decode_ctc(self, frame_ids: Iterable[int]) -> str:
        """Return the names of the units of a path."""
        return " ".join(self.symbols[token] for token in collapse(frame_ids))

    def __len__(self) -> int:
        return len(self.symbols)


def symbols_of(files: TranslatorFiles, part: Part) -> Symbols | None:
    """Return what a translator's logits stand for; None where it does not write that part."""
    if part == "text":
        return files.text_vocabulary if files.kind == "units" else None
    return files.vocabulary if files.kind == "characters" else UnitSymbols(files.num_tokens - 1)


@dataclass(frozen=True, kw_only=True)
class PartData:
    """What the language model of a part is made of, and what its weights are tuned on."""

    symbols: Symbols
    train: Sequence[Sequence[int]]
    """Token ids of the training targets, never of dev."""
    logits: Sequence[Tensor]
    """Of the translator for dev pairs, one (T, V) tensor each."""
    references: Sequence[Sequence[int]]
    """Token ids of their targets."""


def attach_token_models(
    bundle: Path, parts: Mapping[Part, PartData], config: TokenModelConfig
) -> dict[str, Any]:
    """Estimate a language model for each part, tune it, and write those that help into a bundle.

    One that does not lower the token error rate of the best path on dev is not kept.

    Args:
        bundle: Its folder, which holds a translator.
        parts: What the translator writes.
        config: Settings.

    Returns:
        The content of decoder.json: for each part whether it `is_used`, with which weights, and
        what was tried.

    Raises:
        DataError: There are no targets to estimate it from.
        ModelError: flashlight-text is not installed.
    """
    folder = bundle / FOLDER
    content: dict[str, Any] = {"format_version": FORMAT_VERSION}
    for part, data in parts.items():
        content[part] = _attach(folder / ARPA_FILES[part], data, config)
    partial = folder / (DECODER_FILE + ".partial")
    partial.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, folder / DECODER_FILE)
    return content


def _attach(path: Path, data: PartData, config: TokenModelConfig) -> dict[str, Any]:
    if len(data.logits) != len(data.references) or not data.logits:
        raise ValueError(
            "`logits` and `references` must have the same length, at least 1, but have "
            f"{len(data.logits)} and {len(data.references)} instead"
        )
    names = data.symbols.symbols
    sequences = ([names[token] for token in sequence] for sequence in data.train)
    model = estimate_ngram(sequences, config.order, words=names[1:])
    partial = path.with_name(path.name + ".partial")
    model.write_arpa(partial)
    search = BeamSearch(data.symbols, partial, BeamConfig(beam_size=config.beam_size))
    trials = _trials(search, data, config)
    best = min(trials, key=lambda trial: trial["error_rate"])
    best_path = sequence_error_rate(data.references, _greedy(data))
    is_used = best["error_rate"] < best_path
    if is_used:
        os.replace(partial, path)
    else:
        partial.unlink()
        path.unlink(missing_ok=True)
    weights: dict[str, Any] = {name: best[name] for name in ("lm_weight", "blank_score")}
    return {
        "is_used": is_used,
        "language_model": path.name,
        "beam": asdict(replace(search.config, **weights)),
        "order": model.order,
        "sequences": sum(bool(len(sequence)) for sequence in data.train),
        "tuning": {
            "pairs": len(data.logits),
            "error_rate_best_path": best_path,
            "error_rate": best["error_rate"],
            "trials": trials,
        },
    }


def _trials(search: BeamSearch, data: PartData, config: TokenModelConfig) -> list[dict[str, float]]:
    """Return the token error rate of every two weights; flattering, as the best is chosen by it."""
    grid = [(weight, blank) for weight in config.lm_weights for blank in config.blank_scores]
    found = []
    for weight, blank in track(grid, "tuning", len(grid)):
        weights: dict[str, Any] = {"lm_weight": float(weight), "blank_score": float(blank)}
        tried = search.with_config(replace(search.config, **weights))
        written = [_token_ids(tried.decode(*_alone(logits))) for logits in data.logits]
        found.append({**weights, "error_rate": sequence_error_rate(data.references, written)})
    return found


def _greedy(data: PartData) -> list[tuple[int, ...]]:
    return [_token_ids(greedy_decode(*_alone(item), data.symbols)) for item in data.logits]


def _alone(logits: Tensor) -> tuple[Tensor, Tensor]:
    return logits[None], torch.tensor([len(logits)])


def _token_ids(found: Sequence[Hypothesis]) -> tuple[int, ...]:
    return found[0].token_ids


class TokenDecoder:
    """Finds what a CTC translator writes: by the best path, or with the bundle's language models.

    Args:
        bundle: Its folder.
        files: What its translator says.
        decoder: "greedy" = best path; "beam" = with the language model; "auto" = with it if
            there is one.

    Raises:
        ConfigError: `decoder` is none of these.
        ModelError: What the bundle says of its language models cannot be read, or "beam" was
            asked for and it holds none.
    """

    def __init__(self, bundle: Path, files: TranslatorFiles, decoder: Decoder = "auto") -> None:
        if decoder not in DECODERS:
            raise ConfigError(f"`decoder` must be one of {DECODERS}, but is {decoder!r} instead")
        self._folder = bundle / FOLDER
        self._files = files
        self._beams: dict[Part, tuple[Path, BeamConfig]] = {}
        if decoder == "greedy" or files.config.head != "ctc":
            return
        if (self._folder / DECODER_FILE).is_file():
            self._beams = self._read()
        if decoder == "beam" and not self._beams:
            raise ModelError(
                f"{bundle}: holds no language model for beam search: use the decoder greedy, or "
                "give it one with the stage language_model of its recipe"
            )

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is written with a language model."""
        return tuple(self._beams)

    def load(self) -> None:
        """Read the language models now; else the first logits do.

        Raises:
            ModelError: flashlight-text is not installed although there is a language model, or
                its file is of other symbols.
            DataError: A file is damaged.
        """
        _ = self._searches

    def search(self, part: Part) -> BeamSearch | None:
        """Return what finds a part with a language model, None = there is none; raises as `load`"""
        return self._searches.get(part)

    def decode(self, part: Part, logits: Tensor, lengths: Tensor) -> list[Hypothesis]:
        """Return what logits (B, T, V) of `lengths` (B,) frames say; raises as `load`."""
        search = self.search(part)
        if search is not None:
            return search.decode(logits, lengths)
        symbols = symbols_of(self._files, part)
        assert symbols is not None
        return greedy_decode(logits, lengths, symbols)

    @cached_property
    def _searches(self) -> dict[Part, BeamSearch]:
        """Not read before it is needed: translators are also asked what they are."""
        found: dict[Part, BeamSearch] = {}
        for part, (path, config) in self._beams.items():
            symbols = symbols_of(self._files, part)
            if symbols is not None:
                found[part] = BeamSearch(symbols, path, config)
        return found

    def _read(self) -> dict[Part, tuple[Path, BeamConfig]]:
        content = read_decoder(self._folder)
        path = self._folder / DECODER_FILE
        found: dict[Part, tuple[Path, BeamConfig]] = {}
        for part in PARTS:
            entry = content.get(part)
            if entry is None:
                continue
            try:
                if entry["is_used"]:
                    beam = from_dict(BeamConfig, entry["beam"], where=DECODER_FILE)
                    found[part] = self._folder / Path(entry["language_model"]).name, beam
            except (ConfigError, KeyError, TypeError) as error:
                raise ModelError(
                    f"{path}: its settings cannot be used ({error}); build the language model again"
                ) from error
        return found
