"""A plain folder of audio, with a `.txt`, `.eaf` or `.TextGrid` beside each transcribed file."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePath

from speechjepa.audio.files import AUDIO_SUFFIXES, probe_audio
from speechjepa.data.readers.annotations import ANNOTATION_SUFFIXES, read_annotations
from speechjepa.data.readers.beside import (
    all_of,
    copied_recordings,
    copies_beside,
    partly_transcribed,
    several_transcripts,
    transcripts_beside,
    unreadable_transcripts,
)
from speechjepa.data.readers.common import (
    SPLIT_NAMES,
    AudioRoots,
    ReadOptions,
    as_text,
    finish,
    make_roots,
)
from speechjepa.data.readers.strays import empty_transcripts, stray_findings
from speechjepa.data.readers.text_files import read_text
from speechjepa.data.utterance import Utterance
from speechjepa.errors import AudioError, DataError

PAUSE_SECONDS = 1.0
"""What is not transcribed between two stretches is audio of its own if it is longer than this."""
PIECE_SECONDS = 30.0
"""Such audio is cut into pieces of this length, between which nothing is heard together."""


def read_folder(location: Path, options: ReadOptions) -> list[Utterance]:
    """Read every audio file below a folder (or one audio file), sorted by path.

    `name.txt` or `name.wav.txt` (or `.TXT`) beside `name.wav` is its transcript; its lines are
    joined by spaces. The id is the path below the folder without suffix. A first subfolder called
    train, dev, test or the like names the split. `name.eaf` (ELAN) or `name.TextGrid` (Praat)
    beside it gives one utterance for each transcribed stretch, `name@START` with START in
    milliseconds, and what is not transcribed (pauses of up to a second apart), in pieces of 30 s,
    as `name@START-STOP` without text. The tier is `options.columns["text"]`, or see
    `read_annotations`; its participant is the speaker. Of recordings of one name, `a.wav` and
    `a.mp3`, of which one is transcribed, one is read. Where several transcripts stand beside one
    recording, the one that was changed last is taken. Hidden files are left out; links to folders
    are not followed, and a link that leaves the folder is a DataError. Transcripts that cannot be
    read are findings, or all together a DataError; those that are empty or belong to no recording,
    and documents of Word or Excel, are findings.
    """
    unknown = sorted(set(options.columns) - {"text"})
    if unknown:
        raise DataError(
            f"a folder of recordings has no columns, so {unknown[0]}={options.columns[unknown[0]]} "
            "means nothing; text=TIER names the tier of ELAN's and Praat's files",
            path=location,
        )
    root = location if location.is_dir() else location.parent
    roots = make_roots(root, options)
    files = list_files(root, roots, below=location.is_dir())
    audio = [name for name in files if PurePath(name).suffix.lower() in AUDIO_SUFFIXES]
    names = audio if location.is_dir() else [location.name]
    beside = transcripts_beside(root, files, [*dict.fromkeys([*audio, *names])])
    beside = {name: beside[name] for name in names if name in beside}
    stems = Counter(PurePath(name).with_suffix("").as_posix() for name in names)
    copies = copies_beside(names, beside)
    names = [name for name in names if name not in copies]
    beside = {name: paths for name, paths in beside.items() if name not in copies}
    utterances = []
    gaps: dict[str, list[Utterance]] = {}
    bad: list[tuple[Utterance, DataError]] = []
    empty: dict[str, Path] = {}
    for name in names:
        stem = PurePath(name).with_suffix("").as_posix()
        path = roots.locate(name, path=root, line=None)
        first = PurePath(name).parts[0]
        whole = Utterance(
            # a.wav and a.mp3 side by side are two recordings as far as a reader can know.
            id=as_text(stem if stems[stem] == 1 else name),
            audio_path=path,
            split=_split(first if first != name else "", root),
            source=as_text(str(path)),
        )
        if name in beside:
            try:
                parts = _transcribed(whole, beside[name][0], options.columns.get("text"))
                if not any(part.text for part in parts):
                    empty[whole.id] = beside[name][0]
            except DataError as error:
                bad.append((whole, error))
                parts = [whole]
            gaps[name] = [part for part in parts if part.text is None and len(parts) > 1]
            utterances += parts
        else:
            utterances.append(whole)
    if bad and options.findings is None:
        raise all_of(bad, location)
    options.tell(unreadable_transcripts(bad))
    options.tell([*several_transcripts(beside), *partly_transcribed(gaps.values())])
    options.tell(copied_recordings(root, copies))
    options.tell(empty_transcripts(empty))
    if location.is_dir():
        options.tell(stray_findings(root, files, names, beside))
    return finish(utterances, location, roots.folders)


def list_files(folder: Path, roots: AudioRoots, *, below: bool = True) -> list[str]:
    """Return the files of a folder, and those below it, sorted, as paths relative to it."""
    names = []
    for parent, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if below and not name.startswith("."))
        for name in folders:
            if os.path.islink(os.path.join(parent, name)):
                # Refuses what leads outside; a link that stays inside is met in its own place.
                roots.locate(
                    os.path.relpath(os.path.join(parent, name), folder), path=folder, line=None
                )
        names += [
            os.path.relpath(os.path.join(parent, name), folder)
            for name in files
            if not name.startswith(".")
        ]
    return sorted(names)


def _raise(error: OSError) -> None:
    raise DataError(
        f"cannot be listed ({error.strerror}). Make it readable, or leave it out.",
        path=error.filename,
    ) from error


def _split(first: str, root: Path) -> str | None:
    return next((name for name in (first, root.name) if name.lower() in SPLIT_NAMES), None)


def _transcribed(whole: Utterance, path: Path, tier: str | None) -> list[Utterance]:
    """Return the utterances of a recording with the transcript in `path`."""
    if path.suffix.lower() in ANNOTATION_SUFFIXES:
        return _stretches(whole, path, tier)
    return [replace(whole, text=" ".join(read_text(path).split()) or None)]


def _stretches(whole: Utterance, path: Path, tier: str | None) -> list[Utterance]:
    """Return an utterance for each transcribed stretch, and those of the gaps between them.

    The whole, without text, where nothing is transcribed.
    """
    annotations = read_annotations(path, tier)
    if not annotations:
        return [whole]
    found = []
    end = 0.0
    begun: Counter[int] = Counter()
    for start, stop, text, speaker in annotations:
        found += _gap(whole, path, end, start)
        at = round(1000 * start)
        begun[at] += 1
        found.append(
            replace(
                whole,
                # Two people may begin at once.
                id=f"{whole.id}@{at}" + (f".{begun[at]}" if begun[at] > 1 else ""),
                start=start,
                duration=stop - start,
                text=" ".join(text.split()),
                speaker=speaker,
                source=as_text(f"{path} at {start:.3f} s"),
            )
        )
        end = max(end, stop)
    rest = _gap(whole, path, end, _seconds(whole.audio_path))
    if rest:  # headers round: the last piece goes on to the end of the file, wherever that is
        last = f"{whole.id}@{round(1000 * rest[-1].start)}-end"
        rest[-1] = replace(rest[-1], id=last, duration=None)
    return found + rest


def _gap(whole: Utterance, path: Path, start: float, stop: float) -> list[Utterance]:
    """Return audio without a transcript in pieces that are not too long to learn from."""
    found = []
    while stop - start > PAUSE_SECONDS:
        length = min(PIECE_SECONDS, stop - start)
        found.append(
            replace(
                whole,
                id=f"{whole.id}@{round(1000 * start)}-{round(1000 * (start + length))}",
                start=start,
                duration=length,
                source=as_text(f"{path} after {start:.3f} s"),
            )
        )
        start += length
    return found


def _seconds(path: Path) -> float:
    """Return how long a recording is by its header; 0 where it cannot be read."""
    try:
        return probe_audio(path).duration
    except AudioError:
        return 0.0  # whoever decodes it says why
