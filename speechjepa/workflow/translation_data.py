"""The pairs of a recipe, and what their targets are in tokens."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from speechjepa.data.pairs import Pair, pair_utterances
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError
from speechjepa.text.normalize import TextConfig, normalize_text
from speechjepa.text.vocabulary import Vocabulary
from speechjepa.training.translation_items import Example
from speechjepa.workflow.corpora import Corpora
from speechjepa.workflow.recipe import Recipe
from speechjepa.workflow.translation_recipe import TranslationConfig

logger = logging.getLogger(__name__)

SPLITS = ("train", "dev")
UNITS_MODEL = "encoder.json"
"""File beside units that says which model's encoder they are of."""


class Pairs:
    """What the `data` and `translation` sections of a recipe stand for, read when asked for.

    Args:
        recipe: With `translation`.
        corpora: Reads its corpora.
        run_dir: Where synthesised target speech lies.
    """

    def __init__(self, recipe: Recipe, corpora: Corpora, run_dir: Path) -> None:
        assert recipe.translation is not None
        self.recipe = recipe
        self.config: TranslationConfig = recipe.translation
        self.corpora = corpora
        self.run_dir = run_dir

    @cached_property
    def train(self) -> list[Pair]:
        """Pairs to learn from."""
        return self._read("train")

    @cached_property
    def dev(self) -> list[Pair]:
        """Pairs to measure on; no source of theirs is among the others."""
        if self.recipe.data.dev is None:
            return []
        known = {(pair.source.audio_path, pair.source.start) for pair in self.train}
        found = self._read("dev")
        kept = [p for p in found if (p.source.audio_path, p.source.start) not in known]
        if found and not kept:
            raise DataError("every pair of `data.dev` is one of train: none is left to measure on")
        return kept

    def of(self, split: str) -> list[Pair]:
        """Return the pairs of a split."""
        return self.train if split == "train" else self.dev

    def _read(self, split: str) -> list[Pair]:
        data, config = self.recipe.data, self.config
        entry = data.train if split == "train" else data.dev
        assert entry is not None
        other = config.target if split == "train" else config.target_dev or config.target
        target = None if other is None else self.corpora.read(other)
        found = pair_utterances(
            self.corpora.read(entry), language=config.language, target=target, data_root=data.root
        )
        if config.spoken_by is None:
            return found
        return [self._spoken(pair) for pair in found]

    def _spoken(self, pair: Pair) -> Pair:
        """Return a pair with the place of its synthesised target, where it has none of its own."""
        if pair.target is not None or not pair.text:
            return pair
        name = hashlib.sha256(f"{self.config.spoken_by}/{pair.text}".encode()).hexdigest()[:16]
        target = Utterance(
            id=pair.id,
            audio_path=self.run_dir / "spoken" / f"{name}.flac",
            text=pair.text,
            language=self.config.language,
            source=pair.source.source,
        )
        return dataclasses.replace(pair, target=target)

    def spoken(self, split: str) -> list[Pair]:
        """Return the pairs that have target audio.

        Raises:
            DataError: There are none, and there should be.
        """
        found = [pair for pair in self.of(split) if pair.target is not None]
        if not found and split == "train":
            raise DataError(
                "none of the pairs has target speech: say `translation.spoken_by` (a language of "
                "espeak-ng) to synthesise it, or `translation.writes: characters` for text"
            )
        return found

    def synthesise(self) -> int:
        """Speak the target's text where it has no audio; return how many files were written."""
        import soundfile

        from speechjepa.data.synthetic.espeak import SAMPLE_RATE, synthesise

        language = self.config.spoken_by
        if language is None:
            return 0
        folder = self.run_dir / "spoken"
        folder.mkdir(parents=True, exist_ok=True)
        written = 0
        for pair in [*self.train, *self.dev]:
            target = pair.target
            if target is None or target.audio_path.parent != folder or target.audio_path.exists():
                continue
            speech = synthesise(pair.text or "", language)
            partial = target.audio_path.with_suffix(".partial")
            soundfile.write(partial, speech.waveform, SAMPLE_RATE, format="FLAC")
            partial.replace(target.audio_path)
            written += 1
        return written


def translated_text(pair: Pair, text: TextConfig) -> str:
    """Return the target's text, normalised; empty where there is none."""
    return normalize_text(pair.text or "", text)


def unit_examples(
    pairs: Sequence[Pair], units: dict[str, list[int]], text: TextConfig
) -> list[Example]:
    """Return the examples of pairs whose target was heard as units, each once in a row."""
    return [
        Example(
            source=pair.source,
            tokens=tuple(unit + 1 for unit in units[pair.id]),
            source_text=normalize_text(pair.source.text or "", text),
            text=translated_text(pair, text),
        )
        for pair in pairs
        if pair.id in units
    ]


def character_examples(
    pairs: Sequence[Pair], vocabulary: Vocabulary, text: TextConfig
) -> list[Example]:
    """Return the examples of pairs whose target is written."""
    return [
        Example(
            source=pair.source,
            tokens=tuple(vocabulary.encode(translated_text(pair, text), unknown="drop")),
            source_text=normalize_text(pair.source.text or "", text),
            text=translated_text(pair, text),
        )
        for pair in pairs
        if translated_text(pair, text)
    ]


def write_units(sequences: dict[str, Any], path: Path) -> None:
    """Write units and durations by the id of their pair, one JSON object per line."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8") as file:
        for identity, (units, durations) in sequences.items():
            row = {"id": identity, "units": units, "durations": durations}
            file.write(json.dumps(row) + "\n")
    partial.replace(path)


def read_units(path: Path) -> dict[str, list[int]]:
    """Return the units by id that `write_units` wrote."""
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return {row["id"]: row["units"] for row in rows}


def units_model(folder: Path) -> str:
    """Return the model whose encoder the units in a folder are of.

    Raises:
        DataError: Nothing says so.
    """
    path = folder / UNITS_MODEL
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["model"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError("does not say which encoder the units are of.", path=path) from error
