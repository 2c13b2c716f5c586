"""What stands beside the recordings of a folder, and which transcript of each is taken."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath

from speechjepa.data.findings import Finding, Place, number, place
from speechjepa.data.readers.annotations import ANNOTATION_SUFFIXES
from speechjepa.data.readers.common import as_text
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError

TRANSCRIPT_SUFFIXES = (*ANNOTATION_SUFFIXES, ".txt")
"""Of files that were changed at the same time, the first kind is taken."""
SAME_TIME_SECONDS = 2.0
"""Memory sticks round times to this, and `transcribe -f all` writes several kinds at once."""

LOSSLESS_SUFFIXES = frozenset(".wav .wave .flac .aif .aifc .aiff .au .caf .w64".split())
VIDEO_SUFFIXES = frozenset(".avi .flv .mkv .mov .mp4 .mpeg .mpg .ogv .ts .webm .wmv".split())
NAMED = 3
"""Bad files that an error shows."""


def transcripts_beside(
    root: Path, files: Sequence[str], recordings: Sequence[str]
) -> dict[str, list[Path]]:
    """Return the transcripts beside each recording that has any; the first is the one to take.

    It is the one that was changed last: who corrects in ELAN leaves the `.txt` as it was. Names
    are compared with their accents composed: a copy through macOS may have decomposed one.
    `a.wav.txt` is beside `a.wav`, as `transcribe` names it where there is an `a.mp3` too, unless
    there is an `a.wav.mp3`.

    Args:
        root: The folder.
        files: All its files, relative to it.
        recordings: Those of them that are recordings.
    """
    by_stem: dict[str, list[str]] = defaultdict(list)
    by_name: dict[str, list[str]] = defaultdict(list)
    for name in recordings:
        by_stem[_key(name, stem=True)].append(name)
        by_name[_key(name, stem=False)].append(name)
    found: dict[str, list[Path]] = {}
    for name in files:
        if PurePath(name).suffix.lower() in TRANSCRIPT_SUFFIXES and (root / name).is_file():
            key = _key(name, stem=True)
            for owner in by_stem.get(key) or by_name.get(key) or ():
                found.setdefault(owner, []).append(root / name)
    return {owner: _last_first(root / owner, paths) for owner, paths in found.items()}


def _last_first(recording: Path, paths: list[Path]) -> list[Path]:
    if len(paths) == 1:
        return paths
    times = {path: path.stat().st_mtime for path in paths}
    fresh = [path for path in paths if max(times.values()) - times[path] <= SAME_TIME_SECONDS]

    def order(path: Path) -> tuple[bool, int, bool, str]:
        kind = TRANSCRIPT_SUFFIXES.index(path.suffix.lower())
        exact = str(path) == str(recording.with_suffix(path.suffix.lower()))
        return path not in fresh, kind, not exact, str(path)

    return sorted(paths, key=order)


def _key(name: str, *, stem: bool) -> str:
    path = PurePath(name)
    return unicodedata.normalize("NFC", str(path.with_suffix("") if stem else path))


def several_transcripts(beside: Mapping[str, Sequence[Path]]) -> list[Finding]:
    """Return which transcript was taken of recordings that have several."""
    several = {name: paths for name, paths in beside.items() if len(paths) > 1}
    if not several:
        return []
    kinds = Counter(paths[0].suffix for paths in several.values())
    taken = ", ".join(f"{kind} of {count:,}" for kind, count in kinds.most_common())
    return [
        Finding(
            code="several_transcripts",
            severity="warning",
            title=f"{number(len(several), 'recording')} with several transcripts beside them; "
            f"taken: {taken}",
            meaning="The one that was changed last is taken (.eaf, then .TextGrid, if they were "
            "changed together); the others are not read.",
            advice="See that it is the right one: a copy may have changed the times. Take the "
            "others out of the folder.",
            places=tuple(
                Place(
                    source=as_text(str(paths[0])),
                    id="",
                    split="",
                    detail=f"taken for {as_text(PurePath(name).name)}; not read: "
                    + ", ".join(as_text(path.name) for path in paths[1:]),
                )
                for name, paths in several.items()
            ),
        )
    ]


def copies_beside(
    recordings: Sequence[str], beside: Mapping[str, Sequence[Path]]
) -> dict[str, str]:
    """Return the recordings that are taken for copies, each with the one to read.

    `a.wav` and `a.mp3` are copies where one of them is transcribed, unless both are, each by files
    that say other things. Read as two recordings, a sentence would be learnt from and measured on.
    Sound without loss is preferred, then sound to video.
    """
    same: dict[str, list[str]] = defaultdict(list)
    for name in recordings:
        same[_key(name, stem=True)].append(name)
    copies: dict[str, str] = {}
    for names in (names for names in same.values() if len(names) > 1):
        kept: dict[bytes, str] = {}
        for name in sorted((n for n in names if n in beside), key=_worth):
            said = _content(beside[name][0])
            if kept.setdefault(said, name) != name:
                copies[name] = kept[said]
        if kept:
            first = next(iter(kept.values()))
            copies |= dict.fromkeys((n for n in names if n not in beside), first)
    return copies


def _content(path: Path) -> bytes:
    """Return what a transcript holds; what cannot be read is like no other, and said elsewhere."""
    try:
        return path.read_bytes()
    except OSError:
        return str(path).encode(errors="surrogateescape")


def _worth(name: str) -> tuple[int, str]:
    suffix = PurePath(name).suffix.lower()
    return (0 if suffix in LOSSLESS_SUFFIXES else 2 if suffix in VIDEO_SUFFIXES else 1), name


def copied_recordings(root: Path, copies: Mapping[str, str]) -> list[Finding]:
    """Return which recordings are not read, as another of their name is transcribed."""
    if not copies:
        return []
    return [
        Finding(
            code="copied_recordings",
            severity="warning",
            title=f"{number(len(copies), 'recording')} left out: another of the same name is "
            "transcribed",
            meaning="a.wav and a.mp3 are taken for copies, of which one is read: a sentence that "
            "comes twice would be learnt from and measured on.",
            advice="If they are different recordings, give them different names.",
            places=tuple(
                Place(
                    source=as_text(str(root / name)),
                    id="",
                    split="",
                    detail=f"{as_text(PurePath(kept).name)} is read",
                )
                for name, kept in copies.items()
            ),
        )
    ]


def partly_transcribed(gaps: Iterable[Sequence[Utterance]]) -> list[Finding]:
    """Return which recordings are transcribed in part.

    Args:
        gaps: The pieces without a transcript of each recording.
    """
    partly = [group for group in gaps if group]
    if not partly:
        return []
    pieces = number(sum(map(len, partly)), "piece")
    return [
        Finding(
            code="partly_transcribed",
            severity="note",
            title=f"{number(len(partly), 'recording')} transcribed in part; "
            f"what lies between the stretches gives {pieces} without a transcript",
            meaning="Each piece counts as a recording: its sound is used like that of recordings "
            "without a transcript.",
            advice="Nothing needs to be done.",
            places=tuple(
                place(group[0], group[0].split or "", number(len(group), "piece"))
                for group in partly
            ),
        )
    ]


def unreadable_transcripts(bad: Sequence[tuple[Utterance, DataError]]) -> list[Finding]:
    """Return the transcripts that cannot be read, each with the reason."""
    if not bad:
        return []
    return [
        Finding(
            code="unreadable_transcripts",
            severity="error",
            title=f"{number(len(bad), 'transcript')} cannot be read",
            meaning="Training does not begin with them: what was transcribed would be lost.",
            advice="Mend the files that are named, or take them out of the folder.",
            places=tuple(_place_of(utterance, error) for utterance, error in bad),
        )
    ]


def _place_of(utterance: Utterance, error: DataError) -> Place:
    source = str(error.path) if error.line is None else f"{error.path}:{error.line}"
    return Place(
        source=as_text(source),
        id=utterance.id,
        split=utterance.split or "",
        detail=as_text(str(error).removeprefix(f"{source}: ")),
    )


def all_of(bad: Sequence[tuple[Utterance, DataError]], location: Path) -> DataError:
    """Return one error for all the transcripts that cannot be read."""
    if len(bad) == 1:
        return bad[0][1]
    named = "".join(f"\n  {error}" for _, error in bad[:NAMED])
    more = f"\n  and {len(bad) - NAMED:,} more" if len(bad) > NAMED else ""
    return DataError(
        f"{number(len(bad), 'transcript')} cannot be read; `speechjepa check {location}` names "
        f"each:{named}{more}",
        path=location,
    )
