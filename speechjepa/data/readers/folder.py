"""A plain folder of audio, with a `.txt`, `.eaf` or `.TextGrid` beside each transcribed file."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePath

from speechjepa.audio.files import AUDIO_SUFFIXES
from speechjepa.data.readers.annotations import ANNOTATION_SUFFIXES, read_annotations
from speechjepa.data.readers.common import (
    SPLIT_NAMES,
    AudioRoots,
    ReadOptions,
    as_text,
    finish,
    make_roots,
)
from speechjepa.data.readers.text_files import read_text
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError


def read_folder(location: Path, options: ReadOptions) -> list[Utterance]:
    """Read every audio file below a folder (or one audio file), sorted by path.

    `name.txt` (or `.TXT`) beside `name.wav` is its transcript; its lines are joined by spaces. The
    id is the path below the folder without suffix. A first subfolder called train, dev, test or
    the like names the split. `name.eaf` (ELAN) or `name.TextGrid` (Praat) beside it, and no `.txt`,
    gives one utterance for each transcribed stretch, `name@START` with START in milliseconds; the
    tier is `options.columns["text"]`, or see `read_annotations`. Hidden files are
    left out; links to folders are not followed, and a link that leaves the folder is a DataError.
    """
    root = location if location.is_dir() else location.parent
    roots = make_roots(root, options)
    if location.is_dir():
        names = list_audio(location, roots)
    else:
        names = [location.name]
    texts: dict[Path, dict[str, Path]] = {}
    stems = Counter(PurePath(name).with_suffix("").as_posix() for name in names)
    utterances = []
    for name in names:
        stem = PurePath(name).with_suffix("").as_posix()
        path = roots.locate(name, path=root, line=None)
        first = PurePath(name).parts[0]
        beside = _beside(path, texts)
        whole = Utterance(
            # a.wav and a.mp3 side by side are two recordings as far as a reader can know.
            id=as_text(stem if stems[stem] == 1 else name),
            audio_path=path,
            split=_split(first if first != name else "", root),
            source=as_text(str(path)),
        )
        if beside is not None and beside.suffix.lower() in ANNOTATION_SUFFIXES:
            utterances += _stretches(whole, beside, options.columns.get("text"))
        else:
            text = None if beside is None else " ".join(read_text(beside).split()) or None
            utterances.append(replace(whole, text=text))
    return finish(utterances, location, roots.folders)


def list_audio(folder: Path, roots: AudioRoots) -> list[str]:
    """Return the audio files below a folder, sorted, as paths relative to it."""
    names = []
    for parent, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if os.path.islink(os.path.join(parent, name)):
                # Refuses what leads outside; a link that stays inside is met in its own place.
                roots.locate(
                    os.path.relpath(os.path.join(parent, name), folder), path=folder, line=None
                )
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES:
                names.append(os.path.relpath(os.path.join(parent, name), folder))
    return sorted(names)


def _raise(error: OSError) -> None:
    raise DataError(
        f"cannot be listed ({error.strerror}). Make it readable, or leave it out.",
        path=error.filename,
    ) from error


def _split(first: str, root: Path) -> str | None:
    return next((name for name in (first, root.name) if name.lower() in SPLIT_NAMES), None)


def _stretches(whole: Utterance, path: Path, tier: str | None) -> list[Utterance]:
    """Return an utterance for each transcribed stretch; the whole, without text, where none is."""
    found = [
        replace(
            whole,
            id=f"{whole.id}@{round(1000 * start)}",
            start=start,
            duration=end - start,
            text=" ".join(text.split()),
            source=as_text(f"{path} at {start:.3f} s"),
        )
        for start, end, text in read_annotations(path, tier)
    ]
    return found or [whole]


def _beside(audio_path: Path, texts: dict[Path, dict[str, Path]]) -> Path | None:
    """Return the transcript beside an audio file; `texts` keeps what each folder holds."""
    folder = audio_path.parent
    if folder not in texts:
        suffixes = (*reversed(ANNOTATION_SUFFIXES), ".txt")  # the last one wins
        files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes]
        files.sort(key=lambda path: suffixes.index(path.suffix.lower()))
        texts[folder] = {_key(path): path for path in files if path.is_file()}
    exact = audio_path.with_suffix(".txt")
    return exact if exact.is_file() else texts[folder].get(_key(audio_path))


def _key(path: Path) -> str:
    """Return a stem with its accents composed: a copy through macOS may have decomposed one."""
    return unicodedata.normalize("NFC", path.stem)
