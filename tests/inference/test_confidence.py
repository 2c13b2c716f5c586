"""Scores of words: what they rest on, that they are fitted, stored and applied."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from speechjepa.errors import ModelError
from speechjepa.inference.align import WordSpan, align_words
from speechjepa.inference.confidence import (
    FEWEST_WORDS,
    HeardWords,
    calibrate,
    hear_words,
    measure_confidence,
    stored_map,
)
from speechjepa.inference.transcribe import transcribe
from speechjepa.metrics.calibration import ScoreMap, log_odds
from speechjepa.models.bundle import Bundle, load_bundle, save_bundle, update_bundle
from speechjepa.text.vocabulary import Vocabulary
from tests.tone_model import ToneModel, synthesize, write

VOCABULARY = Vocabulary(["<blank>", "|", "a", "b"])


def posteriors(*rows: list[float]) -> torch.Tensor:
    return torch.log(torch.tensor(rows))


def test_the_probability_of_a_word_is_that_of_its_characters_and_the_boundaries_beside_it():
    logits = posteriors(
        [0.1, 0.1, 0.7, 0.1], [0.2, 0.6, 0.1, 0.1], [0.1, 0.1, 0.3, 0.5], [0.1, 0.1, 0.6, 0.2]
    )
    first, second = align_words(logits, "a ba", VOCABULARY, frame_seconds=0.02)
    assert first.log_probability == pytest.approx(math.log(0.7 * 0.6))
    assert second.log_probability == pytest.approx(math.log(0.6 * 0.5 * 0.6))
    assert (first.score, second.score) == (pytest.approx(0.7), pytest.approx(0.55))


def test_words_are_right_where_the_word_error_rate_says_so():
    path = [2, 1, 3, 1, 2, 3]  # a b ab
    logits = torch.nn.functional.one_hot(torch.tensor(path), 4).float().numpy() * 9
    heard = hear_words([logits, logits[:0]], ["a b ab", ""], ["a ab", "b"], VOCABULARY)
    assert heard.correct.tolist() == [True, False, True]
    assert heard.utterance.tolist() == [0, 0, 0]
    assert (heard.mean_posterior > 0.99).all()


def test_a_text_with_more_symbols_than_frames_is_left_out():
    logits = np.zeros((3, 4), np.float32)
    assert len(hear_words([logits], ["abab ab"], ["a"], VOCABULARY).correct) == 0


def heard_words(count=2000, temperature=3.0, offset=-2.0):
    """Words whose raw scores are far too sure of themselves."""
    generator = np.random.default_rng(0)
    raw = -generator.exponential(1.5, count)  # nats
    chance = [ScoreMap(temperature=temperature, offset=offset)(log_odds(x)) for x in raw]
    return HeardWords(
        utterance=np.arange(count) // 5,
        log_probability=raw,
        mean_posterior=np.exp(raw / 4),
        correct=generator.random(count) < chance,
    )


def test_the_fitted_map_calibrates_and_is_measured_on_the_other_half_too():
    found = measure_confidence(heard_words(), stored=ScoreMap(temperature=3.0, offset=-2.0))
    assert found["ece_mean_posterior"] > 0.3 < found["ece_temperature_only"] + 0.3
    assert found["ece_fitted"] < 0.03
    assert found["ece_held_out"] < 0.04
    assert found["ece_stored"] < 0.03
    assert found["map"]["offset"] == pytest.approx(-2.0, abs=0.3)
    assert sum(one["count"] for one in found["bins_held_out"]) == found["num_words"] == 2000
    json.dumps(found)


def test_the_halves_are_utterances_not_words():
    words = heard_words(400)
    one = HeardWords(**{**vars(words), "utterance": np.zeros(400, int)})
    assert measure_confidence(one)["ece_held_out"] == measure_confidence(one)["ece_fitted"]


def test_too_few_words_fit_no_map():
    assert measure_confidence(heard_words(FEWEST_WORDS - 1)) is None


def test_calibrated_scores_keep_their_order():
    words = [
        WordSpan(word=c, start=0.0, end=0.1, score=0.9, log_probability=x)
        for c, x in (("a", -0.01), ("b", -0.5), ("c", -6.0), ("d", -math.inf))
    ]
    assert calibrate(words, None) == words
    scores = [word.score for word in calibrate(words, ScoreMap(temperature=2.0, offset=-1.0))]
    assert scores[0] > scores[1] > scores[2]
    assert scores[3] == 0.9  # nothing is known of it


def test_transcripts_carry_the_calibrated_scores(tmp_path):
    path = write(tmp_path / "a.wav", synthesize("abc de"))
    model = ToneModel()
    (plain,) = transcribe(model, path, word_timestamps=True)["segments"]
    model.calibration = {"greedy": {"temperature": 1.0, "offset": -50.0}}
    (segment,) = transcribe(model, path, word_timestamps=True)["segments"]
    assert plain["score"] > 0.9 > 0.01 > segment["score"]
    assert all(word["score"] < 0.01 for word in segment["words"])
    assert [word["start"] for word in segment["words"]] == [w["start"] for w in plain["words"]]


def test_each_way_of_decoding_has_its_own_map():
    stored = {"greedy": {"temperature": 2.0, "offset": -1.0}, "lm": {"temperature": 3.0}}
    assert stored_map(stored, use_lm=False) == ScoreMap(temperature=2.0, offset=-1.0)
    assert stored_map(stored, use_lm=True) == ScoreMap(temperature=3.0)
    assert stored_map({}, use_lm=True) is None
    with pytest.raises(ModelError, match="damaged"):
        stored_map({"lm": {"temperature": -1.0}}, use_lm=True)


def test_a_bundle_carries_its_maps(tmp_path):
    from speechjepa.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig

    encoder = SpeechEncoder(SpeechEncoderConfig(width=16, num_layers=1, num_heads=2))
    save_bundle(Bundle(encoder=encoder), tmp_path)
    assert load_bundle(tmp_path).calibration == {}
    maps = {"greedy": {"temperature": 2.5, "offset": -1.25}}
    update_bundle(tmp_path, calibration=maps)
    again = save_bundle(load_bundle(tmp_path), tmp_path / "again")
    assert load_bundle(again).calibration == maps
    config = json.loads((tmp_path / "config.json").read_text())
    del config["calibration"]  # as older bundles are
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_bundle(tmp_path).calibration == {}
    update_bundle(tmp_path, calibration={"greedy": "warm"})
    with pytest.raises(ModelError, match="calibration"):
        load_bundle(tmp_path)
