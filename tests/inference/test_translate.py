"""Recordings are translated: files, streams, retrieval, and what is wrong with them."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from speechjepa.audio.files import read_audio, write_wav
from speechjepa.cli.main import main
from speechjepa.data.synthetic.espeak import synthesise
from speechjepa.errors import ConfigError, ModelError
from speechjepa.inference import translate_stream
from speechjepa.inference.model import load
from speechjepa.inference.retrieval import PARTS, Known, Retrieval, embed, pool
from speechjepa.inference.translate import longest_seconds, translate
from speechjepa.inference.translate_files import translate_files
from speechjepa.inference.translate_stream import (
    TranslationStream,
    UtteranceStream,
    open_translation,
)
from speechjepa.inference.translator import SpeechTranslator
from speechjepa.models.encoder import EncoderOutput
from tests.translation_bundle import NUM_UNITS, SMALL, bundle


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return synthesise("uno dos tres cuatro cinco", "es").waveform


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


# Streams


def written(said) -> list[int]:
    return [unit for one in said for unit in one.units]


def spoken(said) -> np.ndarray:
    return np.concatenate([one.speech for one in said])


def test_a_stream_writes_what_chunks_write_at_once_however_it_is_fed(model, speech) -> None:
    translator = SpeechTranslator(model)
    stream = TranslationStream(translator)
    said = [stream.feed(speech[i : i + 1000]) for i in range(0, len(speech), 1000)]
    said.append(stream.finish())
    waveform = torch.from_numpy(speech)[None]
    encoder, head = model.encoder, translator.translator
    chunks = SMALL.streaming.chunks(0.32, 25)
    with torch.no_grad():
        output = encoder.encode_in_chunks(waveform, torch.tensor([len(speech)]), chunks)
        found = head(output.features, output.lengths, chunks)
    path = found.logits[0].argmax(dim=-1).tolist()
    expected = [b - 1 for a, b in zip([0, *path], path, strict=False) if b not in (0, a)]
    assert written(said) == expected
    text = translator.files.text_vocabulary.decode_ctc(found.text_logits[0].argmax(-1).tolist())
    assert " ".join("".join(one.text for one in said).split()) == text and text
    assert np.allclose(spoken(said), translator.speak(expected))
    whole = model.translate_live()
    assert isinstance(whole, TranslationStream)
    assert written([whole.feed(speech), whole.finish()]) == expected


def test_a_stream_says_nothing_in_long_pauses_whatever_they_sound_like(model) -> None:
    noise = np.random.default_rng(0).normal(0, 0.02, 3 * 16000).astype(np.float32)
    pause = np.concatenate([np.zeros(32000, np.float32), noise])
    translator = SpeechTranslator(model)
    listening = TranslationStream(translator, vad="none", speak=False)
    assert written([listening.feed(pause), listening.finish()])
    stream = TranslationStream(translator)
    said = [stream.feed(pause), stream.finish()]
    assert not written(said) and not len(spoken(said)) and [s.text for s in said] == ["", ""]
    with pytest.raises(ConfigError, match="must be silero or none"):
        TranslationStream(translator, vad="energy")


def test_a_pause_brings_out_all_that_was_said_before_it(model, speech) -> None:
    translator = SpeechTranslator(model)
    stream = TranslationStream(translator)
    pause = np.zeros(2 * 16000, np.float32)
    first = [stream.feed(speech), stream.feed(pause)]
    assert [one.endpoint for one in first] == [False, True]
    assert np.allclose(spoken(first), translator.speak(written(first)))
    assert "".join(one.text for one in first).endswith(" ")  # before what comes after it
    second = [stream.feed(speech), stream.feed(pause)]
    assert written(second) and np.allclose(spoken(second), translator.speak(written(second)))
    assert not len(stream.finish().speech)


def test_the_text_of_a_stream_ends_without_a_space_and_nothing_is_no_text(speech, model, tmp_path):
    nothing = TranslationStream(SpeechTranslator(model))
    assert nothing.finish().text == ""
    whole = load(bundle(tmp_path / "b", kind="characters", head="autoregressive"))
    for translates in (model, whole):
        stream = translates.translate_live()
        text = stream.feed(speech).text + stream.finish().text
        assert text.strip() and not text.endswith(" ")


def test_units_come_before_the_speech_has_ended(model, speech) -> None:
    stream = TranslationStream(SpeechTranslator(model), speak=False)
    first = stream.feed(speech[: len(speech) // 2])
    assert first.units and not len(first.speech)


def test_what_a_stream_cannot_do_is_said(model, speech, tmp_path) -> None:
    stream = TranslationStream(SpeechTranslator(model), speak=False)
    with pytest.raises(ModelError, match=r"`samples` must be \(S,\)"):
        stream.feed(np.zeros((2, 100), np.float32))
    stream.finish()
    with pytest.raises(ModelError, match="finished"):
        stream.feed(speech)
    other = load(bundle(tmp_path / "b", head="autoregressive", voice=False))
    with pytest.raises(ModelError, match=r"translator\.head=ctc"):
        TranslationStream(SpeechTranslator(other))


@pytest.mark.parametrize("head", ["ctc", "autoregressive"])
def test_a_model_of_whole_utterances_translates_after_each_pause(head, speech, tmp_path) -> None:
    kind = "characters" if head == "ctc" else "units"
    translator = SpeechTranslator(load(bundle(tmp_path / "b", kind=kind, head=head)))
    stream = open_translation(translator)
    assert isinstance(stream, UtteranceStream)
    (expected,) = translator.translate([speech])
    said = [stream.feed(speech[i : i + 1000]) for i in range(0, len(speech), 1000)]
    assert not any(one.units or one.text for one in said)
    last = stream.finish()
    assert last.units == expected.units and (last.text or "").strip() == (expected.text or "")
    if kind == "units":
        assert np.allclose(last.speech, translator.speak(expected.units))
    again = open_translation(translator)
    pause = np.zeros(2 * 16000, np.float32)
    told = again.feed(np.concatenate([speech, pause]))
    assert told.endpoint and (told.units or told.text)
    assert not again.finish().units


def test_who_never_pauses_is_translated_in_the_middle(speech, tmp_path, monkeypatch) -> None:
    model = load(bundle(tmp_path / "b", head="autoregressive", voice=False))
    assert longest_seconds(model) == 20.0  # 2.5 times what is usual
    monkeypatch.setattr(translate_stream, "longest_seconds", lambda model: 2.0)
    stream = open_translation(SpeechTranslator(model), vad="none")
    long = np.tile(speech, 2)[: 3 * 16000]
    told = stream.feed(long)
    most = 2 * 16000
    (expected,) = SpeechTranslator(model).translate([long[:most]])
    assert told.units == expected.units and not told.endpoint
    assert stream.finish().units


def command(monkeypatch, speech, folder) -> bytes:
    """Stream speech through the command; return what it writes."""
    pcm = (speech * 32767).astype("<i2").tobytes()
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(pcm)))
    monkeypatch.setattr("sys.stdout", out)
    assert main(["translate", "-", "--stream", "--model", str(folder)]) == 0
    out.flush()
    return out.buffer.getvalue()


def test_the_command_streams_samples_to_stdout(model, speech, monkeypatch) -> None:
    assert len(np.frombuffer(command(monkeypatch, speech, model.path), "<i2")) > 1000


def test_the_command_streams_lines_where_there_is_no_voice(speech, tmp_path, monkeypatch) -> None:
    folder = bundle(tmp_path / "b", kind="characters")
    pause = np.zeros(2 * 16000, np.float32)
    lines = command(monkeypatch, np.concatenate([speech, pause] * 2), folder).decode()
    assert len(lines.splitlines()) == 2 and set(lines) <= set("abc \n")
    mute = bundle(tmp_path / "mute", voice=False, text=False)
    assert main(["translate", "-", "--stream", "--model", str(mute)]) == 2


# Retrieval


def test_the_nearest_known_utterance_is_found_again_with_a_confidence(model, speech) -> None:
    waveforms = [speech, speech[::-1].copy(), 0.1 * np.sin(np.arange(30000) / 5).astype(np.float32)]
    pooled = torch.cat([embed(model, waveform, 1) for waveform in waveforms])
    known = [Known(id=str(i), units=(i,), text=f"text {i}") for i in range(3)]
    retrieval = Retrieval.fit(known, pooled, 1)
    for place, match in enumerate(retrieval.find(pooled)):
        assert match.known.id == str(place) and match.confidence == pytest.approx(1.0, abs=1e-4)
    louder = embed(model, 0.9 * speech + 1e-3, 1)
    assert retrieval.find(louder)[0].known.id == "0"


def test_pooling_knows_the_order_of_what_is_said_and_no_padding() -> None:
    frames = torch.arange(8.0)[None, :, None]
    output = EncoderOutput(frames, torch.tensor([8]), [frames])
    assert pool(output, 0).tolist() == [[0.5, 2.5, 4.5, 6.5]] and PARTS == 4
    padded = torch.cat([frames, torch.full((1, 3, 1), 99.0)], dim=1)
    assert torch.equal(pool(EncoderOutput(padded, torch.tensor([8]), [padded]), 0), pool(output, 0))


def test_retrieval_is_a_head_of_the_bundle(speech, tmp_path) -> None:
    model = load(bundle(tmp_path / "b"))
    path = write(tmp_path / "a.wav", speech)
    with pytest.raises(ModelError, match="no known utterances"):
        model.translate(path, head="retrieval")
    known = [Known(id="one", units=(1, 2, 3)), Known(id="two", units=(3,))]
    pooled = torch.cat([embed(model, speech, 1), embed(model, speech[:5000], 1)])
    Retrieval.fit(known, pooled, 1).save(tmp_path / "b")
    (segment,) = model.translate(path, head="retrieval")["segments"]
    assert segment["retrieved"] == "one" and segment["units"] == [1, 2, 3]
    assert segment["confidence"] > 0.5 and "score" not in segment
    (tmp_path / "b/retrieval/known.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="is damaged"):
        model.translate(path, head="retrieval")


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


def test_what_is_for_recordings_is_refused_for_a_stream(model, tmp_path, capsys) -> None:
    given = ["translate", "-", "--model", str(model.path)]
    assert main([*given, "--stream", "--head", "retrieval"]) == 2
    assert "--head retrieval is for recordings" in capsys.readouterr().err
    assert main(given) == 2
    assert "give --stream too" in capsys.readouterr().err


def test_a_copy_of_a_translator_translates_alike(model, speech, tmp_path, capsys) -> None:
    path = write(tmp_path / "a.wav", speech)
    assert main(["convert", str(model.path), str(tmp_path / "copy")]) == 0
    assert "left behind" not in capsys.readouterr().err
    (segment,) = load(tmp_path / "copy").translate(path)["segments"]
    assert segment == model.translate(path)["segments"][0] and segment["units"]
    assert main(["convert", str(model.path), str(tmp_path / "onnx"), "--to", "onnx"]) == 0
    assert "left behind: the translator, " in capsys.readouterr().err


def test_a_live_translation_is_decoded_as_asked(model) -> None:
    model.translate_live(decoder="greedy")
    with pytest.raises(ModelError, match="no language model"):
        model.translate_live(decoder="beam")


def test_samples_are_sent_where_they_belong(model) -> None:
    with pytest.raises(ConfigError, match="ndarray: write samples to a file"):
        model.translate(np.zeros(16000, np.float32))
