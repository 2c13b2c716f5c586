"""JSON Lines manifests: NeMo's, and our own, which is NeMo's with an `id` (and `speaker`, `split`).

https://docs.nvidia.com/deeplearning/nemo/user-guide/docs/en/stable/asr/datasets.html
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from speechjepa.data.readers.common import (
    SPLIT_NAMES,
    ReadOptions,
    choose_columns,
    finish,
    is_inside,
    make_roots,
    rows_to_utterances,
)
from speechjepa.data.readers.text_files import read_json_lines
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError

_KEYS = {
    "id": "id",
    "audio": "audio_filepath",
    "start": "offset",
    "duration": "duration",
    "text": "text",
    "speaker": "speaker",
    "language": "lang",
    "split": "split",
}
"""Field -> key in a manifest. Other keys with a usual name (`sentence`) are extra columns there."""


def read_manifest(location: Path, options: ReadOptions) -> list[Utterance]:
    """Read a manifest written by `write_manifest`.

    Audio paths are relative to the manifest, below its folder or the data root; an absolute path
    may point anywhere.
    """
    return _read(location, options, required=("id", "audio_filepath"))


def read_nemo(location: Path, options: ReadOptions) -> list[Utterance]:
    """Read a NeMo manifest (`audio_filepath`, `duration`, `text`, `offset`, `lang`).

    Relative audio paths must lie below the manifest's folder or the data root; absolute ones may
    point anywhere. Ids are the audio paths without suffix and, where rows have offsets, the
    offset.
    """
    return _read(location, options, required=("audio_filepath",))


def _read(location: Path, options: ReadOptions, required: tuple[str, ...]) -> list[Utterance]:
    rows = read_json_lines(location)
    if not rows:
        raise DataError("holds no rows: there is nothing to read.", path=location, line=1)
    renamed = set(options.columns)
    needed = [key for key in required if key.removesuffix("_filepath") not in renamed]
    for line, row in rows:
        missing = [key for key in needed if key not in row]
        if missing:
            raise DataError(
                f'lacks "{missing[0]}"; its keys are {", ".join(row) or "none"}.',
                path=location,
                line=line,
            )
    header = list(dict.fromkeys(key for _, row in rows for key in row))
    taken = set(options.columns.values())
    columns = {name: key for name, key in _KEYS.items() if key in header and key not in taken}
    columns |= options.columns
    chosen = choose_columns(location, header, ReadOptions(columns=columns), line=rows[0][0])
    roots = make_roots(location.parent, options, allow_absolute=True)
    split = location.stem if location.stem.lower() in SPLIT_NAMES else None
    utterances = rows_to_utterances(
        location, rows, chosen, roots, split=None if "id" in required else split
    )
    return finish(utterances, location, roots.folders)


def write_manifest(
    utterances: Iterable[Utterance],
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> Path:
    """Write utterances as a manifest: one JSON object per line.

    Keys: `id`, `audio_filepath` (relative to the manifest where the audio lies below its folder,
    else absolute), `offset` and `duration` (seconds), `text`, `speaker`, `lang`, `split`, then
    whatever is in `extra`; what is not known is left out. `read_corpus` gives the same utterances
    back, `source` apart. An extra column that has the name of a key is written with `original_` in
    front.

    Args:
        utterances: What to write.
        path: Where; its folder is made.
        overwrite: Replace a file that is already there.

    Returns:
        The path.

    Raises:
        DataError: The file exists, there is nothing to write, two utterances have one id, or
            something cannot be written.
    """
    path = Path(os.path.abspath(path))
    if path.exists() and not overwrite:
        raise DataError(
            "already exists. Write to another name, remove it, or say overwrite=True.", path=path
        )
    utterances = list(utterances)
    _refuse_repeated_ids(utterances)
    folder = str(path.parent)
    lines = [_to_line(utterance, folder) for utterance in utterances]
    if not lines:
        raise DataError("there are no utterances to write.", path=path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text("".join(lines), encoding="utf-8", newline="\n")
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise DataError(f"cannot be written ({error.strerror}).", path=path) from error
    return path


def _refuse_repeated_ids(utterances: Iterable[Utterance]) -> None:
    first: dict[str, Utterance] = {}
    for utterance in utterances:
        if first.setdefault(utterance.id, utterance) is not utterance:
            raise DataError(
                f'the id "{utterance.id}" is used twice: by {first[utterance.id].source} and by'
                f" {utterance.source}. A manifest with both could not be read: rename one."
            )


def _to_line(utterance: Utterance, folder: str) -> str:
    taken = set(_KEYS.values())
    extra = {(f"original_{k}" if k in taken else k): v for k, v in utterance.extra.items()}
    audio = os.path.abspath(utterance.audio_path)
    inside = is_inside(audio, folder) and is_inside(
        os.path.realpath(audio), os.path.realpath(folder)
    )
    row: dict[str, Any] = {
        "id": utterance.id,
        "audio_filepath": os.path.relpath(audio, folder) if inside else audio,
        "offset": utterance.start,
        "duration": utterance.duration,
        "text": utterance.text,
        "speaker": utterance.speaker,
        "lang": utterance.language,
        "split": utterance.split,
    }
    row = {key: value for key, value in row.items() if value is not None} | extra
    try:
        line = json.dumps(row, ensure_ascii=False)
        try:
            line.encode("utf-8")
        except UnicodeEncodeError:  # a file name that is not UTF-8 survives as escapes
            line = json.dumps(row)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{utterance.source}: an extra column of {utterance.id} cannot be written as JSON"
            f" ({error})."
        ) from error
    return line + "\n"
