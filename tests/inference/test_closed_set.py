"""Where every utterance says one of a few transcripts, each is heard as often as it is said."""

from __future__ import annotations

import logging
import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from speechjepa.data.utterance import RECOGNISED, Utterance
from speechjepa.errors import ConfigError
from speechjepa.inference.closed_set import align, choose_transcripts
from speechjepa.inference.pseudo_labels import pseudo_label
from speechjepa.text.vocabulary import Vocabulary
from speechjepa.workflow.corpora import Corpora
from speechjepa.workflow.recipe import build_recipe
from speechjepa.workflow.self_training import closed_transcripts
from tests.tone_model import ToneModel, synthesize, write

LETTERS = Vocabulary.build(["ab"])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def one_frame(margin: float) -> np.ndarray:
    """Return logits (1, V) that prefer a to b by so many nats, and either to all else."""
    logits = np.full((1, len(LETTERS)), -50.0, np.float32)
    logits[0, LETTERS.encode("a")] = margin
    logits[0, LETTERS.encode("b")] = 0.0
    return logits


def test_alignment_raises_what_comes_up_too_rarely() -> None:
    # All four prefer the first by 1, 2, 3 and 4 nats. By symmetry the second is raised by 2.5.
    scores = -np.array([[0.0, n] for n in (1, 2, 3, 4)])
    found = align(scores, np.array([0.5, 0.5]))
    expected = [sigmoid(2.5 - n) for n in (1, 2, 3, 4)]
    np.testing.assert_allclose(found[:, 1], expected, atol=0.01)
    np.testing.assert_allclose(found.mean(axis=0), 0.5, atol=0.001)


def test_likelihoods_far_apart_are_aligned_too() -> None:
    scores = -np.array([[0.0, 400.0 * n] for n in (1, 2, 3, 4)])
    assert align(scores, np.array([0.5, 0.5])).argmax(axis=1).tolist()[2:] == [0, 0]


def test_each_speaker_is_aligned_alone() -> None:
    # One speaker's b is heard as a, by little; the other one's letters are heard as they are.
    logits = [one_frame(m) for m in [2.0, 4.0, 6.0, 8.0] * 4 + [-9.0, -9.0, 9.0, 9.0] * 4]
    found = choose_transcripts(logits, ["x"] * 16 + ["y"] * 16, {"a": 3, "b": 3}, LETTERS)
    assert [text for text, _ in found] == ["b", "b", "a", "a"] * 4 + ["b", "b", "a", "a"] * 4
    # Half of the margin counts: 1, 2, 3 and 4 nats, as above.
    assert found[0][1] == pytest.approx(math.log(sigmoid(1.5)), abs=0.01)
    assert found[2][1] == pytest.approx(math.log(sigmoid(0.5)), abs=0.01)


def test_transcripts_come_up_as_often_as_among_the_labels() -> None:
    logits = [one_frame(float(m)) for m in range(16)]
    found = choose_transcripts(logits, ["x"] * 16, {"a": 3, "b": 1}, LETTERS)
    assert Counter(text for text, _ in found) == {"a": 12, "b": 4}


def test_speakers_who_say_little_are_taken_together() -> None:
    logits = [one_frame(m) for m in [2.0, 4.0, 6.0, 8.0] * 4]
    speakers = [f"s{i // 2}" for i in range(15)] + [None]
    found = choose_transcripts(logits, speakers, {"a": 1, "b": 1}, LETTERS)
    assert [text for text, _ in found] == ["b", "b", "a", "a"] * 4


def test_what_does_not_fit_the_utterance_is_not_chosen() -> None:
    found = choose_transcripts([one_frame(5.0)] * 8, ["x"] * 8, {"a": 1, "abab": 1}, LETTERS)
    assert [text for text, _ in found] == ["a"] * 8


def test_self_training_hears_nothing_but_the_transcripts(tmp_path, caplog) -> None:
    said = ["abc", "abd", "fgh", "fga"]  # two of them with a letter that was misheard
    unlabelled = [
        Utterance(id=f"{i}-{word}", audio_path=write(tmp_path / f"{word}.wav", synthesize(word)))
        for i in range(2)
        for word in said
    ]
    story = write(tmp_path / "story.wav", synthesize("abc" + "_" * 600))
    unlabelled.append(Utterance(id="story", audio_path=story))
    with caplog.at_level(logging.WARNING):
        found = pseudo_label(ToneModel(), unlabelled, closed_set={"abc": 1, "fgh": 1})
    assert {f.utterance.id[2:]: f.utterance.text for f in found} == {
        "abc": "abc",
        "abd": "abc",
        "fgh": "fgh",
        "fga": "fgh",
    }
    assert all(f.confidence <= 0 and f.utterance.extra[RECOGNISED] for f in found)
    assert "1 recording longer than" in caplog.text


def test_labels_that_are_no_closed_set_are_refused() -> None:
    recipe = build_recipe({"name": "x", "data": {"train": "/x"}})
    said = [Utterance(id=str(i), audio_path=Path("x.wav"), text=f"Word {i}!") for i in range(501)]
    labels = cast(Corpora, SimpleNamespace(labelled=said))
    with pytest.raises(ConfigError, match="at most 500 different transcripts.*have 501"):
        closed_transcripts(recipe, labels)
    said[500:] = said[:2]
    assert Counter(closed_transcripts(recipe, labels))["word 0"] == 2
