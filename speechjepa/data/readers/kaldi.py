"""Kaldi data directory: `wav.scp`, and where present `segments`, `text`, `utt2spk` and others.

https://kaldi-asr.org/doc/data_prep.html
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from speechjepa.data.readers.common import (
    SPLIT_NAMES,
    AudioRoots,
    ReadOptions,
    finish,
    make_roots,
)
from speechjepa.data.readers.text_files import read_lines
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError

_ARCHIVE = re.compile(r"\.ark:\d+$")
Table = dict[str, tuple[int, str]]


def read_kaldi(location: Path, options: ReadOptions) -> list[Utterance]:
    """Read a Kaldi data directory (or its `wav.scp`).

    Relative audio paths must lie below the directory or the data root (Kaldi takes them from
    where its scripts are started: give that folder as the data root); absolute ones may point
    anywhere. A `wav.scp` entry that is a command (ends with `|`) is refused, never run.
    """
    folder = location if location.is_dir() else location.parent
    roots = make_roots(folder, options, allow_absolute=True)
    recordings = _read_recordings(folder / "wav.scp", roots)
    stretches: dict[str, tuple[str, float, float | None, str]]
    if (folder / "segments").is_file():
        stretches = _read_segments(folder / "segments", recordings)
    else:
        scp = folder / "wav.scp"
        stretches = {
            name: (name, 0.0, None, f"{scp}:{line}") for name, (line, _) in recordings.items()
        }
    texts = _read_optional(folder / "text", stretches)
    speakers = _read_optional(folder / "utt2spk", stretches)
    languages = _read_optional(folder / "utt2lang", stretches)
    durations = _read_optional(folder / "utt2dur", stretches)
    split = folder.name if folder.name.lower() in SPLIT_NAMES else None
    utterances = []
    for name, (recording, start, duration, source) in stretches.items():
        if duration is None and name in durations:
            duration = _seconds(durations[name][1], folder / "utt2dur", durations[name][0])
        utterances.append(
            Utterance(
                id=name,
                audio_path=Path(recordings[recording][1]),
                start=start,
                duration=duration,
                text=texts[name][1] or None if name in texts else None,
                speaker=speakers[name][1] or None if name in speakers else None,
                language=languages[name][1] or None if name in languages else None,
                split=split,
                source=source,
            )
        )
    return finish(utterances, folder, roots.folders)


def _read_table(path: Path) -> Table:
    table: Table = {}
    for line, content in read_lines(path):
        parts = content.strip().split(maxsplit=1)
        if parts[0] in table:
            raise DataError(
                f'"{parts[0]}" is also on line {table[parts[0]][0]}; ids must be unique.',
                path=path,
                line=line,
            )
        table[parts[0]] = (line, parts[1] if len(parts) > 1 else "")
    return table


def _read_recordings(path: Path, roots: AudioRoots) -> Table:
    if not path.is_file():
        raise DataError("is missing: a Kaldi data directory needs it.", path=path)
    recordings: Table = {}
    for name, (line, entry) in _read_table(path).items():
        if entry.endswith("|") or entry.startswith("|") or entry == "-":
            raise DataError(
                f"is a command, and commands are never run: {entry!r}. Convert the audio to files"
                " first and name these.",
                path=path,
                line=line,
            )
        if _ARCHIVE.search(entry):
            raise DataError(
                f"points into a Kaldi archive ({entry}). Extract it with wav-copy first.",
                path=path,
                line=line,
            )
        recordings[name] = (line, str(roots.locate(entry, path=path, line=line)))
    return recordings


def _read_segments(
    path: Path, recordings: Table
) -> dict[str, tuple[str, float, float | None, str]]:
    segments: dict[str, tuple[str, float, float | None, str]] = {}
    for name, (line, entry) in _read_table(path).items():
        parts = entry.split()
        if len(parts) not in (3, 4):
            raise DataError(
                "must be `utterance recording start end`, but has"
                f" {len(parts) + 1} columns instead.",
                path=path,
                line=line,
            )
        if parts[0] not in recordings:
            raise DataError(f'the recording "{parts[0]}" is not in wav.scp.', path=path, line=line)
        start = _seconds(parts[1], path, line)
        duration = None
        if parts[2] != "-1":  # Kaldi's sign for the end of the file
            duration = round(_seconds(parts[2], path, line) - start, 6)
            if duration <= 0:
                raise DataError(
                    f"the segment must end after its start, {parts[1]} s, but ends at"
                    f" {parts[2]} s instead.",
                    path=path,
                    line=line,
                )
        segments[name] = (parts[0], start, duration, f"{path}:{line}")
    return segments


def _read_optional(path: Path, known: dict[str, tuple[str, float, float | None, str]]) -> Table:
    if not path.is_file():
        return {}
    table = _read_table(path)
    for name, (line, _) in table.items():
        if name not in known:
            raise DataError(
                f'the utterance "{name}" is neither in wav.scp nor in segments. Add it there, or'
                " remove this line.",
                path=path,
                line=line,
            )
    return table


def _seconds(value: str, path: Path, line: int) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise DataError(
            f"a time must be a number of seconds, 0 or more, but is {value!r} instead.",
            path=path,
            line=line,
        )
    return seconds
