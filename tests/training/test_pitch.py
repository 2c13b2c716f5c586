"""Fine-tuning gives an encoder the pitch, unless told otherwise; what has it keeps it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from speechjepa.models.bundle import Bundle, build_encoder, load_bundle, save_bundle
from tests.training.corpus import SMALL
from tests.training.test_finetune import CONFIG, killed_run, run


@pytest.fixture
def pretrained(tmp_path) -> Path:
    torch.manual_seed(0)
    return save_bundle(Bundle(encoder=build_encoder(SMALL)), tmp_path / "pretrained")


@pytest.mark.parametrize(
    ("changes", "hears"),
    [({}, True), ({"pitch": False}, False), ({"freeze_encoder": True}, False)],
    ids=["default", "off", "frozen"],
)
def test_an_encoder_that_learnt_without_the_pitch_hears_it(tmp_path, pretrained, changes, hears):
    encoder = load_bundle(run(tmp_path, replace(CONFIG, **changes), init=pretrained)).encoder
    assert encoder.config.pitch == hears
    if hears:
        assert encoder.feature_encoder.pitch.projection.weight.abs().max() > 0
        again = replace(CONFIG, pitch=False)  # what hears it keeps it
        kept = run(tmp_path, again, "again", init=tmp_path / "run" / "bundle")
        assert load_bundle(kept).encoder.config.pitch


def test_a_run_that_began_without_the_pitch_goes_on_without(tmp_path, monkeypatch):
    killed_run(tmp_path, monkeypatch, replace(CONFIG, pitch=False))
    bundle = load_bundle(run(tmp_path, CONFIG, "parts", dev=[]))
    assert bundle.training["finetune"]["steps"] == 6
    assert not bundle.encoder.config.pitch
