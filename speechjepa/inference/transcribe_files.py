"""Transcribe files and folders: find the audio, name the outputs, go on past bad files."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from torch import Tensor

from speechjepa.audio.files import AUDIO_SUFFIXES
from speechjepa.errors import AudioError, SpeechJepaError
from speechjepa.inference.chunks import Chunk
from speechjepa.inference.encoding import batch_samples, open_chunks
from speechjepa.inference.output_folder import folder_in_the_way, prepare_folder
from speechjepa.inference.read_ahead import encoded_files
from speechjepa.inference.transcribe import (
    TranscribeConfig,
    TranscriptionModel,
    check_options,
    transcribe,
)
from speechjepa.inference.writers import output_paths, write_result

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One file to transcribe."""

    path: Path
    name: Path
    """Its output, below the output folder and without suffix."""
    problem: str | None = None
    """Why it cannot be transcribed, if that is known already."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one file."""

    path: Path
    status: Literal["done", "skipped", "failed"]
    message: str = ""
    """Why it was skipped or failed, or what was left alone."""
    result: dict[str, Any] | None = None
    """The transcript, when done."""
    written: tuple[Path, ...] = ()
    seconds: float = 0.0
    """Time that it took."""


def find_recordings(inputs: Sequence[str | PathLike[str]]) -> list[Recording]:
    """Return every file that `inputs` name, once each, with an output name of its own.

    Files are taken whatever their suffix; folders are searched with their sub-folders for audio
    suffixes, in alphabetical order, and keep their structure in the output names. Files whose
    names differ in the suffix only keep it (`a.wav.srt`, `a.mp3.srt`); files of one name get their
    folder in front, and then a number.
    """
    found: list[tuple[Path, Path, str | None]] = []  # path, path relative to its folder, problem
    for given in map(Path, inputs):
        if not given.exists():
            found.append((given, Path(given.name), "there is no such file or folder"))
            continue
        if not given.is_dir():
            found.append((given, Path(given.name), None))
            continue
        files, problems = _audio_below(given)
        found += [(file, file.relative_to(given), None) for file in files]
        found += [(folder, folder.relative_to(given), problem) for folder, problem in problems]
        if not files and not problems:
            suffixes = " ".join(sorted(AUDIO_SUFFIXES))
            problem = f"the folder holds no audio file (looked for {suffixes})"
            found.append((given, Path(given.name or "folder"), problem))
    by_file: dict[str, tuple[Path, Path, str | None]] = {}
    for entry in found:
        by_file.setdefault(os.path.realpath(entry[0]), entry)
    kept = list(by_file.values())
    names = _distinct_names([(path, relative) for path, relative, _ in kept])
    return [
        Recording(path=path, name=name, problem=problem)
        for (path, _, problem), name in zip(kept, names, strict=True)
    ]


def transcribe_files(
    model: TranscriptionModel,
    inputs: Sequence[str | PathLike[str]],
    *,
    output_dir: str | PathLike[str] | None = None,
    formats: Sequence[str] = ("txt",),
    overwrite: bool = False,
    on_start: Callable[[Recording, int, int], None] | None = None,
    on_progress: Callable[[float], None] | None = None,
    on_segment: Callable[[dict[str, Any]], None] | None = None,
    **options: Any,
) -> Iterator[Outcome]:
    """Transcribe files in their order; a file that fails does not stop the others.

    Short files are encoded together, and the next ones are read while they are.

    Args:
        model: A fine-tuned model, from `speechjepa.load`.
        inputs: Files and folders, see `find_recordings`.
        output_dir: Where transcripts are written; None = nowhere, they are in the outcomes only.
        formats: Names from `speechjepa.inference.writers.FORMATS`.
        overwrite: Replace transcripts that are there; otherwise they are left as they are, and a
            file that has all of them is skipped.
        on_start: Called with each file before it is transcribed, its number from 1, and how many
            there are.
        on_progress: Called with the seconds of audio done so far in the present file.
        on_segment: Called with each segment of the present file as soon as it is final.
        **options: Fields of `TranscribeConfig`.

    Yields:
        What became of each file, as soon as it is known.

    Raises:
        ModelError: The model cannot do what is asked of it; raised before the first file.
        ConfigError: Nothing can be written to `output_dir`; raised before the first file.
    """
    config = TranscribeConfig(**options)
    check_options(model, config)
    if output_dir is not None:
        prepare_folder(Path(output_dir), "transcripts")
    save = partial(write_result, overwrite=overwrite, word_timestamps=config.word_timestamps)
    # Long segments are divided into subtitles between words; ELAN and Praat get a tier of them.
    timed = {"srt", "vtt", "eaf", "TextGrid"}
    options["word_timestamps"] = config.word_timestamps or bool(timed & set(formats))
    recordings = find_recordings(inputs)
    plans = [_plan(recording, output_dir, formats, overwrite) for recording in recordings]
    encodings = _encodings(model, [p.recording.path for p in plans if p.outcome is None], config)
    for number, plan in enumerate(plans, start=1):
        if plan.outcome is not None:
            yield plan.outcome
            continue
        if on_start is not None:
            on_start(plan.recording, number, len(recordings))
        hear = partial(transcribe, model, on_progress=on_progress, on_segment=on_segment, **options)
        yield _carry_out(plan, encodings, hear, save)


def _carry_out(
    plan: _Plan,
    encodings: Iterator[Iterable[tuple[int, Tensor]] | None],
    hear: Callable[..., dict[str, Any]],
    save: Callable[..., list[Path]],
) -> Outcome:
    path = plan.recording.path
    started = perf_counter()
    try:
        result = hear(path, encoded=next(encodings))
        written = save(result, plan.outputs, recording=path)
    except (SpeechJepaError, OSError) as error:
        return _failed(plan, error, save)
    return Outcome(
        path=path,
        status="done",
        message=f"left as they were: {', '.join(plan.kept)}" if plan.kept else "",
        result=result,
        written=tuple(written),
        seconds=perf_counter() - started,
    )


def _failed(
    plan: _Plan, error: SpeechJepaError | OSError, save: Callable[..., list[Path]]
) -> Outcome:
    """Say why, and keep what was heard of a damaged recording before the damage."""
    path, message = plan.recording.path, _reason(error)
    written: list[Path] = []
    if isinstance(error, AudioError) and error.heard is not None and plan.outputs:
        try:
            written = save(error.heard, plan.outputs, recording=path)
        except OSError as other:
            message += f" {_reason(other)}"
    if written:
        message += f" What comes before is in {', '.join(map(str, written))}."
    return Outcome(path=path, status="failed", message=message, written=tuple(written))


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is to be done with a recording."""

    recording: Recording
    outputs: list[Path]
    kept: list[str]
    """Outputs that are there already and stay."""
    outcome: Outcome | None
    """Why nothing is to be done, if so."""


def _plan(
    recording: Recording,
    output_dir: str | PathLike[str] | None,
    formats: Sequence[str],
    overwrite: bool,
) -> _Plan:
    outputs = _outputs(output_dir, recording, formats)
    problem = recording.problem or folder_in_the_way(outputs)
    kept = [] if overwrite else [str(output) for output in outputs if output.exists()]
    outcome = None
    if problem is not None:
        outcome = Outcome(path=recording.path, status="failed", message=problem)
    elif outputs and len(kept) == len(outputs):
        message = f"{', '.join(kept)} exists already; give --overwrite to replace it"
        outcome = Outcome(path=recording.path, status="skipped", message=message)
    return _Plan(recording=recording, outputs=outputs, kept=kept, outcome=outcome)


def _encodings(
    model: TranscriptionModel, paths: Sequence[Path], config: TranscribeConfig
) -> Iterator[Iterable[tuple[int, Tensor]] | None]:
    """Yield what each file is encoded as; None where it is better encoded by itself."""
    vad = model.vad if config.vad == "auto" else config.vad
    if vad == "none":
        return (None for _ in paths)

    def open_file(path: Path) -> Iterator[Chunk]:
        chunks = open_chunks(model, path, config)
        assert chunks is not None
        return chunks

    samples = batch_samples(model, config)
    return encoded_files(model, paths, open_file, batch_samples=samples)


def _outputs(
    output_dir: str | PathLike[str] | None, recording: Recording, formats: Sequence[str]
) -> list[Path]:
    if output_dir is None:
        return []
    return list(output_paths(Path(output_dir) / recording.name, formats).values())


def _reason(error: Exception) -> str:
    if isinstance(error, AudioError):  # the path is said already
        return str(error).removeprefix(f"{error.path}: ")
    return str(error)


def _audio_below(folder: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Return the audio files of a folder and its sub-folders, and the folders that keep them back.

    What is hidden is left out. Links to folders are not followed: they may lead in a circle.
    """
    base = folder.resolve()
    files: list[Path] = []
    problems: list[tuple[Path, str]] = []

    def note(error: OSError) -> None:
        problems.append((Path(error.filename), f"the folder cannot be listed ({error.strerror})"))

    for root, folders, names in os.walk(folder, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for link in (path for name in folders if (path := Path(root, name)).is_symlink()):
            target = link.resolve()
            if not target.is_relative_to(base) and not base.is_relative_to(target):
                logger.warning(
                    "%s: links to folders are not followed; to transcribe what is there, name %s",
                    link,
                    target,
                )
        files += [
            Path(root, name)
            for name in sorted(names)
            if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES
        ]
    return files, problems


def _distinct_names(files: Sequence[tuple[Path, Path]]) -> list[Path]:
    """Return an output name for each (path, path relative to its folder); no two are equal."""
    styles: list[list[Path]] = []
    for path, relative in files:
        has_suffix = relative.suffix.lower() in AUDIO_SUFFIXES
        styles.append(
            [
                relative.with_suffix("") if has_suffix else relative,
                relative,
                relative.with_name(f"{path.absolute().parent.name}-{relative.name}"),
            ]
        )
    chosen = [0] * len(files)
    while True:
        names = [options[style] for options, style in zip(styles, chosen, strict=True)]
        count = Counter(_key(name) for name in names)
        clashing = [
            i for i, name in enumerate(names) if count[_key(name)] > 1 and chosen[i] + 1 < 3
        ]
        if not clashing:
            break
        for i in clashing:
            chosen[i] += 1
    taken: set[str] = {_key(name) for name in names if count[_key(name)] == 1}
    for i, name in enumerate(names):
        if count[_key(name)] == 1:
            continue
        number = 1
        numbered = name
        while _key(numbered) in taken:
            number += 1
            numbered = name.with_name(f"{name.name}-{number}")
        taken.add(_key(numbered))
        names[i] = numbered
    return names


def _key(name: Path) -> str:
    """Names that differ in case only are one file on some systems."""
    return str(name).casefold()
