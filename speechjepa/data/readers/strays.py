"""Files of a folder that look like transcripts and are not read: what the doctor says of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from speechjepa.data.findings import Finding, Place, number
from speechjepa.data.readers.beside import TRANSCRIPT_SUFFIXES
from speechjepa.data.readers.common import as_text

DOCUMENT_SUFFIXES = (".doc", ".docx", ".odt", ".rtf", ".xls", ".xlsx", ".ods")
"""What word processors and spreadsheets write."""
LIST_SHARE = 0.5
"""A text of whose lines more than this name recordings is a list of them, no transcript."""
LIST_BYTES = 65536
"""As much of a text is looked at to tell a list."""
NAMED = 3
"""Files that a title shows."""


def stray_findings(
    root: Path,
    files: Sequence[str],
    recordings: Sequence[str],
    beside: Mapping[str, Sequence[Path]],
) -> list[Finding]:
    """Return transcripts that belong to no recording, and documents, which are not read.

    Args:
        root: The folder.
        files: All its files, relative to it.
        recordings: Those of them that are recordings.
        beside: The transcripts of each recording.
    """
    owned = {str(path) for paths in beside.values() for path in paths}
    names = {form for name in recordings for form in _forms(name)}
    strays, documents = [], []
    for name in files:
        suffix = PurePath(name).suffix.lower()
        if suffix in TRANSCRIPT_SUFFIXES and str(root / name) not in owned:
            if (root / name).is_file() and not (suffix == ".txt" and _is_list(root / name, names)):
                strays.append(name)
        elif suffix in DOCUMENT_SUFFIXES and not PurePath(name).name.startswith("~$"):
            documents.append(name)  # ~$ are what Word leaves while it is open
    bare = [name for name in recordings if name not in beside]
    return [*_strays(root, strays, bare), *_documents(root, documents, recordings, beside)]


def _strays(root: Path, strays: Sequence[str], bare: Sequence[str]) -> list[Finding]:
    """Return texts without a recording, first those that recordings without a text may want."""
    if not strays:
        return []
    by_loose: dict[str, str] = {}
    for name in bare:
        by_loose.setdefault(_loose(name), name)
    near = {name: by_loose[_loose(name)] for name in strays if _loose(name) in by_loose}
    strays = sorted(strays, key=lambda name: name not in near)
    return [
        Finding(
            code="stray_transcripts",
            severity="warning" if near else "note",
            title=f"{number(len(strays), 'text')} with no recording of that name, not read: "
            + _listed(strays),
            meaning="A transcript lies beside its recording and has its name to the letter; "
            "capitals and spaces count.",
            advice="Put what is a transcript beside its recording, and name it like that. Other "
            "texts may stay.",
            places=tuple(
                _place(root, name, f'is it for "{as_text(near[name])}"?' if name in near else "")
                for name in strays
            ),
        )
    ]


def _documents(
    root: Path,
    documents: Sequence[str],
    recordings: Sequence[str],
    beside: Mapping[str, Sequence[Path]],
) -> list[Finding]:
    if not documents:
        return []
    stems = {_loose(name) for name in recordings}
    is_likely = not beside or any(_loose(name) in stems for name in documents)
    return [
        Finding(
            code="documents",
            severity="warning" if is_likely else "note",
            title=f"{number(len(documents), 'document')} of Word, Excel or the like, not read: "
            + _listed(documents),
            meaning="Transcripts in Word or Excel are not read.",
            advice="Save them as .txt (plain text, UTF-8), one beside each recording and named "
            "like it; a table as metadata.csv with the columns file_name and text.",
            places=tuple(_place(root, name) for name in documents),
        )
    ]


def empty_transcripts(empty: Mapping[str, Path]) -> list[Finding]:
    """Return the transcripts in which nothing stands, by the id of their recording."""
    if not empty:
        return []
    return [
        Finding(
            code="empty_transcript_files",
            severity="warning",
            title=f"{number(len(empty), 'empty transcript')}: "
            + _listed([path.name for path in empty.values()]),
            meaning="Their recordings count as not transcribed.",
            advice="Write what is said, or take the files out of the folder.",
            places=tuple(
                Place(source=as_text(str(path)), id=name, split="") for name, path in empty.items()
            ),
        )
    ]


def _is_list(path: Path, names: set[str]) -> bool:
    """Whether a text file names recordings, one in a line, such as those that `select` writes."""
    try:
        with path.open("rb") as file:
            text = file.read(LIST_BYTES).decode("utf-8-sig", "replace")
    except OSError:
        return False
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    known = sum(
        bool(names & {_composed(form) for form in (line, PurePath(line).name, line.split("@")[0])})
        for line in lines
    )
    return known > LIST_SHARE * len(lines)


def _forms(name: str) -> set[str]:
    """Return what a list may call a recording: its id or its file, with or without folders."""
    path = PurePath(name)
    return {_composed(form) for form in (name, path.name, str(path.with_suffix("")), path.stem)}


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _loose(name: str) -> str:
    """Return a name without folder, suffix, capitals, spaces and signs between words."""
    folded = _composed(PurePath(name).stem).casefold()
    return "".join(c for c in folded if not c.isspace() and c not in "_-.")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(map(as_text, names[:NAMED])) + more


def _place(root: Path, name: str, detail: str = "") -> Place:
    return Place(source=as_text(str(root / name)), id="", split="", detail=detail)
