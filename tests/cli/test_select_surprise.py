"""`speechjepa select` and `speechjepa surprise` as typed."""

from __future__ import annotations

import os
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
from pympi.Elan import Eaf

import speechjepa.inference.model
from speechjepa.audio.voice import make_detector
from speechjepa.cli.main import main
from speechjepa.cli.surprise import FOR_SURPRISE
from speechjepa.data.labels import select_labels
from speechjepa.data.readers import read_corpus
from speechjepa.inference import long_recordings
from speechjepa.training.config import JepaConfig
from tests.inference.test_surprise import RATE, jepa


@pytest.fixture(autouse=True)
def loaded(monkeypatch):
    monkeypatch.setattr(speechjepa.inference.model, "load", lambda path: jepa())


@pytest.fixture
def recordings(tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(6):
        wave = rng.normal(0, 0.1, 2 * RATE)
        wave[: RATE // 2] *= 0.001
        soundfile.write(folder / f"{index}.wav", wave, RATE)
    return folder


def transcribe(folder, *names):
    for name in names:
        (folder / f"{name}.txt").write_text("text")


def test_the_list_that_select_writes_is_a_list_of_labels(recordings, tmp_path, capsys):
    out = tmp_path / "out" / "first.txt"
    arguments = ["select", str(recordings), "--minutes", "0.1", "--model", "m", "-o", str(out)]
    assert main(arguments) == 0
    said, advice = capsys.readouterr()
    assert f"data.labels={out} restricts it to this list" in advice
    assert "3 of 6 recordings, 0.1 minutes" in said
    transcribe(recordings, *out.read_text().split())
    labelled = select_labels(read_corpus(str(recordings)), str(out), folder=recordings)
    assert len(labelled) == 3
    table = out.with_suffix(".tsv").read_text().splitlines()
    assert table[0].startswith("id\tseconds") and len(table) == 4
    before = out.read_text()
    assert main(arguments) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert out.read_text() == before
    assert main([*arguments, "--overwrite"]) == 0
    said, complained = capsys.readouterr()
    assert "% of the sounds with the 3 that are transcribed already" in said
    assert "left out, transcribed already: 3" in complained
    assert not set(out.read_text().split()) & set(before.split())
    assert main([*arguments, "--overwrite", "--include-transcribed"]) == 0
    assert out.read_text() == before


def test_select_says_what_cannot_be(recordings, tmp_path, capsys):
    common = ["select", str(recordings), "--model", "m"]
    assert main([*common, "--minutes", "10", "-o", str(tmp_path / "a.txt")]) == 2
    assert "only 0.2 minutes can be proposed" in capsys.readouterr().err
    assert main([*common, "--minutes", "1", "-o", str(tmp_path / "a.csv")]) == 2
    assert "must end in .txt" in capsys.readouterr().err
    assert not list(tmp_path.glob("a.*"))


def test_select_says_what_to_do_with_long_recordings(recordings, tmp_path, capsys):
    wave = np.tile(np.random.default_rng(1).normal(0, 0.1, RATE), 3)
    soundfile.write(recordings / "story.wav", wave, RATE)
    common = ["select", str(recordings), "--model", "m", "--max-seconds", "2.5"]
    assert main([*common, "--minutes", "10", "-o", str(tmp_path / "a.txt")]) == 2
    complained = capsys.readouterr().err
    assert "longer than 2.5 s: 1. no pauses of speech are found" in complained
    assert ".eaf or .TextGrid" in complained
    assert main([*common, "--minutes", "0.1", "-o", str(tmp_path / "a.txt")]) == 0
    assert "--max-seconds N" in capsys.readouterr().err


def test_long_recordings_are_proposed_in_stretches_marked_for_elan(
    recordings, tmp_path, capsys, monkeypatch
):
    # Noise is no speech to Silero's detector: this one goes by the level.
    monkeypatch.setattr(long_recordings, "make_detector", lambda name: make_detector("energy"))
    rng = np.random.default_rng(1)
    story = np.concatenate([rng.normal(0, 1e-4, RATE), rng.normal(0, 0.1, 2 * RATE)] * 8)
    (recordings / "far").mkdir()
    soundfile.write(recordings / "far" / "story.wav", story, RATE)
    transcribe(recordings, *"012345")
    out = tmp_path / "first.txt"
    common = ["select", str(recordings), "--model", "m", "--minutes", "0.1", "-o", str(out)]
    assert main([*common, "--eaf", str(tmp_path / "marks")]) == 0
    assert "1 ELAN document, the first" in capsys.readouterr().err
    names = out.read_text().split()
    assert len(names) == 3 and all(name.startswith("far/story@") for name in names)
    document = Eaf(str(tmp_path / "marks" / "far" / "story.eaf"), suppress_version_warning=True)
    marked = sorted(document.get_annotation_data_for_tier("transcript"))
    assert sorted(f"far/story@{start}-{stop}" for start, stop, _ in marked) == sorted(names)
    assert all(start % 3000 == pytest.approx(900, abs=200) for start, *_ in marked)
    # Filled in by hand, a little beside the marks, it is what the list names.
    document.remove_all_annotations_from_tier("transcript")
    for start, stop, _ in marked:
        document.add_annotation("transcript", start - 120, stop + 80, "said")
    path = recordings / "far" / "story.eaf"
    document.to_file(str(path))
    labelled = select_labels(read_corpus(str(recordings)), str(out), folder=recordings)
    assert [u.text for u in labelled] == ["said"] * 3
    # What is annotated already gets no document in place of its own.
    assert main([*common, "--overwrite", "--eaf", str(recordings)]) == 0
    complained = capsys.readouterr().err
    assert "ELAN document," not in complained
    assert "those that have a transcript, get no such document" in complained
    assert "said" in path.read_text()


def test_surprise_prints_a_table_and_writes_curves(recordings, tmp_path, capsys):
    bad = recordings / "bad.wav"
    bad.write_bytes(b"RIFF")
    out = tmp_path / "out"
    arguments = ["surprise", str(recordings), "none.wav", "--model", "m", "-o", str(out)]
    assert main(arguments) == 1
    said, complained = capsys.readouterr()
    lines = said.splitlines()
    assert lines[0] == "file\tseconds\tscore\tpeak\tpeak_at" and len(lines) == 7
    assert f"{bad}: " in complained and "none.wav: there is no such file" in complained
    assert "files that could not be heard: 2" in complained
    assert (out / "0.svg").exists()
    curve = (out / "0.tsv").read_text().splitlines()
    assert curve[0] == "seconds\terror" and len(curve) > 40
    bad.unlink()
    (out / "1.svg").unlink()
    (out / "0.tsv").write_text("mine")
    assert main(arguments[:2] + arguments[3:]) == 0  # the table is complete, the curves stay
    again, told = capsys.readouterr()
    assert again == said
    assert told == (
        f"11 files are there already and left alone, the first {out}/0.tsv; "
        "--overwrite replaces what is there\n"
    )
    assert (out / "1.svg").exists() and (out / "0.tsv").read_text() == "mine"


def test_surprise_warns_of_a_model_that_was_pretrained_for_something_else(
    recordings, monkeypatch, capsys
):
    short = jepa(mask_length_seconds=JepaConfig().mask_length_seconds)
    monkeypatch.setattr(speechjepa.inference.model, "load", lambda path: short)
    assert main(["surprise", str(recordings / "0.wav"), "--model", "m"]) == 0
    said, told = capsys.readouterr()
    assert len(said.splitlines()) == 2
    assert "hidden spans of 0.08 s" in told and FOR_SURPRISE in told


def test_the_pretraining_that_it_asks_for_gives_a_model_that_it_takes(
    recordings, tmp_path, monkeypatch, capsys
):
    monkeypatch.undo()  # the real `load`
    made = str(tmp_path / "usual")
    few = ["pretrain.max_steps=2", "pretrain.future.width=8", "pretrain.future.num_channels=4"]
    command = ["pretrain", str(recordings), *FOR_SURPRISE.split(), *few, "-o", made]
    assert main(command) == 0
    capsys.readouterr()
    assert main(["surprise", str(recordings), "--model", made, "-o", str(tmp_path / "out")]) == 0
    said, told = capsys.readouterr()
    rows = [line.split("\t") for line in said.splitlines()[1:]]
    assert len(rows) == 6 and not told
    assert abs(np.mean([float(row[2]) for row in rows])) < 0.1  # what it was made of is usual
    for plot in (tmp_path / "out").glob("*.svg"):
        ElementTree.parse(plot)


def test_a_name_that_is_not_utf8_stops_nothing(recordings, tmp_path, capsys):
    odd = os.fsencode(recordings) + b"/caf\xe9\x07.wav"
    try:
        os.rename(recordings / "0.wav", odd)
    except OSError:
        pytest.skip("this file system takes no such names")
    out = tmp_path / "out"
    assert main(["surprise", str(recordings), "--model", "m", "-o", str(out)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 7
    plots = list(out.glob("*.svg"))
    assert len(plots) == 6
    for plot in plots:
        ElementTree.parse(plot)
