"""What a front end takes as known is measured on the training data, wherever it is trained."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

import speechjepa
from speechjepa.errors import ConfigError
from speechjepa.models.bundle import build_encoder, fresh_copy
from speechjepa.models.wav2vec2 import Wav2Vec2Config
from speechjepa.training.front_end import fit_front_end
from tests.training import test_pretrain as pretraining
from tests.training import test_translation as translating
from tests.training.corpus import SMALL, make_corpus
from tests.training.test_finetune import CONFIG, run

KNOWING = replace(SMALL, normalization_prior_seconds=1.0)
BRIEF = replace(CONFIG, max_steps=2)


def prior_of(folder):
    return speechjepa.load(folder).encoder.feature_encoder.log_mel.prior


@pytest.fixture
def knowing(tmp_path):
    return run(tmp_path, BRIEF, "knowing", encoder=KNOWING)


def test_fine_tuning_measures_the_prior_and_measures_it_again_on_other_audio(tmp_path, knowing):
    prior = prior_of(knowing)
    assert prior.seconds == 1.0 and prior.is_measured
    few = make_corpus(tmp_path / "few")[:2]
    again = prior_of(run(tmp_path, BRIEF, "again", init=knowing, train=few, encoder=SMALL))
    assert again.seconds == 1.0
    assert not again.colour.equal(prior.colour)


def test_settings_may_give_a_prior_to_an_encoder_without_one(tmp_path):
    first = run(tmp_path, BRIEF, "first")
    assert prior_of(first) is None
    prior = prior_of(run(tmp_path, BRIEF, "second", init=first, encoder=KNOWING))
    assert prior.seconds == 1.0 and prior.is_measured


@pytest.mark.parametrize("frozen", ["freeze_encoder", "freeze_feature_encoder"])
def test_what_weights_that_do_not_learn_were_measured_with_stays(tmp_path, knowing, frozen):
    few = make_corpus(tmp_path / "few")[:2]
    config = replace(BRIEF, **{frozen: True})
    prior = prior_of(run(tmp_path, config, "frozen", init=knowing, train=few))
    assert prior.colour.equal(prior_of(knowing).colour)
    assert prior_of(run(tmp_path, config, "fresh", encoder=KNOWING)).is_measured


def test_pretraining_measures_it(tmp_path):
    config = replace(pretraining.CONFIG, objective="reconstruct", max_steps=2)
    assert prior_of(pretraining.run(tmp_path, config, encoder=KNOWING)).is_measured


def test_a_translator_measures_it(tmp_path):
    config = replace(translating.CONFIG, max_steps=2)
    assert prior_of(translating.train(tmp_path, config, encoder=KNOWING)).is_measured


def test_fresh_weights_hear_as_those_that_they_are_held_against(knowing):
    encoder = speechjepa.load(knowing).encoder
    fresh = fresh_copy(encoder)
    assert fresh.feature_encoder.log_mel.prior.colour.equal(prior_of(knowing).colour)
    assert not fresh.blocks[0].ffn_in.weight.equal(encoder.blocks[0].ffn_in.weight)


def test_an_encoder_that_knows_nothing_beforehand_stays_so():
    encoder = build_encoder(SMALL)
    fit_front_end(encoder, None)
    assert encoder.feature_encoder.log_mel.prior is None
    sizes = Wav2Vec2Config(width=16, num_layers=1, num_heads=2, ffn_width=16)
    fit_front_end(build_encoder(sizes), None)


@pytest.mark.parametrize("seconds", [-1.0, math.inf, math.nan])
def test_a_weight_that_is_none_is_refused(seconds):
    with pytest.raises(ConfigError, match="normalization_prior_seconds"):
        replace(SMALL, normalization_prior_seconds=seconds)


def test_constants_take_no_prior():
    with pytest.raises(ConfigError, match="normalization: global"):
        replace(KNOWING, normalization="global")
