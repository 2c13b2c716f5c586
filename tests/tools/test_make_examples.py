"""Only synthetic speech is shipped as examples, and the table lists what is there."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speechjepa.audio.files import read_audio, write_wav
from speechjepa.config import save_yaml
from speechjepa.inference.selection_voice import RecordedUnits
from speechjepa.inference.voice import SelectionVoice
from speechjepa.units.kmeans import Units
from tests.translation_bundle import units
from tools import make_examples

KINDS = ("source", "reference", "translation")


def voice(folder: Path, of: Units | None = None) -> SelectionVoice:
    """Write a voice that joins recordings."""
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 0.1, (5, 13 * 16000)).astype(np.float32)
    heard = torch.from_numpy(generator.integers(0, 4, (5, 1, 13 * 25)))
    made = SelectionVoice(
        RecordedUnits.of(list(zip(heard, noise, strict=True)), 640), of or units()
    )
    made.save(folder)
    return made


@pytest.fixture(scope="module")
def spoken(tmp_path_factory) -> tuple[Path, np.ndarray]:
    """A voice on disk, and what it makes of units 1, 2 and 3."""
    folder = tmp_path_factory.mktemp("voice")
    return folder, voice(folder).speak(torch.tensor([1, 2, 3]))


@pytest.fixture
def run(tmp_path, spoken):
    return lambda name, **translation: write_run(tmp_path / name, spoken[0], **translation)


def write_run(folder: Path, voice_folder: Path, **translation: Any) -> Path:
    """Write a run folder with three examples, as `evaluate` leaves it."""
    licence = translation.pop("licence", None)
    settings = {"name": folder.name, "title": "A | toy", "licence": licence}
    folder.mkdir(parents=True)
    save_yaml(
        {**settings, "translation": {"language": "en", **translation}}, folder / "recipe.yaml"
    )
    units().save(folder / "units")
    shutil.copytree(voice_folder, folder / "voice")
    examples = folder / "evaluate" / "examples"
    examples.mkdir(parents=True)
    lines = []
    for number in range(4):
        for kind in KINDS:
            if number < 3:
                write_wav(examples / f"p{number}-{kind}.wav", np.full(800, 0.01, np.float32))
        found = {"units": [1, 2, 3], "text": f"written {number}", "heard": f"heard {number}"}
        words = {"source": f"said | {number}", "reference": f"true {number}"}
        lines.append(json.dumps({"id": f"p{number}", **words, "ctc": found}) + "\n")
    (folder / "evaluate" / "predictions.jsonl").write_text("".join(lines), encoding="utf-8")
    results = json.dumps({"head": "ctc"})
    (folder / "evaluate" / "results.json").write_text(results, encoding="utf-8")
    return folder


def make(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["make_examples.py", *map(str, arguments)])
    return make_examples.main()


def shipped(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.wav")}


def test_speech_that_espeak_said_is_shipped_whole_with_a_table(run, tmp_path, monkeypatch) -> None:
    out = tmp_path / "examples"
    made, other = run("made", phrases={}), run("other", phrases={})
    assert make(monkeypatch, made, other, "-o", out) == 0
    assert shipped(out / "made") == {f"p{n}-{kind}.wav" for n in range(3) for kind in KINDS}
    table = (out / "README.md").read_text(encoding="utf-8")
    assert (
        "| p0 | said \\| 0 | true 0 | written 0 | heard 0 | [source](made/p0-source.wav)" in table
    )
    assert "p3" not in table and table.count("## ") == 2
    (out / "made" / "old.wav").write_bytes(b"")
    assert make(monkeypatch, made, "-o", out) == 0  # the other one keeps its place
    assert (out / "README.md").read_text(encoding="utf-8") == table
    assert "old.wav" not in shipped(out / "made")


def test_no_recording_of_a_person_is_shipped(run, tmp_path, monkeypatch, capsys) -> None:
    out = tmp_path / "examples"
    real = run("real", licence="CC BY-SA 3.0")
    assert make(monkeypatch, real, "-o", out) == 1
    assert shipped(out / "real") == set()
    assert "joins recordings of a person" in capsys.readouterr().err
    table = (out / "README.md").read_text(encoding="utf-8")
    assert "| p0 | said \\| 0 | true 0 | written 0 | heard 0 | – |" in table
    assert "CC BY-SA 3.0" in table


def test_another_voice_of_the_same_units_may_speak(
    run, spoken, tmp_path, monkeypatch, capsys
) -> None:
    out = tmp_path / "examples"
    real = run("real", licence="CC BY-SA 3.0")
    made = run("made", phrases={})
    assert make(monkeypatch, real, "--voice", f"real={made}", "-o", out) == 0
    assert shipped(out / "real") == {f"p{n}-translation.wav" for n in range(3)}
    said = read_audio(out / "real/p0-translation.wav")
    assert np.allclose(said, spoken[1].clip(-1, 1), atol=1e-4)
    assert "heard 0" not in (out / "README.md").read_text(encoding="utf-8")  # another voice's
    own = dataclasses.replace(units(), centroids=torch.ones(4, 1))
    voice(made / "voice", own)
    for given, says in (
        (f"real={made}", "speaks other units"),
        (f"real={real / 'voice'}", "recordings of a person"),
        (f"nobody={made}", "no run of that name"),
        ("real", "NAME=FOLDER"),
    ):
        assert make(monkeypatch, real, "--voice", given, "-o", out) == 2
        assert says in capsys.readouterr().err


def test_words_of_a_corpus_without_a_licence_are_left_out(
    run, tmp_path, monkeypatch, capsys
) -> None:
    out = tmp_path / "examples"
    field = run("field", spoken_by="fr-fr")
    assert make(monkeypatch, field, "-o", out) == 1
    assert "names no licence" in capsys.readouterr().err
    assert shipped(out / "field") == {f"p{n}-translation.wav" for n in range(3)}
    table = (out / "README.md").read_text(encoding="utf-8")
    assert "said" not in table.split("## ")[1] and "true 0" not in table and "written 0" in table
    assert make(monkeypatch, field, "--with-words", "-o", out) == 0
    assert "p0-reference.wav" in shipped(out / "field")
    assert "p0-source.wav" not in shipped(out / "field")


def test_a_folder_that_is_no_such_run_is_refused(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "recipe.yaml").write_text("name: t\n", encoding="utf-8")
    assert make(monkeypatch, tmp_path, "-o", tmp_path / "out") == 2
    assert "does not translate" in capsys.readouterr().err
    (tmp_path / "recipe.yaml").write_text("name: t\ntranslation: {a: 1}\n", encoding="utf-8")
    assert make(monkeypatch, tmp_path, "-o", tmp_path / "out") == 2
    assert "was not evaluated" in capsys.readouterr().err
