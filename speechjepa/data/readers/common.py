"""What all readers share: named columns, and where audio may lie."""

from __future__ import annotations

import difflib
import logging
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from speechjepa.data.findings import Finding
from speechjepa.data.readers.text_files import Row
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError

TRAIN_SPLITS = ("train", "training")
DEV_SPLITS = ("dev", "devel", "validation", "valid", "val")
TEST_SPLITS = ("test", "testing", "eval")
SPLIT_NAMES = frozenset([*TRAIN_SPLITS, *DEV_SPLITS, *TEST_SPLITS])
"""Folder names that are taken for the name of a split."""

FIELDS: dict[str, tuple[str, ...]] = {
    "audio": ("audio_filepath", "file_name", "audio", "path", "file", "filename", "audio_path"),
    "id": ("id",),
    "start": ("start", "offset"),
    "duration": ("duration",),
    "end": ("end",),
    "text": ("text", "transcription", "transcript", "sentence"),
    "speaker": ("speaker", "speaker_id", "client_id"),
    "language": ("lang", "language", "locale"),
    "split": ("split",),
}
"""The fields of an utterance and the columns they are read from unless the user names others."""

logger = logging.getLogger(__name__)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What the caller of `read_corpus` chose."""

    split: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    """Field -> column, e.g. {"audio": "wav", "text": "orthography"}."""
    data_root: Path | None = None
    findings: list[Finding] | None = None
    """Gets what is strange about the files that were read; None = warnings are logged."""

    def tell(self, findings: Iterable[Finding]) -> None:
        """Hand findings to the caller, or to the log."""
        if self.findings is not None:
            self.findings.extend(findings)
            return
        for finding in findings:
            if finding.severity != "note":
                logger.warning("%s. %s", finding.title, finding.advice)


@dataclass(frozen=True, kw_only=True)
class AudioRoots:
    """The folders that audio may lie in; relative paths are looked for in each, in order."""

    folders: tuple[Path, ...]
    allow_absolute: bool = False
    """Whether an absolute path may point anywhere (where the format says so)."""

    @cached_property
    def _real_folders(self) -> tuple[str, ...]:
        return tuple(os.path.realpath(folder) for folder in self.folders)

    @cached_property
    def _real_parents(self) -> dict[str, bool]:
        return {}

    def locate(self, name: object, *, path: Path, line: int | None) -> Path:
        """Return the absolute path of an audio file named in `path`, whether it exists or not."""
        if not isinstance(name, str) or not name.strip() or not _may_name_a_file(name):
            raise DataError(
                f"the audio path must be a file name, but is {name!r} instead.",
                path=path,
                line=line,
            )
        if _ADDRESS.match(name):
            raise DataError(
                f'"{name}" is an address, not a file. Download it and name the local file.',
                path=path,
                line=line,
            )
        if os.path.isabs(name) and self.allow_absolute:
            candidate = os.path.normpath(name)
            return Path(_existing([candidate]) or candidate)
        candidates = [os.path.normpath(os.path.join(folder, name)) for folder in self.folders]
        inside = [candidate for candidate in candidates if self._holds(candidate)]
        if not inside:
            raise self._outside(name, path, line)
        found = _existing(inside)
        if found is not None and not self._really_holds(found):
            raise self._outside(name, path, line, " through a link")
        return Path(found or inside[0])

    def _holds(self, candidate: str) -> bool:
        return any(is_inside(candidate, str(folder)) for folder in self.folders)

    def _really_holds(self, candidate: str) -> bool:
        # Most files are not links: their folder's answer serves for all of them.
        key = candidate if os.path.islink(candidate) else os.path.dirname(candidate)
        if key not in self._real_parents:
            real = os.path.realpath(key)
            self._real_parents[key] = any(is_inside(real, root) for root in self._real_folders)
        return self._real_parents[key]

    def _outside(self, name: str, path: Path, line: int | None, how: str = "") -> DataError:
        folders = " or ".join(str(folder) for folder in self.folders)
        return DataError(
            f'"{name}" leaves the data folder ({folders}){how}. Move the audio there, or give a'
            " data root (--data-root) that holds both.",
            path=path,
            line=line,
        )


def _may_name_a_file(name: str) -> bool:
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:  # half a character, from an escape such as \ud800
        return False


def _existing(candidates: Sequence[str]) -> str | None:
    """Return the first path that exists, as it is or with its accents composed or decomposed."""
    # macOS writes file names decomposed, and copies of them stay so; keyboards compose.
    for candidate in candidates:
        forms = [candidate, *(unicodedata.normalize(form, candidate) for form in ("NFC", "NFD"))]
        for form in dict.fromkeys(forms):
            if os.path.exists(form):
                return form
    return None


def is_inside(path: str, folder: str) -> bool:
    """Whether a normalised absolute path is the folder or lies below it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def make_roots(folder: Path, options: ReadOptions, *, allow_absolute: bool = False) -> AudioRoots:
    """Return the roots of a corpus: its own folder, then the data root if there is one."""
    folders = [Path(os.path.abspath(folder))]
    if options.data_root is not None:
        folders.append(Path(os.path.abspath(options.data_root)))
    return AudioRoots(folders=tuple(dict.fromkeys(folders)), allow_absolute=allow_absolute)


# Rows to utterances ---------------------------------------------------------------------------


def choose_columns(
    path: Path, available: Iterable[str], options: ReadOptions, *, line: int = 1
) -> dict[str, str]:
    """Return which column holds each field; DataError for an unknown or missing one."""
    available = list(available)
    chosen: dict[str, str] = {}
    for name, column in options.columns.items():
        if name not in FIELDS:
            raise DataError(f'`columns` names "{name}"; its keys are {", ".join(FIELDS)}.')
        if column not in available:
            near = difflib.get_close_matches(column, available, n=1)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            raise DataError(
                f'there is no column "{column}" (for {name}); the columns are'
                f" {', '.join(available)}.{hint}",
                path=path,
                line=line,
            )
        chosen[name] = column
    for name, usual in FIELDS.items():
        present = [c for c in usual if c in available and c not in chosen.values()]
        if name in chosen or not present:
            continue
        if name == "text" and len(present) > 1:
            raise DataError(
                f"the transcript may be in any of the columns {', '.join(present)}. Choose one:"
                f' columns={{"text": "{present[0]}"}} (--column text={present[0]}).',
                path=path,
                line=line,
            )
        chosen[name] = present[0]
    if "start" not in chosen:  # then it is the end of something else
        chosen.pop("end", None)
    if "audio" not in chosen:
        raise DataError(
            f"no column names the audio files; the columns are {', '.join(available)}. Choose"
            ' one: columns={"audio": ...} (--column audio=...).',
            path=path,
            line=line,
        )
    return chosen


def rows_to_utterances(
    path: Path,
    rows: Sequence[Row],
    chosen: Mapping[str, str],
    roots: AudioRoots,
    *,
    split: str | None = None,
) -> list[Utterance]:
    """Turn rows into utterances; columns that are no field become `extra`."""
    names = [row.get(chosen["audio"]) for _, row in rows]
    common = _common_folder([name for name in names if isinstance(name, str)])
    utterances = []
    for (line, row), name in zip(rows, names, strict=True):
        start = number(row, chosen.get("start"), path, line)
        given = words(row, chosen.get("id"), path, line)
        audio_path = roots.locate(name, path=path, line=line)
        utterances.append(
            Utterance(
                id=given or id_of(str(name), common, start),
                audio_path=audio_path,
                start=start or 0.0,
                duration=_duration(row, chosen, start or 0.0, path, line),
                text=words(row, chosen.get("text"), path, line, strict=True),
                speaker=words(row, chosen.get("speaker"), path, line),
                language=words(row, chosen.get("language"), path, line),
                split=words(row, chosen.get("split"), path, line) or split,
                extra={k: v for k, v in row.items() if k not in chosen.values()},
                source=f"{path}:{line}",
            )
        )
    return utterances


def _duration(
    row: Mapping[str, Any], chosen: Mapping[str, str], start: float, path: Path, line: int
) -> float | None:
    """Return how long a row's stretch is: as given, or up to its end; None = all that follows."""
    given = number(row, chosen.get("duration"), path, line)
    end = number(row, chosen.get("end"), path, line) if given is None else None
    if end is None:
        return given
    if end <= start:
        raise DataError(
            f'"{chosen["end"]}" is {end:g} s, not after "{chosen["start"]}", {start:g} s.',
            path=path,
            line=line,
        )
    return end - start


def id_of(name: str, common: str = "", start: float | None = None) -> str:
    """Return the id of audio that has none: its path without suffix, and its start if given."""
    if common and os.path.isabs(name):
        name = os.path.relpath(name, common)
    stem = as_text(PurePath(os.path.normpath(name)).with_suffix("").as_posix())
    return stem if start is None else f"{stem}-{start:.3f}"


def as_text(name: str) -> str:
    """Return a file name in which bytes that are not UTF-8 are escapes, to be written anywhere."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def as_line(name: str) -> str:
    """Return a file name that can stand on one line of a list: line breaks and tabs are escapes."""
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in as_text(name))
    return "".join(shown)


def _common_folder(names: Sequence[str]) -> str:
    folders = {os.path.dirname(name) for name in names if os.path.isabs(name)}
    return os.path.commonpath(folders) if folders else ""


def number(row: Mapping[str, Any], column: str | None, path: Path, line: int) -> float | None:
    """Return a number of seconds from a row; None where it has none."""
    value = None if column is None else row.get(column)
    if value is None:
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise DataError(
            f'"{column}" must be a number of seconds, 0 or more, but is {value!r} instead.',
            path=path,
            line=line,
        )
    return seconds


def words(
    row: Mapping[str, Any], column: str | None, path: Path, line: int, *, strict: bool = False
) -> str | None:
    """Return text from a row; None where it has none or only blanks."""
    value = None if column is None else row.get(column)
    if isinstance(value, int) and not isinstance(value, bool) and not strict:
        value = str(value)
    if value is None:
        return None
    if not isinstance(value, str):
        raise DataError(f'"{column}" must be text, but is {value!r} instead.', path=path, line=line)
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise DataError(
            f'"{column}" holds half a character (a lone surrogate escape): {value!r}. Correct it.',
            path=path,
            line=line,
        )
    return value if value.strip() else None


def finish(
    utterances: list[Utterance], location: Path | str, roots: Iterable[Path]
) -> list[Utterance]:
    """Check what holds for every corpus: it is not empty, some audio exists."""
    if not utterances:
        raise DataError("holds no utterances: there is nothing to read.", path=location)
    if not any(os.path.exists(utterance.audio_path) for utterance in utterances):
        tried = " and ".join(dict.fromkeys(str(root) for root in roots))
        raise DataError(
            f"none of its {len(utterances)} audio files exists; the first is"
            f" {utterances[0].audio_path}. Relative paths were looked for below {tried}: give the"
            " folder that holds the audio as the data root (--data-root).",
            path=location,
        )
    return utterances


def refuse_doubled_ids(utterances: Iterable[Utterance], *, within_splits: bool = True) -> None:
    """Raise a DataError for the first id that is used twice, with how many more there are.

    Args:
        utterances: A corpus.
        within_splits: False looks only for ids that two splits share.
    """
    first: dict[str, Utterance] = {}
    doubles = [
        u
        for u in utterances
        if first.setdefault(u.id, u) is not u and (within_splits or first[u.id].split != u.split)
    ]
    if not doubles:
        return
    double = doubles[0]
    more = f", and so are {len(doubles) - 1:,} more" if len(doubles) > 1 else ""
    raise DataError(
        f'{double.source}: the id "{double.id}" is taken by {first[double.id].source}{more}.'
        " Ids must be unique: rename one, or remove the double."
    )
