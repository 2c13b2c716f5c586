"""Voices from recordings: whose they are, what is heard of them, how they look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from speechjepa.data.utterance import Utterance
from speechjepa.errors import ConfigError, DataError, ModelError
from speechjepa.inference.model import SpeechModel
from speechjepa.inference.units import fit
from speechjepa.inference.voice import load_voice
from speechjepa.models.bundle import Bundle
from speechjepa.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from speechjepa.training.vocoder import VocoderTraining
from speechjepa.workflow import voice as module
from speechjepa.workflow.voice import fit_voice, hear, of_speaker
from speechjepa.workflow.voice_report import write_voice_report


def _model(seed: int = 0) -> SpeechModel:
    torch.manual_seed(seed)
    sizes = SpeechEncoderConfig(
        width=16, num_layers=1, num_heads=1, ffn_width=16, frame_rate=25, kernel_size=3
    )
    return SpeechModel(Bundle(encoder=SpeechEncoder(sizes)))


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    found = []
    for index in range(4):
        draw = np.random.default_rng(index)
        hertz = np.repeat(draw.choice([120.0, 150.0, 180.0], 80), 3200)
        phase = 2 * np.pi * np.cumsum(hertz) / 16000
        wave = 0.1 * sum(np.cos(k * phase) / k for k in range(1, 9))
        path = tmp_path / f"{index}.wav"
        soundfile.write(path, wave + 0.001 * draw.standard_normal(len(wave)), 16000)
        found.append(Utterance(id=str(index), audio_path=path, speaker="ana"))
    return found


def _of(speaker: str | None) -> Utterance:
    return Utterance(id=str(speaker), audio_path=Path("a.wav"), speaker=speaker)


def test_a_voice_is_one_speakers() -> None:
    several = [_of("ana"), _of("ana"), _of("leo")]
    assert len(of_speaker(several, "ana")) == 2
    assert len(of_speaker([_of(None), _of("ana")], None)) == 2
    with pytest.raises(DataError, match=r"there are 2: ana \(2\), leo \(1\); choose one"):
        of_speaker(several, None)
    with pytest.raises(DataError, match=r"no speaker 'eva'; there are: ana \(2\), leo \(1\)"):
        of_speaker(several, "eva")


def test_versions_of_a_recording_are_as_long_and_other_units(utterances) -> None:
    model = _model()
    units, _ = fit(model, utterances, layer="mel", num_units=8)
    (heard, waveform), *_ = hear(model, units, utterances[:1])[0]
    assert heard.shape == (module.VERSIONS, 400) and len(waveform) == 16 * 16000
    assert (heard[0] != heard[1]).any() and (heard[1] != heard[2]).any()
    again, _ = hear(model, units, utterances[:1])
    assert torch.equal(again[0][0], heard)


def test_a_vocoder_is_trained_and_speaks(utterances, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "VERSIONS", 1)
    model = _model()
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    broken = Utterance(id="broken", audio_path=tmp_path / "broken.wav", speaker="ana")
    units, _ = fit(model, utterances, layer="mel", num_units=4)
    training = VocoderTraining(steps=2, batch_size=1, piece_seconds=0.5)
    folder = tmp_path / "voice"
    everything = [*utterances, broken]
    voice, skipped = fit_voice(model, units, everything, "vocoder", folder, training=training)
    assert [item.id for item in skipped] == ["broken"]
    spoken = load_voice(folder).speak([0, 1, 2], [5, 5, 5])
    np.testing.assert_allclose(spoken, voice.speak([0, 1, 2], [5, 5, 5]), atol=1e-5)
    assert len(spoken) == 15 * 640 and np.abs(spoken).max() > 0


def test_units_of_another_encoder_make_no_voice(utterances, tmp_path) -> None:
    units, _ = fit(_model(), utterances, layer=1, num_units=4)
    with pytest.raises(ModelError, match="give the model that they were fitted with"):
        fit_voice(_model(seed=1), units, utterances, "selection", tmp_path / "voice")


def test_units_at_a_rate_that_no_voice_has_are_refused(utterances, tmp_path, monkeypatch) -> None:
    model = _model()
    units, _ = fit(model, utterances, layer=1, num_units=4)
    monkeypatch.setattr(module, "CONTROL_RATE", 80)
    with pytest.raises(ConfigError, match="a divisor of 80 Hz .* but these are at 25 Hz"):
        fit_voice(model, units, utterances, "selection", tmp_path / "voice")


def test_the_page_shows_and_plays_every_waveform(tmp_path) -> None:
    waves = {"original: <b>": np.zeros(8000, np.float32), "vocoder": np.ones(8000, np.float32)}
    page = write_voice_report(tmp_path / "voices.html", [waves, waves]).read_text(encoding="utf-8")
    assert page.count("<img alt=") == page.count("<audio controls") == 4
    assert "original: &lt;b&gt;, 0.5 s" in page and "<b>" not in page
