"""The audio and labels that a recipe names: read once, split, and fingerprinted."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from speechjepa.config import to_dict
from speechjepa.data.durations import seconds_of
from speechjepa.data.findings import number
from speechjepa.data.labels import select_labels
from speechjepa.data.readers import read_corpus
from speechjepa.data.readers.common import DEV_SPLITS, TEST_SPLITS, TRAIN_SPLITS
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError
from speechjepa.workflow.recipe import CorpusConfig, DataConfig
from speechjepa.workflow.run import digest

logger = logging.getLogger(__name__)

MAX_DEV_SHARE = 0.2
MAX_LABEL_SECONDS = 120.0
"""Longer recordings are no labels: one of 2 minutes takes 3.6 GB to learn from with `tiny`, memory
grows with the square of the length, and where in them a word is takes long to find."""


class Corpora:
    """What a recipe's `data` section stands for, read when it is first asked for.

    Args:
        config: The section.
        run_dir: Gets `labels.txt`, the ids that fine-tuning may use.
    """

    def __init__(self, config: DataConfig, run_dir: Path) -> None:
        self.config = config
        self.run_dir = run_dir
        self._read: dict[str, list[Utterance]] = {}
        self._stories: list[Utterance] = []

    def read(self, entry: str | CorpusConfig) -> list[Utterance]:
        """Read one corpus; the second time from memory."""
        corpus = self.config.complete(entry)
        key = repr(corpus)
        if key not in self._read:
            self._read[key] = read_corpus(
                str(corpus.location),
                format=corpus.format,
                split=corpus.split,
                columns=corpus.columns,
                data_root=self.config.root,
            )
        return self._read[key]

    def read_all(self) -> None:
        """Read every corpus now, so that a mistake shows before hours of training."""
        for corpus in self.config.corpora():
            self.read(corpus)
        if self.config.train is not None:
            self.labelled, self.pool  # noqa: B018 - read for their errors

    @cached_property
    def pool(self) -> list[Utterance]:
        """Audio for pretraining: the pool, without the audio of a `dev` corpus, and of corpora in
        splits that are named as a whole without their test audio.

        Utterances that are held out for want of a dev corpus stay in: which they are changes with
        every new transcript, and pretraining must not begin again for that.
        """
        measured = {(u.audio_path, u.start) for u in self._given_dev or ()}
        found: dict[tuple[Path, float], Utterance] = {}
        for_tests: dict[tuple[Path, float], Utterance] = {}
        for corpus in self.config.pool_corpora():
            utterances = self.read(corpus)
            left_out = self._for_tests(corpus, {_split_of(u) for u in utterances})
            for utterance in utterances:
                place = (utterance.audio_path, utterance.start)
                if place not in measured:
                    heard = for_tests if _split_of(utterance) in left_out else found
                    heard.setdefault(place, utterance)
        if measured and not found:
            raise DataError("all audio for pretraining is audio of `data.dev`, which is left out")
        if unheard := [u for place, u in for_tests.items() if place not in found]:
            logger.warning(
                "not pretrained on, as they are for tests: %s, the first %s. A recipe whose "
                "`data.pool` lists `{location: ..., split: %s}` too hears them",
                number(len(unheard), "utterance"),
                unheard[0].audio_path,
                unheard[0].split,
            )
        return list(found.values())

    def _for_tests(self, corpus: CorpusConfig, splits: set[str]) -> set[str]:
        """Return those of the splits of a pool's corpus that pretraining does not hear.

        They are those for tests, beside one for training, unless a list of labels is of them.
        """
        left_out = splits & set(TEST_SPLITS) if splits & set(TRAIN_SPLITS) else set()
        train = self.config.train
        if left_out and self._is_listed and train and corpus == self.config.complete(train):
            left_out -= {_split_of(u) for u in self._listed}
        return left_out

    @property
    def labelled(self) -> list[Utterance]:
        """The utterances whose transcripts fine-tuning may use."""
        return self._split[0]

    @property
    def dev(self) -> list[Utterance]:
        """The transcribed utterances to measure on; none of them is among the labelled."""
        return self._split[1]

    @property
    def stories(self) -> list[Utterance]:
        """Labels that are too long to learn from; their text is text of the language."""
        self._split  # noqa: B018 - finds them
        return self._stories

    @property
    def dev_name(self) -> str:
        """What to call the dev set in results."""
        return "held-out" if self._given_dev is None else "dev"

    @cached_property
    def _given_dev(self) -> list[Utterance] | None:
        """What the recipe names to measure on, or else the dev split of a corpus in splits.

        A list of labels may be of any split, so beside one nothing is taken to be the dev split.
        """
        config = self.config
        if config.dev is not None:
            return self.read(config.dev)
        if self._is_listed:
            return None
        splits = [self._splits.get(name, []) for name in DEV_SPLITS]
        return next((split for split in splits if any(u.text for u in split)), None)

    @property
    def _is_listed(self) -> bool:
        labels = self.config.labels
        return isinstance(labels, str) and labels != "all"

    @cached_property
    def _splits(self) -> dict[str, list[Utterance]]:
        """The utterances of `train` by split ("" = none), where one is for training and the recipe
        names none."""
        train = self.config.train
        if train is None or self.config.complete(train).split is not None:
            return {}
        splits: dict[str, list[Utterance]] = {}
        for utterance in self.read(train):
            splits.setdefault(_split_of(utterance), []).append(utterance)
        return splits if any(name in splits for name in TRAIN_SPLITS) else {}

    @cached_property
    def material(self) -> list[Utterance]:
        """The utterances of `train` whose words may be learnt from, transcribed or not.

        Of a corpus in splits those of the one for training, those of no split, and those of the
        splits that a list of labels is of.
        """
        if self.config.train is None:
            return []
        everything = self.read(self.config.train)
        if not self._splits:
            return everything
        names = {"", *TRAIN_SPLITS}
        if self._is_listed:
            names |= {_split_of(u) for u in self._listed}
        left_out = sorted(self._splits.keys() - names)
        if left_out:
            logger.warning(
                "not learnt from, as they are of other splits than train: %s. "
                "`train: {location: ..., split: NAME}` in a recipe names one, and a list of "
                "labels may be of any",
                ", ".join(f"{len(self._splits[name])} of {name}" for name in left_out),
            )
        return [u for u in everything if _split_of(u) in names]

    @cached_property
    def _listed(self) -> list[Utterance]:
        """The labels as the recipe gives them; of a draw those of the splits that count."""
        config = self.config
        assert config.train is not None
        labels = config.labels
        self.run_dir.mkdir(parents=True, exist_ok=True)
        return select_labels(
            self.read(config.train) if self._is_listed else self.material,
            labels if isinstance(labels, str) else to_dict(labels),
            folder=self._folder(config.train),
            out=self.run_dir / "labels.txt",
        )

    @cached_property
    def _split(self) -> tuple[list[Utterance], list[Utterance]]:
        config = self.config
        if config.train is None:
            return [], self._given_dev or []
        labelled = self._without_stories(self._listed)
        if (dev := self._given_dev) is not None:
            if not any(u.text for u in dev):
                raise DataError(
                    f"none of the {number(len(dev), 'utterance')} of `data.dev` has a transcript "
                    "to measure on: name another one, or none, and some labels are held out"
                )
            return self._without(dev, labelled), dev
        ids = {u.id for u in [*labelled, *self._stories]}
        others = [
            u
            for u in self.material
            if u.text and u.id not in ids and seconds_of(u) <= MAX_LABEL_SECONDS
        ]
        return self._hold_out(labelled, others)

    def fingerprint(
        self, utterances: Sequence[Utterance], *, use_text: bool = True
    ) -> dict[str, Any]:
        """Return what a stage's output depends on in utterances: ids, texts, files and their state.

        Files below the data root are known by their place in it, so that the data may move.
        """
        states: dict[Path, list[Any]] = {}
        rows = []
        for u in utterances:
            if u.audio_path not in states:
                states[u.audio_path] = [self._name(u.audio_path), _file_state(u.audio_path)]
            place = [u.id, *states[u.audio_path], u.start, u.duration]
            rows.append([*place, u.text, u.speaker] if use_text else place)
        return {"utterances": len(rows), "digest": digest(rows)}

    def label(self, corpus: CorpusConfig) -> str:
        """Name a corpus and its split."""
        return f"{self._name(Path(str(corpus.location)))}:{corpus.split}"

    def _name(self, path: Path) -> str:
        root = self.config.root
        return str(path.relative_to(root) if root and path.is_relative_to(root) else path)

    def _folder(self, entry: str | CorpusConfig) -> Path:
        """Return where the named lists of labels are: beside the manifest."""
        location = str(self.config.complete(entry).location)
        if location.startswith("hf:"):
            return self.config.root or self.run_dir
        path = Path(location)
        return path if path.is_dir() else path.parent

    def _without_stories(self, labelled: list[Utterance]) -> list[Utterance]:
        self._stories = [u for u in labelled if seconds_of(u) > MAX_LABEL_SECONDS]
        if not self._stories:
            return labelled
        first = self._stories[0]
        told = (
            f"{first.source or first.audio_path}: {first.id} has one transcript for "
            f"{seconds_of(first):.0f} s, too long to learn from (at most {MAX_LABEL_SECONDS:.0f} s;"
            f" {number(len(self._stories), 'recording')} in all). Mark the sentences in ELAN or "
            "Praat, and keep that file beside the recording."
        )
        ids = {u.id for u in self._stories}
        kept = [u for u in labelled if u.id not in ids]
        if not kept:
            raise DataError(f"{told} No label is left.")
        logger.warning("left out of the labels: %s", told)
        return kept

    def _without(self, dev: list[Utterance], labelled: list[Utterance]) -> list[Utterance]:
        """Leave out of the labels what is measured on: one folder may be named for both."""
        measured = {(u.audio_path, u.start) for u in dev}
        kept = [u for u in labelled if (u.audio_path, u.start) not in measured]
        if labelled and not kept:
            raise DataError("every labelled utterance is one of `data.dev`: none is left to learn")
        if len(kept) < len(labelled):
            logger.warning(
                "%d of %d labelled utterances are in `data.dev`, and not learnt from",
                len(labelled) - len(kept),
                len(labelled),
            )
        return kept

    def _hold_out(
        self, labelled: list[Utterance], others: list[Utterance]
    ) -> tuple[list[Utterance], list[Utterance]]:
        """Draw a dev set: from transcripts that are not used as labels, else from the labels."""
        wanted = 60 * self.config.dev_minutes
        if total_seconds(others) < wanted:
            wanted = min(wanted, MAX_DEV_SHARE * total_seconds(labelled))
            others = labelled
        dev: list[Utterance] = []
        seconds = 0.0
        # The order depends on the ids alone: adding recordings moves few others in or out.
        for utterance in sorted(others, key=lambda u: hashlib.sha256(u.id.encode()).digest()):
            if seconds >= wanted:
                break
            dev.append(utterance)
            seconds += total_seconds([utterance])
        held = {u.id for u in dev}
        logger.info(
            "no `data.dev` is given: %d utterances (%.1f min) are held out to measure on",
            len(dev),
            seconds / 60,
        )
        kept = [u for u in labelled if u.id not in held]
        if not kept or not dev:
            raise DataError(
                f"there are {len(labelled)} transcribed utterances, too few to hold some out; "
                "transcribe more, or name a `data.dev`"
            )
        return kept, dev


def _split_of(utterance: Utterance) -> str:
    return (utterance.split or "").lower()


def total_seconds(utterances: Iterable[Utterance]) -> float:
    """Return how long utterances last together (seconds); unreadable audio counts as nothing."""
    return sum(seconds_of(utterance) for utterance in utterances)


def file_fingerprint(path: Path) -> dict[str, Any]:
    """Return the size and time of a file."""
    return {"path": str(path), "digest": digest([[str(path), _file_state(path)]])}


def _file_state(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except OSError:  # a missing file is a state too; reading it says so
        return None
    return state.st_size, state.st_mtime_ns
