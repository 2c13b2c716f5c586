"""Hugging Face AudioFolder: `metadata.csv` or `metadata.jsonl` beside the audio.

https://huggingface.co/docs/datasets/audio_dataset#audiofolder
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from speechjepa.audio.files import AUDIO_SUFFIXES
from speechjepa.data.findings import Finding, Place, number
from speechjepa.data.readers.common import (
    SPLIT_NAMES,
    ReadOptions,
    as_text,
    choose_columns,
    finish,
    make_roots,
    rows_to_utterances,
)
from speechjepa.data.readers.table import read_rows
from speechjepa.data.readers.text_files import read_json_lines
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
_MAX_DEPTH = 3


def read_audiofolder(location: Path, options: ReadOptions) -> list[Utterance]:
    """Read a folder with a metadata file, or a folder of such folders, or one metadata file.

    A metadata file in a folder called train, dev, test or the like gives its rows that split.
    Audio must lie below the folder of its metadata file or below the data root, without links
    that lead out.
    """
    files = find_metadata(location) if location.is_dir() else [location]
    if not files:
        raise DataError(
            f"holds no {' or '.join(METADATA_NAMES)}, so it is no AudioFolder.", path=location
        )
    if options.split is not None:
        named = [path for path in files if path.parent.name == options.split]
        files = named or files
    utterances: list[Utterance] = []
    for path in files:
        utterances.extend(_read_metadata(path, options))
    if location.is_dir() and options.split is None:
        options.tell(_unlisted(location, files, utterances))
    tried = [path.parent for path in files]
    return finish(utterances, location, tried + [options.data_root or tried[0]])


def find_metadata(folder: Path) -> list[Path]:
    """Return the metadata files of a folder: its own, or those of the folders below it."""
    found: list[Path] = []
    for parent, folders, files in os.walk(folder):
        depth = len(Path(parent).relative_to(folder).parts)
        here = [Path(parent, name) for name in METADATA_NAMES if name in files]
        if len(here) > 1:
            raise DataError(
                f"stands beside {here[1].name}: which one holds? Remove the other.", path=here[0]
            )
        found.extend(here)
        folders[:] = [] if here or depth >= _MAX_DEPTH else sorted(folders)
    return found


def _unlisted(
    location: Path, files: Sequence[Path], utterances: Sequence[Utterance]
) -> list[Finding]:
    """Return which recordings of a folder no metadata file names: they are not read."""
    named = {os.path.realpath(u.audio_path) for u in utterances}
    others = set(_words(u.extra for u in utterances))  # target_audio and the like
    missing = []
    for parent, folders, names in os.walk(location):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            is_audio = path.suffix.lower() in AUDIO_SUFFIXES and not name.startswith(".")
            if is_audio and os.path.realpath(path) not in named and name not in others:
                missing.append(path)
    if not missing:
        return []
    lists = ", ".join(as_text(str(path.relative_to(location))) for path in files[:3])
    return [
        Finding(
            code="unlisted_recordings",
            severity="warning",
            title=f"{number(len(missing), 'recording')} not in {lists}, and not read",
            meaning="Where there is such a list, it stands for the folder: recordings that it does "
            "not name are neither labels nor sound to learn from.",
            advice="Add a row for each, without a text where it has no transcript; or move the "
            "list, or the recordings, into a folder of their own.",
            places=tuple(Place(source=as_text(str(path)), id="", split="") for path in missing),
        )
    ]


def _words(values: Any) -> Iterator[str]:
    """Yield the file name of every text in nested columns."""
    if isinstance(values, str):
        yield PurePath(values).name
    elif isinstance(values, Mapping):
        yield from _words(values.values())
    elif isinstance(values, Iterable):
        for value in values:
            yield from _words(value)


def _read_metadata(path: Path, options: ReadOptions) -> list[Utterance]:
    if path.suffix.lower() == ".csv":
        header, rows = read_rows(path)
    else:
        rows = read_json_lines(path)
        header = list(dict.fromkeys(key for _, row in rows for key in row))
    if not rows:
        raise DataError("holds no rows: there is nothing to read.", path=path, line=1)
    columns = {"audio": "file_name", **options.columns}
    chosen = choose_columns(
        path,
        header,
        ReadOptions(columns=columns),
        line=rows[0][0] if "csv" not in path.suffix else 1,
    )
    split = path.parent.name if path.parent.name.lower() in SPLIT_NAMES else None
    return rows_to_utterances(path, rows, chosen, make_roots(path.parent, options), split=split)
