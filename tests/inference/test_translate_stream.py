"""Speech is translated as it comes: streams, and the command that feeds them."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from speechjepa.cli.main import main
from speechjepa.errors import ConfigError, ModelError
from speechjepa.inference import translate_stream
from speechjepa.inference.model import load
from speechjepa.inference.translate import longest_seconds
from speechjepa.inference.translate_stream import (
    TranslationStream,
    UtteranceStream,
    open_translation,
)
from speechjepa.inference.translator import SpeechTranslator
from tests.translation_bundle import SMALL, bundle


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


def test_a_live_translation_is_decoded_as_asked(model) -> None:
    model.translate_live(decoder="greedy")
    with pytest.raises(ModelError, match="no language model"):
        model.translate_live(decoder="beam")


def test_only_what_a_detector_let_through_is_speech_at_any_level(model) -> None:
    translator = SpeechTranslator(model)
    streams = [TranslationStream(translator, vad=vad) for vad in ("none", "silero")]
    usual, any_level = (float(stream._encoder._front_end.statistics[0, 0, 0]) for stream in streams)
    assert any_level < usual - 100


def test_what_is_for_recordings_is_refused_for_a_stream(model, tmp_path, capsys) -> None:
    given = ["translate", "-", "--model", str(model.path)]
    assert main([*given, "--stream", "--head", "retrieval"]) == 2
    assert "--head retrieval is for recordings" in capsys.readouterr().err
    assert main(given) == 2
    assert "give --stream too" in capsys.readouterr().err
