"""Recordings are translated: files, and what is wrong with them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from speechjepa.audio.files import read_audio, write_wav
from speechjepa.cli.main import main
from speechjepa.errors import ConfigError, ModelError
from speechjepa.inference.model import load
from speechjepa.inference.translate import translate
from speechjepa.inference.translate_files import translate_files
from speechjepa.inference.translator import SpeechTranslator
from tests.translation_bundle import NUM_UNITS, bundle


def write(path: Path, *parts: np.ndarray) -> Path:
    write_wav(path, np.concatenate(parts))
    return path


def test_a_recording_becomes_segments_units_text_and_speech(model, speech, tmp_path) -> None:
    pause = np.zeros(32000, np.float32)
    path = write(tmp_path / "a.wav", *[part for _ in range(8) for part in (speech, pause)])
    result = model.translate(path)
    assert (result["language"], result["source_language"]) == ("yy", "xx")
    assert result["duration"] == pytest.approx(8 * (len(speech) / 16000 + 2), abs=0.01)
    assert len(result["segments"]) >= 2  # it is longer than what is heard at once
    for segment in result["segments"]:
        assert segment["units"] and max(segment["units"]) < NUM_UNITS
        assert len(segment["times"]) == len(segment["units"])
        assert segment["times"] == sorted(segment["times"])
        # A frame belongs to the segment that it begins in or near: a frame is 40 ms.
        assert segment["start"] - 0.1 <= segment["times"][0]
        assert segment["times"][-1] <= segment["end"] + 0.1
        assert 0 < segment["score"] <= 1
        assert isinstance(segment["text"], str)
    spoken = [(s["speech_start"], s["speech_end"]) for s in result["segments"]]
    assert all(a[1] < b[0] for a, b in zip(spoken, spoken[1:], strict=False))
    assert all(s["speech_start"] >= s["start"] for s in result["segments"])
    assert len(result["speech"]) == pytest.approx(16000 * spoken[-1][1], abs=16)
    assert np.abs(result["speech"]).max() > 0.01


def test_what_else_is_in_the_batch_changes_nothing(model, speech) -> None:
    translator = SpeechTranslator(model)
    together = translator.translate([speech, speech[:9000], speech[4000:]])
    for found, waveform in zip(together, (speech, speech[:9000], speech[4000:]), strict=True):
        assert found.units == translator.translate([waveform])[0].units


def test_silence_says_nothing(model, tmp_path) -> None:
    path = write(tmp_path / "silence.wav", np.zeros(48000, np.float32))
    result = translate(model, path)
    assert result["segments"] == [] and result["text"] == ""
    assert result["speech"].shape == (0,) and result["speech"].dtype == np.float32
    (outcome,) = translate_files(model, [path], tmp_path / "out")
    assert outcome.result["text"] == "" and len(read_audio(tmp_path / "out/silence.wav"))


def test_silence_has_no_text_and_no_speech_where_the_model_has_none(tmp_path) -> None:
    path = write(tmp_path / "silence.wav", np.zeros(48000, np.float32))
    mute = load(bundle(tmp_path / "mute", text=False, voice=False))
    result = mute.translate(path)
    assert result["text"] is None and result["speech"] is None


@pytest.mark.parametrize("head", ["ctc", "autoregressive"])
def test_a_translator_of_characters_writes_text_alone(head, speech, tmp_path) -> None:
    model = load(bundle(tmp_path / head, kind="characters", head=head))
    result = model.translate(write(tmp_path / "a.wav", speech), beam=2)
    assert set(result["text"]) <= set("abc ") and result["text"]
    assert "units" not in result["segments"][0] and result["speech"] is None
    with pytest.raises(ModelError, match="translates into text"):
        SpeechTranslator(model).voice  # noqa: B018


def test_an_autoregressive_translator_writes_units(speech, tmp_path) -> None:
    model = load(bundle(tmp_path / "b", head="autoregressive", voice=False))
    (segment,) = model.translate(write(tmp_path / "a.wav", speech), beam=2)["segments"]
    assert segment["units"] and "times" not in segment and "speech_start" not in segment


def test_bad_files_stop_nothing_and_nothing_is_overwritten(model, speech, tmp_path, capsys) -> None:
    good = write(tmp_path / "good.wav", speech)
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio", encoding="utf-8")
    inputs = [str(bad), str(tmp_path / "missing.wav"), str(good)]
    out = tmp_path / "out"
    outcomes = list(translate_files(model, inputs, out))
    assert [outcome.status for outcome in outcomes] == ["failed", "failed", "done"]
    assert outcomes[1].message == "there is no such file or folder"
    assert {path.name for path in out.iterdir()} == {"good.wav", "good.json"}
    entry = json.loads((out / "good.json").read_text(encoding="utf-8"))
    assert entry["speech"] == "good.wav" and entry["path"] == str(good)
    assert len(read_audio(out / "good.wav")) > 1000
    (again,) = translate_files(model, [good], out)
    assert again.status == "skipped" and "give --overwrite" in again.message
    status = main(["translate", *inputs, "--model", str(model.path), "-o", str(out), "--overwrite"])
    assert status == 1
    said = capsys.readouterr()
    assert said.out.split() == [str(out / "good.wav"), str(out / "good.json")]
    assert "bad.wav" in said.err and "files that could not be translated: 2" in said.err


def test_what_is_written_is_what_python_returns_and_nothing_else_is_left(
    model, speech, tmp_path
) -> None:
    pause = np.zeros(32000, np.float32)
    path = write(tmp_path / "a.wav", *[part for _ in range(8) for part in (speech, pause)])
    expected = model.translate(path)
    (outcome,) = translate_files(model, [path], tmp_path / "out")
    assert np.allclose(
        read_audio(tmp_path / "out/a.wav"), expected["speech"].clip(-1, 1), atol=1e-4
    )
    entry = json.loads((tmp_path / "out/a.json").read_text(encoding="utf-8"))
    assert entry["segments"] == expected["segments"] and outcome.result["speech"] == "a.wav"
    path.write_bytes(path.read_bytes()[:-100_000])  # ends before it says
    damaged = list(translate_files(model, [path], tmp_path / "other"))
    assert damaged[0].status == "failed"
    assert list((tmp_path / "other").iterdir()) == []


def test_a_name_that_is_no_text_stops_nothing(model, speech, tmp_path, capfd) -> None:
    os.rename(write(tmp_path / "a.wav", speech), os.fsencode(tmp_path) + b"/caf\xe9\n.wav")
    arguments = ["translate", str(tmp_path), "--model", str(model.path)]
    assert main(arguments) == 0
    assert json.loads(capfd.readouterr().out)["path"].endswith("caf\\udce9\n.wav")
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 2
    (path,) = (tmp_path / "out").glob("*.json")
    assert json.loads(path.read_text(encoding="utf-8"))["text"] is not None


def test_json_goes_to_stdout_without_a_folder(model, speech, tmp_path, capsys) -> None:
    path = write(tmp_path / "a.wav", speech)
    assert main(["translate", str(path), "--model", str(model.path), "--vad", "energy"]) == 0
    entry = json.loads(capsys.readouterr().out)
    assert entry["path"] == str(path) and entry["segments"][0]["units"]


def test_a_model_that_does_not_translate_says_so(tmp_path, capsys) -> None:
    path = write(tmp_path / "a.wav", np.zeros(1600, np.float32))
    assert main(["translate", str(path), "--model", "shipped"]) == 2
    assert "holds no translator" in capsys.readouterr().err
    with pytest.raises(ModelError, match="holds no translator"):
        load("shipped").translate_live()


def test_a_model_says_what_it_translates(model, speech, tmp_path) -> None:
    found = model.info()["translates"]
    assert (found["from"], found["into"], found["voice"]) == ("xx", "yy", "selection")
    with pytest.raises(ModelError, match="use `speechjepa translate`"):
        model.transcribe(write(tmp_path / "a.wav", speech))


def test_settings_are_checked(model, tmp_path) -> None:
    for options, reason in (
        ({"head": "both"}, "`head` must be translator or retrieval"),
        ({"beam": 0}, "`beam` must be at least 1"),
        ({"vad": "none"}, "`vad` must be silero or energy"),
    ):
        with pytest.raises(ConfigError, match=reason):
            translate(model, tmp_path / "a.wav", **options)


# Retrieval


def test_a_recording_is_never_replaced_by_its_translation(model, speech, tmp_path) -> None:
    path = write(tmp_path / "a.wav", speech)
    before = path.read_bytes()
    for overwrite in (False, True):
        out = tmp_path / "x" / ".." if overwrite else tmp_path
        (tmp_path / "x").mkdir(exist_ok=True)
        (outcome,) = translate_files(model, [path], out, overwrite=overwrite)
        assert outcome.status == "failed" and "is what is read here" in outcome.message
    assert path.read_bytes() == before and not (tmp_path / "a.json").exists()


def test_half_a_translation_is_no_translation(model, speech, tmp_path) -> None:
    path, out = write(tmp_path / "a.wav", speech), tmp_path / "out"
    list(translate_files(model, [path], out))
    (out / "a.json").unlink()
    (outcome,) = translate_files(model, [path], out)
    assert outcome.status == "failed" and "not the other of the two files" in outcome.message
    (outcome,) = translate_files(model, [path], out, overwrite=True)
    assert outcome.status == "done" and (out / "a.json").exists()


def test_a_copy_of_a_translator_translates_alike(model, speech, tmp_path, capsys) -> None:
    path = write(tmp_path / "a.wav", speech)
    assert main(["convert", str(model.path), str(tmp_path / "copy")]) == 0
    assert "left behind" not in capsys.readouterr().err
    (segment,) = load(tmp_path / "copy").translate(path)["segments"]
    assert segment == model.translate(path)["segments"][0] and segment["units"]
    assert main(["convert", str(model.path), str(tmp_path / "onnx"), "--to", "onnx"]) == 0
    assert "left behind: the translator, " in capsys.readouterr().err


def test_samples_are_sent_where_they_belong(model) -> None:
    with pytest.raises(ConfigError, match="ndarray: write samples to a file"):
        model.translate(np.zeros(16000, np.float32))
