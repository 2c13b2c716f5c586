"""A transcript that is given is found where it was spoken."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

import speechjepa.inference.model
from speechjepa.cli.main import main
from speechjepa.errors import AudioError, DataError
from speechjepa.inference.align_file import align_file
from speechjepa.text.normalize import TextConfig
from tests.tone_model import HOP, RATE, ToneModel, synthesize, write

FRAME = HOP / RATE


class Model(ToneModel):
    text_config = TextConfig()


@pytest.fixture
def recording(tmp_path):
    return write(tmp_path / "a.wav", np.pad(synthesize("ab c_dd"), (0, 100)))


def test_lines_are_segments_and_words_have_their_times(recording):
    found = align_file(Model(), recording, "Ab, c\n\n  DD!\n")
    assert [segment["text"] for segment in found["segments"]] == ["Ab, c", "DD!"]
    words = [word for segment in found["segments"] for word in segment["words"]]
    assert [word["word"] for word in words] == ["Ab,", "c", "DD!"]
    # Each character takes 4 frames and 2 of silence after it; "_" is 5 frames more.
    starts = [0, 18, 29]
    assert [word["start"] for word in words] == pytest.approx([n * FRAME for n in starts], abs=0.03)
    assert found["duration"] == soundfile.info(recording).duration  # no whole number of frames
    assert all(word["score"] > 0.9 for word in words)


def test_words_that_the_model_cannot_write_take_no_time(recording):
    found = align_file(Model(), recording, "ab — 42 c dd")
    words = found["segments"][0]["words"]
    assert [word["word"] for word in words] == ["ab", "—", "42", "c", "dd"]
    assert words[1]["start"] == words[1]["end"] == words[2]["end"] == words[0]["end"]
    assert words[3]["start"] == pytest.approx(18 * FRAME, abs=0.03)


def test_what_the_model_cannot_write_is_told(recording, caplog):
    align_file(Model(), recording, "ab — 42x c dd4", text_name="said.txt")
    (record,) = caplog.records
    assert record.getMessage() == (
        "said.txt: the model cannot write '4' (2), '2' (1), 'x' (1), which take no time; words "
        "that hold nothing else: 1 of 5"
    )
    caplog.clear()
    align_file(Model(), recording, "Ab, — c dd!")  # what normalisation leaves out is no loss
    assert not caplog.records


def test_a_text_that_is_hardly_heard_is_told(recording, caplog):
    found = align_file(Model(), recording, "h g hh")
    assert max(word["score"] for word in found["segments"][0]["words"]) < 0.05
    (record,) = caplog.records
    assert record.getMessage() == (
        f"the text is hardly heard in {recording} (mean score 0.000): do they belong together?"
    )


def test_what_cannot_be_aligned_says_why(recording, tmp_path):
    with pytest.raises(DataError, match="no word that the model can write"):
        align_file(Model(), recording, "42 —")
    with pytest.raises(DataError, match=r"a\.wav: lasts 0\.8 s, in which 98 characters"):
        align_file(Model(), recording, "ab " * 33)
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    with pytest.raises(AudioError, match=r"bad\.wav"):
        align_file(Model(), tmp_path / "bad.wav", "ab")


def test_the_command_writes_every_format_and_overwrites_nothing(
    recording, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(speechjepa.inference.model, "load", lambda path: Model())
    text = tmp_path / "said.txt"
    text.write_text("ab c\ndd\n")
    common = ["align", str(recording), str(text), "--model", "m"]
    assert main(common) == 0
    assert len(json.loads(capsys.readouterr().out)["segments"]) == 2
    out = ["-o", str(tmp_path / "out"), "-f", "all"]
    assert main([*common, *out]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 7
    assert main([*common, *out]) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    text.write_text(" \n")
    assert main(common) == 2
    assert f"error: {text}: is empty" in capsys.readouterr().err
    assert main(["align", str(recording), str(tmp_path / "no.txt"), "--model", "m"]) == 2
    assert "no.txt: there is no such file" in capsys.readouterr().err


def test_the_command_keeps_the_text_that_it_reads_and_says_what_is_the_wrong_way_round(
    recording, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(speechjepa.inference.model, "load", lambda path: Model())
    text = tmp_path / f"{recording.stem}.txt"
    text.write_text("ab c\ndd\n")
    given = ["align", str(recording), str(text), "--model", "m", "-f", "txt", "-o", str(tmp_path)]
    assert main([*given, "--overwrite"]) == 2
    assert "is what is read here, and would be lost" in capsys.readouterr().err
    assert text.read_text() == "ab c\ndd\n"
    assert main(["align", str(text), str(recording), "--model", "m"]) == 2
    assert "is a recording; it comes first" in capsys.readouterr().err
    assert main(["align", str(recording), str(tmp_path), "--model", "m"]) == 2
    assert "is a folder; name the file" in capsys.readouterr().err
