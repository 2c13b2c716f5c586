"""fairseq: `<split>.tsv` (a root, then path and number of samples) with `.wrd` or `.ltr`.

https://github.com/facebookresearch/fairseq/tree/main/examples/wav2vec
"""

from __future__ import annotations

import os
from pathlib import Path

from speechjepa.data.readers.common import (
    AudioRoots,
    ReadOptions,
    finish,
    id_of,
)
from speechjepa.data.readers.text_files import read_lines, read_text
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError


def read_fairseq(location: Path, options: ReadOptions) -> list[Utterance]:
    """Read a fairseq `tsv`, or all of a folder; the file's name is the split.

    The transcript of line n is line n of the `.wrd` beside it, else of the `.ltr`. The root on the
    first line may be any folder; if it is not on this machine the data root, if given, stands for
    it. Paths below it may not leave it. Numbers of samples go to `extra["num_samples"]`: the file
    does not say their rate.
    """
    if location.is_dir():
        files = sorted(path for path in location.glob("*.tsv") if is_fairseq_tsv(path))
        if options.split is not None:
            files = [path for path in files if path.stem == options.split] or files
    else:
        files = [location]
    if not files:
        raise DataError(
            "holds no fairseq .tsv: its first line is a folder, the others are `path<TAB>number"
            " of samples`.",
            path=location,
        )
    utterances: list[Utterance] = []
    tried: list[Path] = []
    for path in files:
        roots = _roots(path, options)
        tried.extend(roots.folders)
        utterances.extend(_read_tsv(path, roots, prefix=path.stem if len(files) > 1 else ""))
    return finish(utterances, location, tried)


def is_fairseq_tsv(path: Path) -> bool:
    """Whether a file looks like a fairseq tsv: a line without tab, then `path<TAB>integer`."""
    lines = []
    for _, line in read_lines(path):
        lines.append(line.split("\t"))
        if len(lines) == 2:
            break
    return (
        len(lines) == 2
        and len(lines[0]) == 1
        and len(lines[1]) == 2
        and lines[1][1].strip().isdigit()
    )


def _roots(path: Path, options: ReadOptions) -> AudioRoots:
    first = next(iter(read_lines(path)), None)
    if first is None:
        raise DataError("is empty: its first line must be the audio folder.", path=path, line=1)
    line, root = first[0], first[1].strip()
    if "\t" in root:
        raise DataError(
            f"must start with the audio folder alone on a line, but starts with {root!r} instead.",
            path=path,
            line=line,
        )
    declared = Path(os.path.normpath(os.path.join(os.path.abspath(path.parent), root)))
    folders = [declared]
    if options.data_root is not None:
        folders.append(Path(os.path.abspath(options.data_root)))
        if not declared.is_dir():
            folders.reverse()
    return AudioRoots(folders=tuple(folders))


def _read_tsv(path: Path, roots: AudioRoots, prefix: str) -> list[Utterance]:
    lines = list(read_lines(path))[1:]
    transcripts = _read_transcripts(path, len(lines))
    utterances = []
    for index, (line, content) in enumerate(lines):
        name, tab, samples = content.partition("\t")
        if not tab or not samples.strip().isdigit():
            raise DataError(
                f"must be `path<TAB>number of samples`, but is {content!r} instead.",
                path=path,
                line=line,
            )
        identity = id_of(name)
        utterances.append(
            Utterance(
                id=f"{prefix}/{identity}" if prefix else identity,
                audio_path=roots.locate(name, path=path, line=line),
                text=transcripts[index] if transcripts else None,
                split=path.stem,
                extra={"num_samples": int(samples)},
                source=f"{path}:{line}",
            )
        )
    return utterances


def _read_transcripts(path: Path, count: int) -> list[str | None]:
    for suffix in (".wrd", ".ltr"):
        beside = path.with_suffix(suffix)
        if not beside.is_file():
            continue
        lines = read_text(beside).removesuffix("\n").split("\n")
        if len(lines) != count:
            raise DataError(
                f"has {len(lines)} lines, but {path.name} names {count} files: line n must be the"
                " transcript of file n.",
                path=beside,
                line=min(len(lines), count) + 1,
            )
        if suffix == ".ltr":
            lines = [line.replace(" ", "").replace("|", " ") for line in lines]
        return [line.strip() or None for line in lines]
    return []
