"""A plain folder of audio, with a `.txt` beside each file that has a transcript."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from pathlib import Path, PurePath

from speechjepa.audio.files import AUDIO_SUFFIXES
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
    the like names the split. Hidden files are left out; links to folders are not followed, and a
    link that leaves the folder is a DataError.
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
        utterances.append(
            Utterance(
                # a.wav and a.mp3 side by side are two recordings as far as a reader can know.
                id=as_text(stem if stems[stem] == 1 else name),
                audio_path=path,
                text=_transcript(path, texts),
                split=_split(first if first != name else "", root),
                source=as_text(str(path)),
            )
        )
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


def _transcript(audio_path: Path, texts: dict[Path, dict[str, Path]]) -> str | None:
    """Return the text beside an audio file; `texts` keeps what each folder holds."""
    folder = audio_path.parent
    if folder not in texts:
        files = (path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".txt")
        texts[folder] = {_key(path): path for path in files if path.is_file()}
    exact = audio_path.with_suffix(".txt")
    path = exact if exact.is_file() else texts[folder].get(_key(audio_path))
    return None if path is None else " ".join(read_text(path).split()) or None


def _key(path: Path) -> str:
    """Return a stem with its accents composed: a copy through macOS may have decomposed one."""
    return unicodedata.normalize("NFC", path.stem)
