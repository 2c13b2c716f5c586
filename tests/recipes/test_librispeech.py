from __future__ import annotations

import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from speechjepa.data.labels import select_labels
from speechjepa.data.readers import read_corpus


def flac(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(8000, 0.1), 16000)


@pytest.fixture
def mirror(tmp_path: Path, prepare: ModuleType) -> Path:
    """The published archives in miniature: one chapter of two utterances in each split."""
    source, served = tmp_path / "source", tmp_path / "served"
    served.mkdir()
    for speaker, name in enumerate((*prepare.TRAIN, *prepare.DEV)):
        chapter = source / "LibriSpeech" / name / str(speaker) / "7"
        lines = []
        for index in range(2):
            flac(chapter / f"{speaker}-7-{index:04d}.flac")
            lines.append(f"{speaker}-7-{index:04d} HELLO NUMBER {index}\n")
        (chapter / f"{speaker}-7.trans.txt").write_text("".join(lines))
        with tarfile.open(served / f"{name}.tar.gz", "w:gz") as file:
            file.add(source / "LibriSpeech" / name, f"LibriSpeech/{name}")
    for part, name in (("1h/0", "0-7-0000"), ("1h/5", "0-7-0001"), ("9h", "2-7-0000")):
        speaker = name.partition("-")[0]
        flac(source / "librispeech_finetuning" / part / "clean" / speaker / "7" / f"{name}.flac")
    with tarfile.open(served / "librispeech_finetuning.tgz", "w:gz") as file:
        file.add(source / "librispeech_finetuning", "librispeech_finetuning")
    return served


def run(prepare: ModuleType, mirror: Path, root: Path) -> int:
    url = mirror.as_uri()
    arguments = ["--data-root", str(root), "--speech-url", url, "--labels-url", url]
    return int(prepare.main(arguments))


def test_manifests_and_label_lists_are_what_the_recipes_name(
    prepare: ModuleType, mirror: Path, tmp_path: Path
) -> None:
    assert run(prepare, mirror, tmp_path / "root") == 0
    folder = tmp_path / "root" / "librispeech"
    train = read_corpus("librispeech/train-960.jsonl", data_root=tmp_path / "root")
    assert len(train) == 6
    assert train[0].text == "HELLO NUMBER 0"
    assert train[0].duration == pytest.approx(0.5)
    assert len(read_corpus("librispeech/dev-other.jsonl", data_root=tmp_path / "root")) == 2
    counts = {
        name: len(select_labels(train, name, folder=folder))
        for name in ("10min", "1h", "10h", "100h")
    }
    assert counts == {"10min": 1, "1h": 2, "10h": 3, "100h": 2}


def test_a_second_call_fetches_nothing(prepare: ModuleType, mirror: Path, tmp_path: Path) -> None:
    assert run(prepare, mirror, tmp_path / "root") == 0
    assert run(prepare, tmp_path / "gone", tmp_path / "root") == 0


def test_what_cannot_be_fetched_is_named(
    prepare: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(prepare, tmp_path / "gone", tmp_path / "root") == 2
    error = capsys.readouterr().err
    assert "train-clean-100.tar.gz: cannot be fetched" in error
    assert "put the file there as" in error
