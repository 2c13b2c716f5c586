"""Hugging Face AudioFolder: `metadata.csv` or `metadata.jsonl` beside the audio.

https://huggingface.co/docs/datasets/audio_dataset#audiofolder
"""

from __future__ import annotations

import os
from pathlib import Path

from speechjepa.data.readers.common import (
    SPLIT_NAMES,
    ReadOptions,
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
