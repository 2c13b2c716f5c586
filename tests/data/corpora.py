"""Small corpora on disk, for the tests of the readers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from speechjepa.audio.files import write_wav
from speechjepa.data.readers import read_corpus
from speechjepa.errors import DataError


def audio(path: Path, seconds: float = 0.1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_wav(path, np.full(round(16000 * seconds), 0.1, np.float32))
    return path


def lines(path: Path, *content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in content), encoding="utf-8")
    return path


def rows(path: Path, *content: dict[str, object]) -> Path:
    return lines(path, *(json.dumps(row, ensure_ascii=False) for row in content))


def refused(location: object, reason: str, **options: object) -> None:
    with pytest.raises(DataError, match=reason):
        read_corpus(location, **options)  # type: ignore[arg-type]


def kaldi(folder: Path) -> Path:
    wav = audio(folder / "wav/rec one.wav", 3.0)
    lines(folder / "wav.scp", f"rec1 {wav}", "rec2 wav/rec one.wav")
    lines(folder / "segments", "a-1 rec1 0.0 1.25", "a-2 rec1 1.25 -1", "b-1 rec2 0.5 2")
    lines(folder / "text", "a-1 first words", "b-1", "a-2 more")
    lines(folder / "utt2spk", "a-1 anna", "a-2 anna", "b-1 ben")
    return folder
