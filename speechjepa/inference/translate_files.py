"""Translate files, each into a wav and a json beside the others, in memory that does not grow."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from speechjepa.data.readers.common import as_text
from speechjepa.errors import AudioError, ModelError
from speechjepa.inference.output_folder import (
    folder_in_the_way,
    in_place_of_inputs,
    places_of,
    prepare_folder,
)
from speechjepa.inference.transcribe_files import Outcome, Recording, find_recordings
from speechjepa.inference.translate import GAP_SECONDS, FileTranslator, TranslateConfig

if TYPE_CHECKING:
    from speechjepa.inference.model import SpeechModel

_BLOCK = 1 << 20
"""Samples of silence that are written at once."""


def translate_files(
    model: SpeechModel,
    inputs: Sequence[str | PathLike[str]],
    output_dir: str | PathLike[str],
    *,
    overwrite: bool = False,
    on_start: Callable[[Recording, int, int], None] = lambda recording, number, count: None,
    on_progress: Callable[[float], None] = lambda seconds: None,
    **options: Any,
) -> Iterator[Outcome]:
    """Translate files one after the other; a file that fails does not stop the others.

    Args:
        model: One that was trained to translate.
        inputs: Files and folders, see `find_recordings`.
        output_dir: Gets a wav, where the model has a voice, and a json for each.
        overwrite: Replace what is there; otherwise a file that has both is skipped. A recording
            that is read is never replaced.
        on_start: Called with each file, its number from 1, and how many there are.
        on_progress: Called with the seconds of audio done so far in the present file.
        **options: Fields of `TranslateConfig`.

    Yields:
        What became of each file, as soon as it is known.

    Raises:
        ModelError: The model does not translate; raised before the first file.
        ConfigError: Nothing can be written to `output_dir`; raised before the first file.
    """
    translator = FileTranslator(model, TranslateConfig(**options))
    folder = Path(output_dir)
    prepare_folder(folder, "translations")
    suffixes = (".wav", ".json") if translator.translator.has_voice else (".json",)
    recordings = find_recordings(inputs)
    read = places_of(recording.path for recording in recordings)
    for number, recording in enumerate(recordings, start=1):
        outputs = [folder / recording.name.with_name(recording.name.name + s) for s in suffixes]
        problem = recording.problem or folder_in_the_way(outputs)
        problem = problem or in_place_of_inputs(outputs, read)
        if problem is not None:
            yield Outcome(path=recording.path, status="failed", message=problem)
            continue
        there = [str(output) for output in outputs if output.exists()]
        if there and not overwrite:
            message = f"{', '.join(there)} exists already; give --overwrite to replace it"
            whole = len(there) == len(outputs)
            if not whole:  # of a translation that was not finished, or somebody else's
                message = f"{there[0]} is there, but not the other of the two files: move it away, "
                message += "or give --overwrite to replace it"
            yield Outcome(
                path=recording.path, status="skipped" if whole else "failed", message=message
            )
            continue
        on_start(recording, number, len(recordings))
        started = perf_counter()
        try:
            result = _translate(translator, recording.path, outputs, on_progress)
        except (AudioError, ModelError, OSError) as error:
            message = str(error).removeprefix(f"{recording.path}: ")
            yield Outcome(path=recording.path, status="failed", message=message)
            continue
        yield Outcome(
            path=recording.path,
            status="done",
            message="" if result["segments"] else "no speech was found in it",
            result=result,
            written=tuple(outputs),
            seconds=perf_counter() - started,
        )


def _translate(
    translator: FileTranslator,
    recording: Path,
    outputs: Sequence[Path],
    on_progress: Callable[[float], None],
) -> dict[str, Any]:
    """Write a translation: a json, and a wav before it where the model speaks."""
    *wav, json_path = outputs
    json_path.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {"path": as_text(str(recording))}
    if wav:
        with _Wav(wav[0], translator.translator.voice.sample_rate) as file:
            content |= translator.translate(recording, on_progress=on_progress, say=file.put)
        content["speech"] = as_text(wav[0].name)
    else:
        content |= translator.translate(recording, on_progress=on_progress)
        del content["speech"]
    unfinished = _unfinished(json_path)
    try:
        text = json.dumps(content, ensure_ascii=False)
        unfinished.write_text(text + "\n", encoding="utf-8")
        os.replace(unfinished, json_path)
    finally:
        unfinished.unlink(missing_ok=True)
    return content


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.unfinished")


class _Wav:
    """A wav file that is written piece by piece, and appears when it is whole or not at all.

    Args:
        path: Where it appears.
        sample_rate: Hz.
    """

    def __init__(self, path: Path, sample_rate: int) -> None:
        self._path = path
        self._rate = sample_rate
        self._num_samples = 0

    def __enter__(self) -> _Wav:
        self._handle = open(_unfinished(self._path), "wb")
        self._file = soundfile.SoundFile(
            self._handle, "w", self._rate, 1, subtype="PCM_16", format="WAV"
        )
        return self

    def put(self, first: int, samples: NDArray[np.float32]) -> None:
        """Write samples (S,) at a place behind all others; what lies between is silence."""
        while self._num_samples < first:
            count = min(_BLOCK, first - self._num_samples)
            self._write(np.zeros(count, np.float32))
        self._write(samples)

    def _write(self, samples: NDArray[np.float32]) -> None:
        self._file.write(np.clip(samples, -1.0, 1.0))
        self._num_samples += len(samples)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        unfinished = _unfinished(self._path)
        try:
            if kind is None and not self._num_samples:  # players refuse what holds nothing
                self._write(np.zeros(round(GAP_SECONDS * self._rate), np.float32))
            self._file.close()
            self._handle.close()
            if kind is None:
                os.replace(unfinished, self._path)
        finally:
            unfinished.unlink(missing_ok=True)
