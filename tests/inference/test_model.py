"""A loaded model encodes, gives logits, and explains what it cannot do."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import speechjepa
from speechjepa.cli.info import describe
from speechjepa.errors import ModelError
from speechjepa.inference.model import SpeechModel, load
from speechjepa.models.bundle import Bundle, build_encoder, save_bundle
from speechjepa.models.ctc import CtcModel
from speechjepa.models.speech_encoder import SpeechEncoderConfig
from speechjepa.models.wav2vec2 import Wav2Vec2Config
from speechjepa.text.vocabulary import Vocabulary

NATIVE = SpeechEncoderConfig(width=16, num_layers=2, num_heads=2, ffn_width=24, kernel_size=5)
WAVEFORM = Wav2Vec2Config(
    conv_widths=(8,) * 7,
    width=16,
    num_layers=2,
    num_heads=2,
    ffn_width=24,
    position_kernel=8,
    position_groups=2,
)
CONFIGS = pytest.mark.parametrize("config", [NATIVE, WAVEFORM], ids=["native", "wav2vec2"])


def pretrained(config=NATIVE) -> Bundle:
    torch.manual_seed(0)
    return Bundle(encoder=build_encoder(config))


def fine_tuned(config=NATIVE, upsample=1) -> Bundle:
    bundle = pretrained(config)
    bundle.vocabulary = Vocabulary.build(["abc"])
    bundle.ctc = CtcModel(bundle.encoder, len(bundle.vocabulary), upsample)
    bundle.languages = ("mdw",)
    return bundle


@CONFIGS
def test_logits_and_features_do_not_depend_on_padding(config):
    model = SpeechModel(fine_tuned(config))
    short = 0.1 * torch.randn(1, 5000)
    padded = torch.nn.functional.pad(short, (0, 3000), value=0.7).repeat(2, 1)
    logits, lengths = model.logits(padded, torch.tensor([5000, 8000]))
    alone, alone_lengths = model.logits(short)
    frames = int(alone_lengths)
    assert int(lengths[0]) == frames == 15
    assert logits.dtype == torch.float32 and logits.shape[2] == 5
    assert torch.allclose(logits[0, :frames], alone[0, :frames], atol=1e-4)
    features = model.encode(padded, torch.tensor([5000, 8000])).features
    assert torch.allclose(features[0, :frames], model.encode(short).features[0], atol=1e-4)


@CONFIGS
def test_every_layer_comes_on_request(config):
    model = SpeechModel(pretrained(config))
    assert len(model.encode(torch.randn(1, 4000), return_layers=True).layers) == 3
    assert model.encode(torch.randn(1, 4000)).layers is None


def test_features_can_be_trained_upon():
    features = SpeechModel(pretrained()).encode(torch.randn(1, 4000)).features
    head = torch.nn.Linear(16, 1)
    head(features).sum().backward()
    assert head.weight.grad.abs().sum() > 0


def test_a_loaded_model_says_what_it_is(tmp_path):
    folder = save_bundle(fine_tuned(upsample=2), tmp_path / "run" / "finetune" / "bundle")
    for path in (folder, str(folder), tmp_path / "run"):
        model = speechjepa.load(path)
        assert model.path == folder
    assert model.sample_rate == 16000
    assert model.hop == 320
    assert model.frame_seconds == 0.01
    assert model.logit_hop == 160
    assert model.languages == ("mdw",)
    assert model.vocabulary.symbols == ("<blank>", "|", "a", "b", "c")
    assert model.beam_search is None


@CONFIGS
def test_info_is_json(tmp_path, config):
    for bundle in (fine_tuned(config), pretrained(config)):
        info = load(save_bundle(bundle, tmp_path / "b")).info()
        assert json.loads(json.dumps(info)) == info
        assert info["parameters"] > 1000
        assert info["head"] == (None if bundle.ctc is None else "ctc")
    assert SpeechModel(bundle).info()["path"] is None


def test_info_says_the_frames_of_encoder_and_head_and_lists_are_read_easily():
    bundle = fine_tuned(upsample=2)
    bundle.training = {"pretrain": {"languages": ["ar", "az"], "steps": 9}}
    lines = describe(SpeechModel(bundle).info())
    assert "frames      encoder 20 ms, output 10 ms" in lines
    assert "pretrain    languages ar az, steps 9" in lines
    assert "frames      encoder 20 ms" in describe(SpeechModel(pretrained()).info())


def test_changing_what_info_returned_does_not_change_the_model():
    model = SpeechModel(pretrained())
    model.info()["encoder"]["width"] = 1
    assert model.encoder.config.width == 16


def test_a_pretrained_model_says_that_it_must_be_fine_tuned(tmp_path):
    model = load(save_bundle(pretrained(), tmp_path / "b"))
    with pytest.raises(ModelError, match=r"b was pretrained but not fine-tuned.*finetune --help"):
        model.logits(torch.randn(1, 4000))
    with pytest.raises(ModelError, match="has no vocabulary"):
        _ = model.vocabulary


@pytest.mark.parametrize(
    "waveform, lengths, message",
    [
        (torch.randn(4000), None, r"must be \(B, S\) float32, but is \(4000,\)"),
        (torch.zeros(1, 4000, dtype=torch.int16), None, "but is .* torch.int16 instead"),
        (np.zeros((1, 4000), np.float32), None, "must be a tensor .* but is ndarray"),
        (torch.randn(2, 400), torch.tensor([400]), r"must be \(2,\) whole numbers"),
        (torch.randn(1, 400), torch.tensor([401]), r"between 0 and 400, but is \[401\]"),
        (torch.randn(1, 400), torch.tensor([-1]), r"between 0 and 400, but is \[-1\]"),
        (torch.randn(1, 400), torch.tensor([1.0]), "whole numbers of samples"),
    ],
)
def test_arguments_that_do_not_fit_are_explained(waveform, lengths, message):
    with pytest.raises(ModelError, match=message):
        SpeechModel(fine_tuned()).logits(waveform, lengths)


@CONFIGS
def test_double_precision_and_lists_of_lengths_are_taken(config):
    model = SpeechModel(fine_tuned(config))
    waveform = torch.randn(2, 4000)
    expected, _ = model.logits(waveform, torch.tensor([4000, 3000]))
    found, _ = model.logits(waveform.double(), [4000, 3000])
    assert torch.equal(found, expected)


@CONFIGS
@pytest.mark.parametrize("samples", [0, 1, 100, 319])
def test_less_than_a_frame_gives_no_logit_frames(config, samples):
    logits, lengths = SpeechModel(fine_tuned(config, upsample=2)).logits(torch.randn(2, samples))
    assert lengths.tolist() == [0, 0]
    assert logits.isfinite().all()


def test_a_device_that_is_not_there_is_named(tmp_path):
    folder = save_bundle(pretrained(), tmp_path / "b")
    with pytest.raises(ModelError, match="the device 'toaster' cannot be used"):
        load(folder, device="toaster")


def test_a_path_without_a_bundle_is_named(tmp_path):
    with pytest.raises(ModelError, match="missing: there is no such folder"):
        load(tmp_path / "missing")


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({}, None),
        ({"finetune": {"label_minutes": 10.0}}, None),
        ({"finetune": {"label_minutes": 10.0, "utterances": 0}}, None),
        ({"finetune": {"label_minutes": 10.0, "utterances": 150}}, 4.0),
    ],
)
def test_the_length_of_the_training_utterances_is_known_where_the_bundle_says_it(
    training, expected
):
    bundle = fine_tuned()
    bundle.training = training
    assert SpeechModel(bundle).utterance_seconds == expected
