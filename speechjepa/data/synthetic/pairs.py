"""Parallel synthetic speech: the same meanings in two languages, many voices into one."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechjepa.data.synthetic.corpus import (
    DEV_VOICES,
    SPLITS,
    TEST_VOICES,
    TRAIN_VOICES,
    mapper,
    plain_json,
    stored_settings,
    write_json,
    written_whole,
)
from speechjepa.data.synthetic.espeak import espeak_voices
from speechjepa.data.synthetic.spoken import Job
from speechjepa.data.synthetic.text import KINDS, LANGUAGES, draw_meaning, express
from speechjepa.errors import DataError
from speechjepa.progress import track

FORMAT_VERSION = 1
"""Part of the settings in corpus.json: raised when the same settings give other audio."""

_FIRST_INDEX = {"train": 0, "dev": 1_000_000_000, "test": 2_000_000_000}
_WAVE = 64


@dataclass(frozen=True, kw_only=True)
class PhrasePairs:
    """What a parallel corpus holds; the same settings give the same files."""

    source: str = "es"
    """Language that is spoken by many voices, a code of `LANGUAGES`."""
    target: str = "en"
    """Language that one voice speaks, another code of `LANGUAGES`."""
    kinds: tuple[str, ...] = ("date", "time", "amount", "measure", "territory")
    """What is talked about, some of `KINDS`."""
    most_parts: int = 2
    """Parts of a phrase, 1 to 3."""
    train_pairs: int = 3000
    """Pairs in `train`."""
    dev_pairs: int = 150
    """Pairs in `dev`: no phrase and no voice of it is in `train`."""
    test_pairs: int = 150
    """Pairs in `test`, likewise."""
    target_voice: str = ""
    """Voice of espeak-ng that speaks the target; empty = the language's plain voice."""
    disturbed: bool = True
    """Whether room, microphone, noise and level of the source vary."""
    seed: int = 0
    """Of texts, voices and disturbances."""

    def __post_init__(self) -> None:
        for name in ("source", "target"):
            if getattr(self, name) not in LANGUAGES:
                known = ", ".join(sorted(LANGUAGES))
                raise DataError(
                    f"`{name}` must be among {known}, but is {getattr(self, name)!r} instead."
                )
        if self.source == self.target:
            raise DataError(f"`source` and `target` must differ, but both are {self.source!r}.")
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise DataError(
                f"`kinds` must be some of {', '.join(KINDS)}, but is {list(self.kinds)} instead."
            )
        if not 1 <= self.most_parts <= 3:
            raise DataError(f"`most_parts` must be 1 to 3, but is {self.most_parts} instead.")
        for split in SPLITS:
            if self.number(split) < 1:
                raise DataError(
                    f"`{split}_pairs` must be at least 1, but is {self.number(split)} instead."
                )

    def number(self, split: str) -> int:
        """Return how many pairs a split has."""
        return int(getattr(self, f"{split}_pairs"))


_VOICES = {"train": TRAIN_VOICES, "dev": DEV_VOICES, "test": TEST_VOICES}


def make_pairs(
    folder: str | os.PathLike[str], settings: PhrasePairs, *, num_workers: int = 2
) -> Path:
    """Write a parallel corpus: `<folder>/<split>/metadata.jsonl`, `audio/`, `target/`.

    The columns are those of `make_corpus` for the source, and `translation` ({language: text})
    and `target_audio` ({language: file}) for the target. A phrase of `dev` or `test` is said
    nowhere else. A corpus that is there with the same settings is left alone; one with other
    settings is replaced. An interrupted run leaves nothing under `folder`.

    Args:
        folder: Where to write; absent, or a synthetic corpus.
        settings: What to write.
        num_workers: Processes that synthesise; 1 = this one.

    Returns:
        The folder.

    Raises:
        DataError: A package is missing, a voice does not exist, there are too few phrases of these
            kinds, or `folder` holds something else.
    """
    folder = Path(folder).absolute()
    wanted = {"pairs_version": FORMAT_VERSION, **plain_json(dataclasses.asdict(settings))}
    if folder.exists() and stored_settings(folder) == wanted:
        return folder
    if settings.target_voice and settings.target_voice not in espeak_voices():
        known = ", ".join(espeak_voices())
        raise DataError(f"espeak-ng has no voice {settings.target_voice!r}; it has {known}.")
    totals = {}
    said: set[str] = set()
    with written_whole(folder) as partial, mapper(num_workers) as run:
        for split in SPLITS:
            rows = _write_split(partial / split, split, settings, said, run)
            minutes = sum(row["duration"] for row in rows) / 60.0
            totals[split] = {"pairs": len(rows), "minutes": round(minutes, 2)}
        write_json(partial / "corpus.json", {"settings": wanted, "splits": totals})
    return folder


def _write_split(
    folder: Path,
    split: str,
    settings: PhrasePairs,
    said: set[str],
    run: Callable[[Sequence[Job]], Iterable[float]],
) -> list[dict[str, Any]]:
    for name in ("audio", "target"):
        (folder / name).mkdir(parents=True)
    number = settings.number(split)
    phrases = _phrases(split, settings, said)
    rows: list[dict[str, Any]] = []
    for _ in track(range(0, number, _WAVE), f"Synthesising {split}", total=-(-number // _WAVE)):
        wave = list(itertools.islice(phrases, min(_WAVE, number - len(rows))))
        jobs = [job for _, pair in wave for job in _jobs(folder, *pair, settings)]
        durations = list(run(jobs))
        for place, (row, _) in enumerate(wave):
            rows.append(row | {"duration": durations[2 * place]})
    with open(folder / "metadata.jsonl", "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return rows


_Spoken = tuple[dict[str, Any], str, str]


def _phrases(
    split: str, settings: PhrasePairs, said: set[str]
) -> Iterator[tuple[dict[str, Any], _Spoken]]:
    """Yield rows without duration, each with what the two sides say; no phrase comes twice."""
    since_new = 0
    for index in itertools.count(_FIRST_INDEX[split]):
        meaning = draw_meaning(
            index, seed=settings.seed, kinds=settings.kinds, most_parts=settings.most_parts
        )
        source, target = (express(meaning, code) for code in (settings.source, settings.target))
        if source is None or target is None or source.text in said:
            since_new += 1
            if since_new > 100_000:
                raise DataError(
                    f"there are too few phrases of {', '.join(settings.kinds)} with at most "
                    f"{settings.most_parts} parts: raise `most_parts`, or ask for fewer pairs."
                )
            continue
        since_new = 0
        said.add(source.text)
        name = f"{settings.source}-{split}-{index - _FIRST_INDEX[split]:06d}"
        voice = random.Random(f"{settings.seed}/voice/{name}").choice(_VOICES[split])
        row = {
            "file_name": f"audio/{name}.flac",
            "duration": 0.0,
            "id": name,
            "speaker": voice,
            "lang": settings.source,
            "key": source.key,
            "text": source.text,
            "translation": {settings.target: target.text},
            "target_audio": {settings.target: f"target/{name}.flac"},
        }
        yield row, (row, source.spoken, target.spoken)


def _jobs(
    folder: Path, row: dict[str, Any], source: str, target: str, settings: PhrasePairs
) -> tuple[Job, Job]:
    seed = f"{settings.seed}/{row['id']}"
    return (
        Job(
            path=str(folder / row["file_name"]),
            spoken=source,
            language=LANGUAGES[settings.source].voice,
            voice=row["speaker"],
            disturbed=settings.disturbed,
            seed=seed,
        ),
        Job(
            path=str(folder / row["target_audio"][settings.target]),
            spoken=target,
            language=LANGUAGES[settings.target].voice,
            voice=settings.target_voice,
            disturbed=False,
            seed=seed,
            steady=True,
        ),
    )
