"""Choose which transcripts may be used: all, a named list of ids, or minutes drawn at random."""

from __future__ import annotations

import dataclasses
import math
import os
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from speechjepa.audio.files import AUDIO_SUFFIXES
from speechjepa.data.durations import seconds_of
from speechjepa.data.readers.beside import transcripts_beside
from speechjepa.data.readers.text_files import read_lines
from speechjepa.data.utterance import Utterance
from speechjepa.errors import ConfigError, DataError

STRETCH = re.compile(r"(\d+)-(\d+|end)")
"""Of a folder's ids: milliseconds of the file between which nothing was transcribed."""
TOUCH_SECONDS = 0.1
"""What overlaps by less only touches."""
NAMED = 5
"""Ids or lists that an error shows."""


def select_labels(
    utterances: Sequence[Utterance],
    labels: str | Mapping[str, Any],
    *,
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
) -> list[Utterance]:
    """Return the utterances whose transcripts may be used, in the order given.

    Rows without text are never labelled.

    Args:
        utterances: The train split.
        labels: "all"; or a name, which reads the ids in `<folder>/<name>.txt`, one per line; or
            the path of such a file, known by its `.txt`; or
            `{"minutes": 10, "seed": 3}`, which draws utterances until their durations reach the
            minutes. A draw depends on the ids and the seed alone, not on the order of the corpus;
            with one seed, fewer minutes are a subset of more.
        folder: Where the named lists are: the folder of the manifest.
        out: Write the chosen ids to this file, one per line, sorted.

    Raises:
        ConfigError: `labels` is none of these.
        DataError: The list is missing, or an id in it is unknown or has no text (with file and
            line), or there is less text than asked for.
    """
    if isinstance(labels, str):
        chosen = _all(utterances) if labels == "all" else _named(utterances, labels, Path(folder))
    elif isinstance(labels, Mapping):
        chosen = _draw(utterances, labels)
    else:
        raise ConfigError(
            f'`labels` must be "all", the name of a list or {{minutes: 10, seed: 3}}, but is'
            f" {labels!r} instead."
        )
    if out is not None:
        ids = sorted(utterance.id for utterance in chosen)
        # An id may be a file name that is not UTF-8.
        Path(out).write_text(
            "".join(f"{name}\n" for name in ids), encoding="utf-8", errors="surrogateescape"
        )
    return chosen


def _labelled(utterances: Sequence[Utterance]) -> list[Utterance]:
    return [utterance for utterance in utterances if utterance.text and utterance.text.strip()]


def _all(utterances: Sequence[Utterance]) -> list[Utterance]:
    chosen = _labelled(utterances)
    if not chosen:
        raise DataError(
            f"none of the {len(utterances)} utterances has a transcript: there is nothing to"
            " fine-tune on. Add a text column, or .txt files beside the audio."
        )
    return chosen


def _named(utterances: Sequence[Utterance], name: str, folder: Path) -> list[Utterance]:
    if name.endswith(".txt"):
        path = Path(name)
        if not path.is_file():
            raise DataError("there is no such list of ids for `labels`.", path=path)
    elif name != Path(name).name or name in ("", ".", ".."):
        raise ConfigError(
            "`labels` must be the plain name of a list, or a path that ends in .txt, "
            f"but is {name!r} instead."
        )
    else:
        path = folder / f"{name}.txt"
    if not path.is_file():
        raise DataError(
            f'there is no such list of ids for labels "{name}"; lists beside it: {_lists(folder)}.',
            path=path,
        )
    by_id = {utterance.id: [utterance] for utterance in utterances}
    stretches: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        stretches.setdefault(utterance.id.rpartition("@")[0], []).append(utterance)
    lines: dict[str, int] = {}
    chosen: set[str] = set()
    silent: list[Utterance] = []
    for line, content in read_lines(path):
        identity = content.strip()
        # A recording that was annotated since is there as its stretches, a@500-1200 and so on.
        named = by_id.get(identity) or stretches.get(identity) or _within(identity, stretches)
        if identity in lines:
            reason = f"is also on line {lines[identity]}. Remove one."
        elif not identity or not named:
            reason = "is not the id of an utterance of this split. Remove or correct it."
        else:
            lines[identity] = line
            transcribed = _labelled(named)
            chosen |= {utterance.id for utterance in transcribed}
            silent += [] if transcribed else [dataclasses.replace(named[0], id=identity)]
            continue
        raise DataError(f'"{identity}" {reason}', path=path, line=line)
    if silent:
        raise _without_text(silent, lines, path)
    if not lines:
        raise DataError("holds no ids.", path=path, line=1)
    return [utterance for utterance in utterances if utterance.id in chosen]


def _within(identity: str, stretches: Mapping[str, list[Utterance]]) -> list[Utterance]:
    """Return what lies in a stretch without transcript, a@500-9000, that was annotated since.

    What reaches into it counts: its edges need not be pauses.
    """
    recording, _, place = identity.rpartition("@")
    times = STRETCH.fullmatch(place)
    if times is None:
        return []
    first = int(times[1]) / 1000
    last = math.inf if times[2] == "end" else int(times[2]) / 1000

    def overlap(utterance: Utterance) -> float:
        end = utterance.start + (math.inf if utterance.duration is None else utterance.duration)
        return min(end, last) - max(utterance.start, first)

    return [u for u in stretches.get(recording, []) if overlap(u) > TOUCH_SECONDS]


def _without_text(silent: Sequence[Utterance], lines: Mapping[str, int], path: Path) -> DataError:
    first = silent[0]
    if len(silent) == 1:
        who = f'"{first.id}" has no transcript ({first.source})'
    else:
        who = f"{len(silent):,} of its {len(lines):,} ids have no transcript: " + _first_of(
            [f'"{utterance.id}" ({utterance.source})' for utterance in silent]
        )
    return DataError(
        f"{who}. Transcribe what is missing, or take it out of the list; "
        'labels: "all" learns from every transcript that there is.',
        path=path,
        line=lines[first.id],
    )


def _lists(folder: Path) -> str:
    """Return the texts of a folder that are no transcript of a recording beside them."""
    files = sorted(path.name for path in folder.glob("*") if not path.name.startswith("."))
    recordings = [name for name in files if PurePath(name).suffix.lower() in AUDIO_SUFFIXES]
    beside = transcripts_beside(folder, files, recordings)
    taken = {path.name for paths in beside.values() for path in paths}
    lists = [PurePath(name) for name in files if name.endswith(".txt") and name not in taken]
    return _first_of([path.stem for path in lists]) or "none"


def _first_of(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _draw(utterances: Sequence[Utterance], labels: Mapping[str, Any]) -> list[Utterance]:
    unknown = sorted(set(labels) - {"minutes", "seed"})
    minutes, seed = labels.get("minutes"), labels.get("seed", 0)
    if unknown:
        raise ConfigError(f"`labels.{unknown[0]}` is unknown; the keys are minutes and seed.")
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not minutes > 0:
        raise ConfigError(f"`labels.minutes` must be more than 0, but is {minutes!r} instead.")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ConfigError(f"`labels.seed` must be a whole number, but is {seed!r} instead.")
    order = sorted(_all(utterances), key=lambda utterance: utterance.id)
    random.Random(seed).shuffle(order)
    drawn: set[str] = set()
    seconds = 0.0
    for utterance in order:
        if seconds >= 60 * minutes:
            break
        length = seconds_of(utterance)
        if length > 0:
            drawn.add(utterance.id)
            seconds += length
    if seconds < 60 * minutes:
        raise DataError(
            f"`labels` asks for {minutes:g} minutes, but only {seconds / 60:.1f} minutes have a"
            ' transcript. Ask for less, or say labels: "all".'
        )
    return [utterance for utterance in utterances if utterance.id in drawn]
