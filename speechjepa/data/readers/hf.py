"""A Hugging Face dataset: `hf:google/fleurs:sw_ke`, `hf:google/fleurs:sw_ke:train`, `hf:/a/folder`.

`datasets` streams the rows with audio decoding off; the encoded bytes are written once to a cache
folder, so that every utterance is a file and our own decoder reads it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from speechjepa.data.readers.common import (
    AudioRoots,
    ReadOptions,
    choose_columns,
    finish,
    rows_to_utterances,
)
from speechjepa.data.readers.text_files import Row
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError

PREFIX = "hf:"
_STORED, _SPLIT, _ID = "\0stored", "\0split", "\0id"  # names that no column has
_log = logging.getLogger(__name__)


def read_hf(location: str, options: ReadOptions) -> list[Utterance]:
    """Read `hf:NAME[:CONFIG[:SPLIT]]`, NAME being a dataset on the Hub or a local folder of one.

    The audio is copied into `<cache>/hf/<dataset>/`, named by its content, and a list of the rows
    is kept beside it once a split is complete: a dataset from the Hub is then not fetched again
    (remove that folder to fetch it anew). The cache is SPEECHJEPA_CACHE, else
    XDG_CACHE_HOME/speechjepa, else ~/.cache/speechjepa. Ids are `<split>/<audio file name>`, or
    `<split>/<row number>` where names repeat, unless `columns` names an id. Columns that JSON
    cannot hold are left out of `extra`.
    """
    name, config, split = parse_location(location)
    split = split or options.split
    key = re.sub(r"[^\w.-]+", "-", f"{PurePath(name).name}-{config or 'default'}")
    digest = hashlib.sha256(f"{name}\0{config}".encode()).hexdigest()[:12]
    folder = cache_folder() / "hf" / f"{key}-{digest}"
    local = Path(name).is_dir()
    index = folder / f"{split or 'all'}.jsonl"
    if local or not index.is_file():
        try:
            rows = _fetch(location, name, config, split, folder)
        except DataError:
            raise
        except Exception as error:  # `datasets` and its network clients raise anything
            raise DataError(
                f"{location} broke off: {type(error).__name__}: {error}. Start again; audio that"
                " is already there is kept."
            ) from error
        _write_index(index, rows)
    return _read_index(location, index, options)


def parse_location(location: str) -> tuple[str, str | None, str | None]:
    """Return (name, config, split) of `hf:NAME[:CONFIG[:SPLIT]]`."""
    rest = location.removeprefix(PREFIX)
    if rest and Path(rest).is_dir():
        return os.path.abspath(rest), None, None
    parts = rest.split(":")
    if len(parts) > 3 or not parts[0]:
        raise DataError(
            f'"{location}" must be hf:NAME[:CONFIG[:SPLIT]], such as hf:google/fleurs:sw_ke:train.'
        )
    name, config, split = (*parts, "", "")[:3]
    if Path(name).is_dir():
        name = os.path.abspath(name)
    elif os.path.isabs(name) or name.startswith("."):
        raise DataError("does not exist.", path=name)
    return name, config or None, split or None


def cache_folder() -> Path:
    """Return the folder for what is fetched once and kept."""
    chosen = os.environ.get("SPEECHJEPA_CACHE")
    if chosen:
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "speechjepa"


def _open_splits(location: str, name: str, config: str | None, split: str | None) -> dict[str, Any]:
    """Return split -> rows without decoded audio."""
    import datasets

    try:
        local = Path(name)
        if (local / "dataset_dict.json").is_file() or (local / "state.json").is_file():
            data = datasets.load_from_disk(name)
        else:
            data = _load_streaming(name, config)
    except Exception as error:  # `datasets` and its network clients raise anything
        raise DataError(
            f"{location} cannot be opened: {type(error).__name__}: {error}. Check the name, the"
            " configuration and the network; a gated dataset needs `hf auth login`."
        ) from error
    splits = dict(data) if isinstance(data, dict) else {str(data.split or "train"): data}
    if split is not None:
        if split not in splits:
            raise DataError(f'{location} has no split "{split}"; it has {", ".join(splits)}.')
        splits = {split: splits[split]}
    return splits


def _load_streaming(name: str, config: str | None) -> Any:
    import datasets

    try:
        return datasets.load_dataset(name, config, streaming=True)
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        # FLEURS and other script datasets: the Hub keeps a copy as parquet, a folder per config.
        return datasets.load_dataset(
            name, data_dir=config or "default", revision="refs/convert/parquet", streaming=True
        )


def _without_decoding(data: Any, column: str) -> Any:
    import datasets

    plain = data.cast_column(column, datasets.Audio(decode=False))
    try:
        next(iter(plain), None)
    except ImportError:
        # Where rows are single files, `datasets` wants torchcodec even to pass on their names.
        return data.cast_column(column, datasets.Value("string"))
    return plain


def _fetch(
    location: str, name: str, config: str | None, split: str | None, folder: Path
) -> list[dict[str, Any]]:
    import datasets

    rows: list[dict[str, Any]] = []
    num_bytes = 0
    for part, data in _open_splits(location, name, config, split).items():
        audio = [k for k, v in (data.features or {}).items() if isinstance(v, datasets.Audio)]
        if len(audio) != 1:
            raise DataError(
                f"{location}: the split {part} must have one audio column, but has"
                f" {', '.join(audio) or 'none'} among {', '.join(data.features or {})}."
            )
        column = audio[0]
        classes = {k: v for k, v in data.features.items() if isinstance(v, datasets.ClassLabel)}
        data = _without_decoding(data, column)
        for number, row in enumerate(data):
            original, stored, size = _store(row.pop(column), folder, f"{location} {part}:{number}")
            num_bytes += size
            for key, label in classes.items():
                if row.get(key) is not None and row[key] >= 0:
                    row[key] = label.int2str(row[key])
            kept = {key: value for key, value in row.items() if _is_json(value)}
            rows.append(
                {
                    "original": original,
                    "stored": stored,
                    "part": part,
                    "number": number,
                    "row": kept,
                }
            )
    _log.info("%s: %d rows, %.1f MB of audio in %s", location, len(rows), num_bytes / 1e6, folder)
    return rows


def _store(audio: Mapping[str, Any] | str | None, folder: Path, where: str) -> tuple[str, str, int]:
    """Write the encoded bytes of one row; return (original name, stored path, bytes written)."""
    if isinstance(audio, str):
        audio = {"path": audio}
    path = (audio or {}).get("path") or ""
    content = (audio or {}).get("bytes")
    if content is None and "://" in path:
        import fsspec  # type: ignore[import-untyped]

        with fsspec.open(path, "rb") as handle:
            content = handle.read()
        path = path.split("::", 1)[0]
    if content is None:
        if not os.path.isfile(path):
            raise DataError(f"{where} has neither audio bytes nor a file ({path or 'no path'}).")
        return path, os.path.abspath(path), 0
    suffix = PurePath(path).suffix.lower()
    suffix = suffix if re.fullmatch(r"\.\w{1,5}", suffix) else ".audio"
    target = folder / "audio" / f"{hashlib.sha256(content).hexdigest()[:24]}{suffix}"
    if target.is_file() and target.stat().st_size == len(content):
        return path, str(target), 0
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    part.write_bytes(content)
    os.replace(part, target)
    return path, str(target), len(content)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _write_index(index: Path, rows: list[dict[str, Any]]) -> None:
    index.parent.mkdir(parents=True, exist_ok=True)
    part = index.with_name(f"{index.name}.{os.getpid()}.part")
    part.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    os.replace(part, index)


def _read_index(location: str, index: Path, options: ReadOptions) -> list[Utterance]:
    entries = [json.loads(line) for line in index.read_text(encoding="utf-8").splitlines()]
    if not entries:
        raise DataError(f"{location} holds no rows.")
    header = list(dict.fromkeys(key for entry in entries for key in entry["row"]))
    columns = {key: value for key, value in options.columns.items() if key != "audio"}
    chosen = choose_columns(
        Path(location),
        [*header, _STORED],
        ReadOptions(columns={"audio": _STORED, **columns}),
    )
    if "id" not in columns:
        chosen.pop("id", None)  # FLEURS repeats the id of a sentence for each of its recordings
    stems = [(e["part"], PurePath(e["original"]).stem) for e in entries]
    use_names = len(set(stems)) == len(stems) and all(stem for _, stem in stems)
    rows: list[Row] = []
    for entry, (part, stem) in zip(entries, stems, strict=True):
        row = dict(entry["row"], **{_STORED: entry["stored"]})
        row[_SPLIT] = part
        if "id" not in chosen:
            row[_ID] = f"{part}/{stem}" if use_names else f"{part}/{entry['number']}"
        rows.append((entry["number"], row))
    chosen.setdefault("id", _ID)
    chosen["split"] = _SPLIT
    roots = AudioRoots(folders=(index.parent / "audio",), allow_absolute=True)
    return finish(rows_to_utterances(Path(location), rows, chosen, roots), location, roots.folders)
