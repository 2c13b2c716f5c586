"""What a front end takes as known is measured on the training data, wherever it is trained."""

from __future__ import annotations

from dataclasses import replace

import pytest

import speechjepa
from speechjepa.errors import ConfigError
from speechjepa.models.bundle import build_encoder
from speechjepa.models.wav2vec2 import Wav2Vec2Config
from speechjepa.training.front_end import fit_front_end
from tests.training.corpus import SMALL, make_corpus
from tests.training.test_finetune import CONFIG, run

KNOWING = replace(SMALL, normalization_prior_seconds=1.0)


def prior_of(folder):
    return speechjepa.load(folder).encoder.feature_encoder.log_mel.prior


def test_fine_tuning_measures_the_prior_and_measures_it_again_on_other_audio(tmp_path):
    config = replace(CONFIG, max_steps=2)
    first = run(tmp_path, config, encoder=KNOWING, train=make_corpus(tmp_path / "audio"))
    prior = prior_of(first)
    assert prior.seconds == 1.0
    assert prior.shape.std() > 0.1  # of the tones of the corpus, not the zeros it began with
    short = make_corpus(tmp_path / "few")[:2]
    again = prior_of(run(tmp_path, config, "again", init=first, train=short))
    assert again.seconds == 1.0
    assert not again.shape.equal(prior.shape)


def test_an_encoder_that_knows_nothing_beforehand_stays_so():
    encoder = build_encoder(SMALL)
    fit_front_end(encoder, None)
    assert encoder.feature_encoder.log_mel.prior is None
    sizes = Wav2Vec2Config(width=16, num_layers=1, num_heads=2, ffn_width=16)
    fit_front_end(build_encoder(sizes), None)


def test_a_negative_weight_is_refused():
    with pytest.raises(ConfigError, match="normalization_prior_seconds"):
        replace(SMALL, normalization_prior_seconds=-1.0)
