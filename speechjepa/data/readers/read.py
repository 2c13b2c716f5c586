"""Find out what kind of corpus something is, and read it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from speechjepa.audio.files import AUDIO_SUFFIXES
from speechjepa.data.findings import Finding
from speechjepa.data.readers.audiofolder import METADATA_NAMES, find_metadata, read_audiofolder
from speechjepa.data.readers.common import ReadOptions, refuse_doubled_ids
from speechjepa.data.readers.common_voice import is_common_voice_tsv, read_common_voice
from speechjepa.data.readers.fairseq import is_fairseq_tsv, read_fairseq
from speechjepa.data.readers.folder import read_folder
from speechjepa.data.readers.hf import PREFIX, read_hf
from speechjepa.data.readers.kaldi import read_kaldi
from speechjepa.data.readers.manifest import read_manifest, read_nemo
from speechjepa.data.readers.table import read_table
from speechjepa.data.readers.text_files import read_json_lines, read_lines
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError

READERS: dict[str, Callable[[Path, ReadOptions], list[Utterance]]] = {
    "folder": read_folder,
    "audiofolder": read_audiofolder,
    "nemo": read_nemo,
    "kaldi": read_kaldi,
    "fairseq": read_fairseq,
    "common_voice": read_common_voice,
    "table": read_table,
    "manifest": read_manifest,
}
"""Format -> reader; `hf` is apart, since its location is not a path."""
FORMATS = ("auto", *READERS, "hf")
_FILE_FORMATS = {"nemo", "table", "manifest"}
_LIST_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
logger = logging.getLogger(__name__)


def read_corpus(
    location: str | os.PathLike[str],
    *,
    format: str = "auto",
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    data_root: str | os.PathLike[str] | None = None,
    findings: list[Finding] | None = None,
) -> list[Utterance]:
    """Read a corpus in any known format.

    Args:
        location: A folder or a manifest file, relative to the data root or to the current folder;
            or `hf:NAME[:CONFIG[:SPLIT]]`.
        format: One of FORMATS; "auto" looks at what is there.
        split: Keep this split only.
        columns: Field -> column where the usual names do not do, e.g. {"text": "orthography"};
            fields: audio, id, start, duration, text, speaker, language, split.
        data_root: Folder that audio may lie in besides the manifest's own; relative audio paths
            that are not found beside the manifest are looked for below it.
        findings: Gets what is wrong with single files of a folder, for `check_corpus`, which also
            names ids that are used twice; without it, errors are raised and warnings logged.

    Returns:
        The utterances in the order of the corpus; ids are unique. Audio files are not opened,
        but for the headers of those that are annotated in part: one that is missing is left to
        whoever reads it, unless all are.

    Raises:
        DataError: The corpus is missing, malformed or empty, a column is unknown, an id is taken
            twice, an audio path leaves the data folder, or none of the audio is there.
    """
    if format not in FORMATS:
        raise DataError(f'the format "{format}" is not known; it is one of {", ".join(FORMATS)}.')
    options = ReadOptions(
        split=split,
        columns=dict(columns or {}),
        data_root=None if data_root is None else Path(data_root).expanduser(),
        findings=findings,
    )
    if not str(location):
        raise DataError("the place of the data is empty. Name a folder, a manifest or hf:NAME.")
    if format == "hf" or str(location).startswith(PREFIX):
        return _finish(read_hf(str(location), options), location, options)
    path = _find(Path(location).expanduser(), options.data_root)
    if format == "auto":
        format = detect_format(path)
    if format in _FILE_FORMATS and path.is_dir():
        path = _only_file(path, format)
    return _finish(READERS[format](path, options), path, options)


def detect_format(path: Path) -> str:
    """Return the format of a folder or a manifest file; DataError if it has none."""
    if path.is_dir():
        return _detect_folder(path)
    suffix = path.suffix.lower()
    if path.name == "wav.scp":
        return "kaldi"
    if path.name in METADATA_NAMES:
        return "audiofolder"
    if suffix in AUDIO_SUFFIXES:
        return "folder"
    if suffix in (".jsonl", ".json", ".ndjson"):
        return _detect_json_lines(path)
    if suffix in (".tsv", ".csv", ".txt"):
        first = next(iter(read_lines(path)), None)
        if first is None:
            raise DataError("is empty: there is nothing to read.", path=path, line=1)
        if suffix == ".tsv" and is_common_voice_tsv(path):
            return "common_voice"
        return "fairseq" if suffix == ".tsv" and is_fairseq_tsv(path) else "table"
    raise DataError(
        "is no manifest that can be told by its name (.jsonl, .csv, .tsv, wav.scp). Name its"
        f" format: {', '.join(READERS)}.",
        path=path,
    )


def _lists(folder: Path) -> list[str]:
    """Return the files of a folder, and of those in it, that may list transcripts."""
    names = sorted(
        path.relative_to(folder)
        for path in (*folder.glob("*"), *folder.glob("*/*"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    recordings = {name.with_suffix("") for name in names if name.suffix.lower() in AUDIO_SUFFIXES}
    return [
        str(name)
        for name in names
        if name.suffix.lower() in _LIST_SUFFIXES
        and name.with_suffix("") not in recordings  # a.json beside a.wav is no list
        and (folder / name).is_file()
    ]


def _detect_folder(folder: Path) -> str:
    if (folder / "wav.scp").is_file():
        return "kaldi"
    if find_metadata(folder):
        return "audiofolder"
    tables = sorted(folder.glob("*.tsv"))
    if any(is_common_voice_tsv(path) for path in tables):
        return "common_voice"
    if any(is_fairseq_tsv(path) for path in tables):
        return "fairseq"
    if (folder / "manifest.jsonl").is_file():
        return _detect_json_lines(folder / "manifest.jsonl")
    for _, _, files in os.walk(folder):
        if any(os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES for name in files):
            if found := _lists(folder):
                lists = [*found[:3], *([f"{len(found) - 3} more"] if len(found) > 3 else [])]
                logger.warning(
                    "%s is read as a folder of audio with transcripts beside it; not read: %s. If "
                    "one holds the transcripts, name it instead of the folder (convert a .parquet "
                    "to .csv first).",
                    folder,
                    ", ".join(lists),
                )
            return "folder"
    raise DataError(
        "holds no corpus: no audio file, wav.scp, metadata.csv, metadata.jsonl, manifest.jsonl,"
        " Common Voice or fairseq .tsv. Is it the right folder?",
        path=folder,
    )


def _detect_json_lines(path: Path) -> str:
    rows = read_json_lines(path)
    if not rows:
        raise DataError("is empty: there is nothing to read.", path=path, line=1)
    line, keys = rows[0]
    if "audio_filepath" in keys:
        return "manifest" if "id" in keys else "nemo"
    if "file_name" in keys:
        return "audiofolder"
    if not {"supervisions", "sources", "recording_id"}.isdisjoint(keys):
        raise DataError(
            "is a manifest of Lhotse, which is not read. Make a Kaldi folder of it with Lhotse:"
            " `lhotse kaldi export RECORDINGS SUPERVISIONS FOLDER`, and name that.",
            path=path,
            line=line,
        )
    raise DataError(
        f"has neither audio_filepath (NeMo) nor file_name (AudioFolder); its keys are"
        f" {', '.join(keys) or 'none'}. Rename the one that holds the audio to audio_filepath, or"
        " say which it is. In a recipe: `format: nemo` and `columns: {audio: KEY}`. On the command"
        f" line: `speechjepa check {path} --format nemo --column audio=KEY --write NEW.jsonl`,"
        " which writes a manifest that every command reads.",
        path=path,
        line=line,
    )


def _find(location: Path, data_root: Path | None) -> Path:
    tried = [location] if data_root is None else [data_root / location, location]
    for path in tried:
        if path.exists():
            return Path(os.path.abspath(path))
    raise DataError(
        "does not exist"
        + (f", nor does {tried[0]}" if len(tried) > 1 and tried[0] != location else "")
        + ". Check the name, or give the folder of the corpora as the data root (--data-root).",
        path=location,
    )


def _only_file(folder: Path, format: str) -> Path:
    suffixes = (".csv", ".tsv") if format == "table" else (".jsonl", ".json")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    if len(files) == 1:
        return files[0]
    found = ", ".join(path.name for path in files) or "none"
    raise DataError(
        f'must hold one {" or ".join(suffixes)} file to be read as "{format}", but holds {found}.'
        " Name the file itself.",
        path=folder,
    )


def _finish(utterances: list[Utterance], location: object, options: ReadOptions) -> list[Utterance]:
    # Who asks for findings has the doubles of each split named by `check_corpus`.
    refuse_doubled_ids(utterances, within_splits=options.findings is None)
    split = options.split
    if split is None:
        return utterances
    kept = [utterance for utterance in utterances if utterance.split == split]
    if not kept:
        known = sorted({utterance.split for utterance in utterances if utterance.split})
        raise DataError(
            f'has no split "{split}"; it has {", ".join(known) or "none"}.', path=str(location)
        )
    return kept
