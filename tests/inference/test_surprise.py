"""Surprise is the error of a JEPA's predictions, frame by frame."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import soundfile
import torch

from speechjepa.errors import AudioError, ModelError
from speechjepa.inference.model import SpeechModel
from speechjepa.inference.surprise import Surprise, surprise, surprise_of_file
from speechjepa.inference.surprise_plot import envelope, surprise_svg
from speechjepa.models.bundle import Bundle, build_encoder
from speechjepa.models.pretraining import PredictorConfig, build_predictor
from speechjepa.models.speech_encoder import SpeechEncoderConfig
from speechjepa.objectives.latent import layer_targets

RATE = 16000
SIZES = {
    "width": 16,
    "num_layers": 2,
    "num_heads": 2,
    "ffn_width": 24,
    "kernel_size": 5,
    "frame_rate": 25,
}


def jepa(projection_width=None, mask_length_seconds=0.2):
    torch.manual_seed(0)
    encoder = build_encoder(SpeechEncoderConfig(**SIZES))
    sizes = PredictorConfig(
        output_width=projection_width or 16,
        predictor_width=8,
        predictor_layers=2,
        projection_width=projection_width,
        average_top_k_layers=2,
        mask_length_seconds=mask_length_seconds,
    )
    network = build_predictor(encoder, sizes).eval()
    return SpeechModel(Bundle(encoder=encoder, predictor=network, predictor_config=sizes))


@pytest.fixture
def speech():
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.normal(0, 0.1, 2 * RATE).astype(np.float32))


@pytest.mark.parametrize("projection_width", [None, 12])
def test_every_frame_has_an_error_and_a_time(speech, projection_width):
    found = surprise(jepa(projection_width), speech, offset=5)
    assert found.times == pytest.approx(5 + (np.arange(len(found.times)) + 0.5) / 25)
    assert len(found.error) == len(found.times) in (49, 50)
    assert np.isfinite(found.error).all() and (found.error > 0).all()


def test_a_predictor_of_nothing_knows_nothing_and_one_that_is_right_is_not_surprised(
    speech, monkeypatch
):
    model = jepa()
    network = model.bundle.predictor
    for name, parameter in network.named_parameters():
        if not name.startswith("encoder."):
            torch.nn.init.zeros_(parameter)
    assert surprise(model, speech).error == pytest.approx(1.0)
    with torch.no_grad():
        lengths = torch.tensor([len(speech)])
        features, frames = model.encoder.extract_features(speech[None], lengths)
        heard = model.encoder.contextualize(features, frames, return_ffn=True)
    targets = layer_targets(heard.ffn_outputs, frames, 2)
    monkeypatch.setattr(network, "predict", lambda *_: (3 * targets, None))
    assert surprise(model, speech).error == pytest.approx(0.0, abs=1e-5)


def test_a_file_is_heard_like_its_samples_and_in_pieces_when_long(tmp_path, speech):
    model = jepa()
    soundfile.write(tmp_path / "a.wav", speech.numpy(), RATE, subtype="FLOAT")
    assert surprise_of_file(model, tmp_path / "a.wav").score == pytest.approx(
        surprise(model, speech).score, rel=1e-4
    )
    soundfile.write(tmp_path / "long.wav", np.tile(speech.numpy(), 10), RATE, subtype="FLOAT")
    long = surprise_of_file(model, tmp_path / "long.wav")
    assert long.seconds == pytest.approx(20)
    assert (np.diff(long.times) > 0).all() and long.times[-1] == pytest.approx(20, abs=0.1)


def test_what_cannot_be_judged_says_why(tmp_path, speech):
    soundfile.write(tmp_path / "short.wav", speech.numpy()[:3000], RATE)
    with pytest.raises(AudioError, match=r"short\.wav: lasts 0\.188 s; surprise needs"):
        surprise_of_file(jepa(), tmp_path / "short.wav")
    encoder = build_encoder(SpeechEncoderConfig(**SIZES))
    with pytest.raises(ModelError, match="no predictor"):
        surprise(SpeechModel(Bundle(encoder=encoder)), speech)


def test_scores_are_those_of_the_curve():
    error = np.array([0, 0, 0, 1, 4, 5, 4, 1, 0, 0] * 2, np.float32)
    error[5] = 9
    found = Surprise(times=np.arange(20) / 10, error=error, seconds=2)
    assert found.score == pytest.approx(34 / 20)
    assert found.peak == pytest.approx((9 + 5) / 2)
    assert found.peak_time == pytest.approx(0.5)


def test_a_curve_below_zero_stays_within_its_frame():
    error = np.linspace(-2, 3, 50, dtype=np.float32)
    found = Surprise(times=np.arange(50) / 25, error=error, seconds=2)
    root = ElementTree.fromstring(surprise_svg(found, "a", envelope(np.ones(1000, np.float32))))
    (curve,) = root.iter("{http://www.w3.org/2000/svg}polyline")
    heights = [float(point.split(",")[1]) for point in curve.get("points").split()]
    assert min(heights) >= 34 and heights[0] == max(heights) == 220
    (zero,) = [
        t
        for t in root.iter("{http://www.w3.org/2000/svg}text")
        if t.text == "0" and t.get("text-anchor") == "end"
    ]
    assert float(zero.get("y")) - 4 == pytest.approx(220 - 186 * 2 / (2 + 3 * 1.05), abs=0.1)


def test_the_plot_is_one_well_formed_picture():
    found = Surprise(times=np.arange(4000) / 25, error=np.ones(4000, np.float32), seconds=160)
    picture = surprise_svg(found, "a<b&c.wav", envelope(np.zeros(1000, np.float32)))
    root = ElementTree.fromstring(picture)
    assert root.tag.endswith("svg")
    assert "a<b&c.wav" in "".join(root.itertext())
    assert "nan" not in picture
