"""Fine-tuning gives an encoder the pitch where tones are written; what has it keeps it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from speechjepa.models.bundle import Bundle, build_encoder, load_bundle, save_bundle
from tests.training.corpus import SMALL, make_corpus
from tests.training.test_finetune import CONFIG, run


@pytest.fixture
def pretrained(tmp_path) -> Path:
    torch.manual_seed(0)
    return save_bundle(Bundle(encoder=build_encoder(SMALL)), tmp_path / "pretrained")


@pytest.mark.parametrize("frozen", ["", "freeze_encoder", "freeze_feature_encoder"])
def test_it_is_given_where_it_is_asked_for_unless_the_front_end_is_frozen(
    tmp_path, pretrained, frozen
):
    changes = {"pitch": True} | ({frozen: True} if frozen else {})
    encoder = load_bundle(run(tmp_path, replace(CONFIG, **changes), init=pretrained)).encoder
    assert encoder.config.pitch == (not frozen)
    if not frozen:
        assert encoder.feature_encoder.pitch.projection.weight.abs().max() > 0
        again = replace(CONFIG, pitch=False)  # what hears it keeps it
        kept = run(tmp_path, again, "again", init=tmp_path / "run" / "bundle")
        assert load_bundle(kept).encoder.config.pitch


@pytest.mark.parametrize("tones", [True, False])
def test_unasked_it_is_given_where_tones_are_written(tmp_path, pretrained, tones):
    train = make_corpus(tmp_path / "audio")
    if tones:
        train = [replace(u, text=(u.text or "").replace("a", "\u00e1")) for u in train]
    bundle = load_bundle(run(tmp_path, CONFIG, init=pretrained, train=train))
    assert bundle.encoder.config.pitch == tones
    assert bundle.training["finetune"]["finetune"]["pitch"] == tones
