"""Common Voice: `<split>.tsv` (path, sentence, client_id, locale) and a `clips` folder.

https://commonvoice.mozilla.org/
"""

from __future__ import annotations

from pathlib import Path, PurePath

from speechjepa.data.readers.common import (
    ReadOptions,
    choose_columns,
    finish,
    make_roots,
    number,
    rows_to_utterances,
)
from speechjepa.data.readers.text_files import read_delimited, read_lines
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError

_USUAL_SPLITS = ("train", "dev", "test")


def read_common_voice(location: Path, options: ReadOptions) -> list[Utterance]:
    """Read a Common Voice language folder, or one of its tsv files; the file's name is the split.

    Without a split a folder gives train, dev and test; `validated`, `other` and so on must be
    named, since they hold the same clips again. Clips must lie below the folder or the data root.
    """
    if location.is_dir():
        names = _USUAL_SPLITS if options.split is None else (options.split,)
        files = [location / f"{name}.tsv" for name in names]
        files = [path for path in files if path.is_file()]
        if not files:
            present = ", ".join(sorted(path.stem for path in location.glob("*.tsv"))) or "none"
            raise DataError(
                f"has none of {', '.join(f'{name}.tsv' for name in names)}; its splits are:"
                f" {present}.",
                path=location,
            )
    else:
        files = [location]
    durations = _read_durations(files[0].parent / "clip_durations.tsv")
    utterances: list[Utterance] = []
    for path in files:
        utterances.extend(_read_tsv(path, options, durations))
    clips = files[0].parent / "clips"
    return finish(utterances, location, [clips, options.data_root or clips])


def is_common_voice_tsv(path: Path) -> bool:
    """Whether a file has the header of a Common Voice tsv."""
    first = next(iter(read_lines(path)), (1, ""))[1]
    return {"client_id", "path", "sentence"} <= set(first.split("\t"))


def _read_tsv(path: Path, options: ReadOptions, durations: dict[str, float]) -> list[Utterance]:
    # Common Voice writes quotes as they are: a cell that starts with one is not quoted.
    header, rows = read_delimited(path, delimiter="\t", quoted=False)
    if not rows:
        raise DataError("holds no rows: there is nothing to read.", path=path, line=1)
    columns = {"audio": "path", "text": "sentence", "speaker": "client_id", **options.columns}
    chosen = choose_columns(path, header, ReadOptions(columns=columns))
    chosen.pop("id", None)
    audio = chosen["audio"]
    cleaned = []
    for line, row in rows:
        name = row.get(audio)
        if name and not PurePath(name).suffix:
            name = row[audio] = f"{name}.mp3"  # releases before 2020 leave the suffix out
        if name in durations:
            row["duration"] = durations[name]
        cleaned.append((line, row))
    if durations:
        chosen["duration"] = "duration"
    roots = make_roots(path.parent / "clips", options)
    return rows_to_utterances(path, cleaned, chosen, roots, split=path.stem)


def _read_durations(path: Path) -> dict[str, float]:
    """Return clip -> seconds; the file gives milliseconds."""
    if not path.is_file():
        return {}
    header, rows = read_delimited(path, delimiter="\t", quoted=False)
    if len(header) != 2:
        raise DataError("must have two columns: clip and duration[ms].", path=path, line=1)
    return {
        str(row.get(header[0])): (number(row, header[1], path, line) or 0.0) / 1000
        for line, row in rows
    }
