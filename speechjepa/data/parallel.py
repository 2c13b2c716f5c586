"""Parallel corpora that others published, as manifests of pairs: CVSS and FLEURS.

Nothing is fetched here; the corpora lie on the disk as their publishers pack them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from speechjepa.data.readers.manifest import write_manifest
from speechjepa.data.readers.text_files import read_lines
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError

logger = logging.getLogger(__name__)


def write_cvss(cvss: Path, common_voice: Path, language: str, *, target: str = "en") -> list[Path]:
    """Join CVSS (speech translated from Common Voice) with the recordings that it translates.

    CVSS, https://arxiv.org/abs/2201.03713: `train.tsv`, `dev.tsv` and `test.tsv` of a clip's name
    and its translation, and `<split>/<clip>.wav`. Common Voice 4: `clips/<clip>` and, for
    transcripts and speakers, `validated.tsv`.

    Args:
        cvss: The unpacked corpus of one pair of languages; gets `pairs-<split>.jsonl`.
        common_voice: The folder of the source language.
        language: Code of the source.
        target: Code of the target.

    Returns:
        The manifests.

    Raises:
        DataError: A file is missing or damaged, or no clip of a split is there.
    """
    said = _sentences(common_voice / "validated.tsv")
    written = []
    for split in ("train", "dev", "test"):
        table = cvss / f"{split}.tsv"
        if not table.is_file():
            continue
        found = [
            utterance
            for line, clip, translation in _two_columns(table)
            if (
                utterance := _cvss_row(
                    cvss / split, common_voice, clip, translation, said, f"{table}:{line}"
                )
            )
        ]
        if not found:
            raise DataError(
                f"none of its clips is in {common_voice / 'clips'}, or none of their translations "
                f"in {cvss / split}: unpack both corpora there",
                path=table,
            )
        rows = [_with_language(utterance, language, target) for utterance in found]
        written.append(write_manifest(rows, cvss / f"pairs-{split}.jsonl", overwrite=True))
    if not written:
        raise DataError("holds none of train.tsv, dev.tsv and test.tsv", path=cvss)
    return written


def _cvss_row(
    targets: Path,
    common_voice: Path,
    clip: str,
    translation: str,
    said: dict[str, tuple[str, str]],
    source: str,
) -> Utterance | None:
    audio, target = common_voice / "clips" / clip, targets / f"{clip}.wav"
    if not audio.is_file() or not target.is_file():
        return None
    text, speaker = said.get(clip, ("", ""))
    return Utterance(
        id=Path(clip).stem,
        audio_path=audio.absolute(),
        text=text or None,
        speaker=speaker or None,
        extra={"target_audio": str(target.absolute()), "translation": translation},
        source=source,
    )


def _sentences(table: Path) -> dict[str, tuple[str, str]]:
    """Return transcript and speaker of each clip, {} where there is no table."""
    if not table.is_file():
        return {}
    lines = iter(read_lines(table))
    _, header = next(lines, (1, ""))
    names = header.split("\t")
    missing = {"path", "sentence", "client_id"} - set(names)
    if missing:
        raise DataError(f"lacks the column {', '.join(sorted(missing))}", path=table, line=1)
    places = [names.index(name) for name in ("path", "sentence", "client_id")]
    found = {}
    for line, content in lines:
        cells = content.split("\t")
        if len(cells) <= max(places):
            raise DataError(
                f"has {len(cells)} columns where there are {len(names)}", path=table, line=line
            )
        clip, sentence, speaker = (cells[place] for place in places)
        found[clip] = sentence, speaker
    return found


def _two_columns(table: Path) -> Iterator[tuple[int, str, str]]:
    for line, content in read_lines(table):
        cells = content.split("\t")
        if len(cells) != 2 or not all(cell.strip() for cell in cells):
            raise DataError(
                f"must hold a clip and its translation, but holds {content!r}",
                path=table,
                line=line,
            )
        yield line, cells[0].strip(), cells[1].strip()


def _with_language(utterance: Utterance, language: str, target: str) -> Utterance:
    extra = {name: {target: value} for name, value in utterance.extra.items()}
    return Utterance(**{**vars(utterance), "language": language, "extra": extra})


FLEURS_COLUMNS = 7
"""Of FLEURS's tables: sentence, file, text as written, text, characters, samples, gender."""


def write_fleurs(root: Path, source: str, target: str, out: Path) -> list[Path]:
    """Join two languages of FLEURS, which read the same sentences.

    FLEURS, https://arxiv.org/abs/2205.12446: `<language>/<split>.tsv` without a header, and
    `<language>/audio/<split>/`. A sentence is read by up to three people; each of the source's
    recordings is paired with the first of the target's.

    Args:
        root: Folder of the languages.
        source: Name of a language's folder, `es_419`.
        target: Likewise, `en_us`.
        out: Gets `<split>.jsonl`.

    Returns:
        The manifests.

    Raises:
        DataError: A file is missing or damaged, or no sentence is in both.
    """
    written = []
    for split in ("train", "dev", "test"):
        if not (root / source / f"{split}.tsv").is_file():
            continue
        others: dict[str, tuple[Path, str]] = {}
        for _, sentence, audio, text in _fleurs_rows(root / target, split):
            others.setdefault(sentence, (audio, text))
        rows = [
            Utterance(
                id=audio.stem,
                audio_path=audio,
                text=text,
                language=source.partition("_")[0],
                extra={
                    "key": sentence,
                    "target_audio": {target: str(others[sentence][0])},
                    "translation": {target: others[sentence][1]},
                },
                source=f"{root / source / split}.tsv:{line}",
            )
            for line, sentence, audio, text in _fleurs_rows(root / source, split)
            if sentence in others
        ]
        if not rows:
            raise DataError(
                f"none of its sentences is in {target}", path=root / source / f"{split}.tsv"
            )
        written.append(write_manifest(rows, out / f"{split}.jsonl", overwrite=True))
    if not written:
        raise DataError("holds none of train.tsv, dev.tsv and test.tsv", path=root / source)
    return written


def _fleurs_rows(folder: Path, split: str) -> Iterator[tuple[int, str, Path, str]]:
    table = folder / f"{split}.tsv"
    if not table.is_file():
        raise DataError("there is no such table of FLEURS", path=table)
    for line, content in read_lines(table):
        cells = content.split("\t")
        if len(cells) != FLEURS_COLUMNS:
            raise DataError(
                f"must have {FLEURS_COLUMNS} columns, but has {len(cells)} instead",
                path=table,
                line=line,
            )
        audio = folder / "audio" / split / cells[1]
        if audio.is_file():
            yield line, cells[0], audio.absolute(), cells[3]
