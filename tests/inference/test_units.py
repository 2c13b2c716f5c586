"""Recordings to units: layers, length, the encoder they belong to, the command."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from speechjepa.cli.main import main
from speechjepa.data.utterance import Utterance
from speechjepa.errors import ConfigError, DataError, ModelError
from speechjepa.inference.model import SpeechModel, load
from speechjepa.inference.units import (
    UnitSequence,
    check_encoder,
    encode_units,
    encoder_checksum,
    extract_frames,
    fit,
)
from speechjepa.models.bundle import Bundle, save_bundle
from speechjepa.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig


def _model(seed: int = 0) -> SpeechModel:
    torch.manual_seed(seed)
    sizes = SpeechEncoderConfig(
        width=16, num_layers=2, num_heads=1, ffn_width=16, frame_rate=25, kernel_size=3
    )
    return SpeechModel(Bundle(encoder=SpeechEncoder(sizes)))


def _tones(seconds: float) -> np.ndarray:
    """Return a tone that changes its pitch every half second, with a little noise."""
    time = np.arange(int(16000 * seconds)) / 16000
    pitch = np.where((time // 0.5) % 2 == 0, 300.0, 2500.0)
    noise = np.random.default_rng(0).normal(0, 0.003, len(time))
    return (0.3 * np.sin(2 * np.pi * np.cumsum(pitch) / 16000) + noise).astype(np.float32)


@pytest.fixture
def recordings(tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    for index in range(3):
        soundfile.write(folder / f"{index}.wav", _tones(2.0 + index), 16000)
    return folder


def _utterances(folder) -> list[Utterance]:
    return [Utterance(id=path.stem, audio_path=path) for path in sorted(folder.glob("*.wav"))]


@pytest.mark.parametrize("layer", ["mel", 0, 2])
def test_every_layer_gives_a_unit_per_encoder_frame(recordings, layer) -> None:
    model = _model()
    units, skipped = fit(model, _utterances(recordings), layer=layer, num_units=4)
    assert not skipped and units.layer == layer and units.frame_rate == 25
    found = encode_units(model, units, torch.from_numpy(_tones(2.0)))
    assert found.shape == (50,) and found.dtype == torch.int64 and int(found.max()) < 4


def test_log_mel_units_follow_the_tone(recordings) -> None:
    model = _model()
    units, _ = fit(model, _utterances(recordings), layer="mel", num_units=2)
    found = encode_units(model, units, torch.from_numpy(_tones(2.0)))
    low, high = found[2:10], found[15:23]
    assert (low == low[0]).all() and (high == high[0]).all() and low[0] != high[0]


def test_a_long_recording_is_heard_in_windows_of_the_same_frames() -> None:
    model = _model()
    frames = extract_frames(model, 1, torch.from_numpy(_tones(45.3)))
    assert frames.shape == (1132, 16)  # 45.3 s at 25 Hz
    assert torch.isfinite(frames).all()
    # The first window alone gives the same first frames: neighbours meet in their overlap.
    alone = extract_frames(model, 1, torch.from_numpy(_tones(20.0)))
    torch.testing.assert_close(frames[:400], alone[:400])


def test_nothing_heard_is_no_units() -> None:
    assert extract_frames(_model(), 2, torch.zeros(0)).shape == (0, 16)
    assert extract_frames(_model(), "mel", torch.zeros(100)).shape == (0, 320)


def test_units_of_another_encoder_are_refused(recordings) -> None:
    model, other = _model(), _model(seed=1)
    units, _ = fit(model, _utterances(recordings), layer=1, num_units=4)
    assert encoder_checksum(model.encoder) != encoder_checksum(other.encoder)
    check_encoder(model, units)
    with pytest.raises(ModelError, match="give the model that they were fitted with"):
        check_encoder(other, units)
    with pytest.raises(ModelError, match="50 frames per second, but this encoder makes 25"):
        check_encoder(model, replace(units, frame_rate=50.0))


def test_units_of_log_mel_frames_belong_to_any_encoder_of_their_rate(recordings) -> None:
    units, _ = fit(_model(), _utterances(recordings), layer="mel", num_units=4)
    check_encoder(_model(seed=1), units)


def test_a_layer_that_is_not_there_is_refused(recordings) -> None:
    with pytest.raises(ConfigError, match="mel or 0 to 2, but is 3"):
        fit(_model(), _utterances(recordings), layer=3, num_units=4)


def test_a_recording_that_cannot_be_read_is_left_out_and_said(recordings) -> None:
    (recordings / "broken.wav").write_bytes(b"no audio")
    units, skipped = fit(_model(), _utterances(recordings), layer=1, num_units=4)
    assert units.num_units == 4
    assert [item.id for item in skipped] == ["broken"]
    with pytest.raises(DataError, match=r"no recording could be read of 1; the first: .*broken"):
        fit(_model(), _utterances(recordings)[-1:], layer=1, num_units=4)


def test_times_of_units_in_seconds() -> None:
    sequence = UnitSequence.of(torch.tensor([7, 7, 7, 1]), 0.04)
    assert (sequence.units, sequence.durations) == ((7, 1), (3, 1))
    assert sequence.times() == [(0.0, 0.12), (0.12, 0.16)]


def test_the_command_fits_and_applies(recordings, tmp_path, capsys) -> None:
    bundle = str(save_bundle(_model().bundle, tmp_path / "model"))
    units, out = str(tmp_path / "units"), tmp_path / "out"
    fitting = ["units", "fit", str(recordings), "--model", bundle, "--num_units", "4", "-o", units]
    assert main([*fitting, "--layer", "1"]) == 0
    assert main([*fitting, "--layer", "1"]) == 2
    assert "--overwrite replaces them" in capsys.readouterr().err
    one = str(recordings / "0.wav")
    apply = ["units", "apply", "--units", units, "--model", bundle]
    assert main([*apply, one]) == 0
    entry = json.loads(capsys.readouterr().out)
    assert sum(entry["durations"]) == 50 and len(entry["units"]) == len(entry["durations"])
    assert main([*apply, one, str(tmp_path / "none.wav"), "-o", str(out), "-f", "tsv"]) == 1
    rows = (out / "0.tsv").read_text().splitlines()
    assert rows[0] == "unit\tstart\tend" and rows[-1].endswith("2.000")
    assert "none.wav" in capsys.readouterr().err
    (out / "two\nlines.tsv").write_text("mine")
    (recordings / "0.wav").rename(recordings / "two\nlines.wav")
    assert main([*apply, str(recordings / "two\nlines.wav"), "-o", str(out), "-f", "tsv"]) == 0
    told = capsys.readouterr().err
    assert told.startswith(
        f"1 file is there already and left alone, the first {out}/two\\nlines.tsv"
    )
    assert told.count("\n") == 1 and (out / "two\nlines.tsv").read_text() == "mine"
    one = str((recordings / "two\nlines.wav").rename(one))
    other = str(save_bundle(_model(seed=1).bundle, tmp_path / "other"))
    assert main(["units", "apply", one, "--units", units, "--model", other]) == 2
    assert "fitted with the encoder" in capsys.readouterr().err


def test_the_checksum_survives_the_disk(tmp_path) -> None:
    model = _model()
    again = load(save_bundle(model.bundle, tmp_path))
    assert encoder_checksum(again.encoder) == encoder_checksum(model.encoder)


def test_phases_are_frames_between_frames(recordings) -> None:
    model = _model()
    waveform = torch.from_numpy(_tones(2.0))
    once, twice = (extract_frames(model, 1, waveform, phases=n) for n in (1, 2))
    assert len(twice) == 2 * len(once)
    assert torch.allclose(twice[::2], once, atol=1e-5)
    units, _ = fit(model, _utterances(recordings), layer=1, num_units=4, phases=2)
    assert units.frame_rate == 2 * model.sample_rate / model.hop
    check_encoder(model, units)
    assert len(encode_units(model, units, waveform)) == len(twice)
    with pytest.raises(ConfigError, match="`phases` must divide the hop"):
        fit(model, _utterances(recordings), layer=1, num_units=4, phases=7)
