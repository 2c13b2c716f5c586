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
from speechjepa.workflow.self_training import closed_transcripts, writable_transcripts
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
    found = align(np.repeat(scores, 100, axis=0), np.array([0.5, 0.5]), slack=0.0)[::100]
    expected = [sigmoid(2.5 - n) for n in (1, 2, 3, 4)]
    np.testing.assert_allclose(found[:, 1], expected, atol=0.01)
    np.testing.assert_allclose(found.mean(axis=0), 0.5, atol=0.002)
    # Two standard deviations of a half among 400 are 0.05.
    found = align(np.repeat(scores, 100, axis=0), np.array([0.5, 0.5]), slack=2.0)
    assert found[:, 1].mean() == pytest.approx(0.45, abs=0.001)


def test_likelihoods_far_apart_are_aligned_too() -> None:
    scores = -np.array([[0.0, 400.0 * n] for n in (1, 2, 3, 4)])
    found = align(np.repeat(scores, 9, axis=0), np.array([0.5, 0.5]), slack=0.0)
    assert found.argmax(axis=1)[18:].tolist() == [0] * 18
    assert found[:9, 1].min() > 0.99


@pytest.mark.parametrize("slack", [0.0, 2.0])
def test_a_single_utterance_is_what_it_sounds_like(slack) -> None:
    for counts in ({"a": 1, "b": 9}, {"a": 9, "b": 1}):
        found = choose_transcripts(
            [one_frame(9.0), one_frame(-9.0)], ["x", "y"], counts, LETTERS, slack=slack
        )
        assert [text for text, _ in found] == ["a", "b"]


def test_what_is_drawn_at_random_is_heard_as_well_as_without() -> None:
    random = np.random.default_rng(0)
    said = random.integers(0, 10, 40)
    scores = random.normal(0, 1, (40, 10))
    scores[np.arange(40), said] += 8
    found = align(scores, np.full(10, 0.1), slack=2.0).argmax(axis=1)
    assert (found == said).mean() >= (scores.argmax(axis=1) == said).mean() - 0.025


def test_each_speaker_is_aligned_alone() -> None:
    # One speaker's b is heard as a, by little; the other one's letters are heard as they are.
    logits = [one_frame(m) for m in [2.0, 4.0, 6.0, 8.0] * 100 + [-9.0, -9.0, 9.0, 9.0] * 100]
    speakers = ["x"] * 400 + [None] * 400
    found = choose_transcripts(logits, speakers, {"a": 3, "b": 3}, LETTERS, slack=0.0)
    assert [text for text, _ in found] == ["b", "b", "a", "a"] * 200
    # Half of the margin counts: 1, 2, 3 and 4 nats, as above.
    assert found[0][1] == pytest.approx(math.log(sigmoid(1.5)), abs=0.01)
    assert found[2][1] == pytest.approx(math.log(sigmoid(0.5)), abs=0.01)


def test_transcripts_come_up_as_often_as_among_the_labels() -> None:
    logits = [one_frame(float(m)) for m in range(16)] * 10
    found = choose_transcripts(logits, ["x"] * 160, {"a": 3, "b": 1}, LETTERS, slack=0.0)
    assert Counter(text for text, _ in found) == {"a": 120, "b": 40}


def test_what_does_not_fit_the_utterance_is_not_chosen() -> None:
    logits = [one_frame(5.0)] * 8
    found = choose_transcripts(logits, ["x"] * 8, {"a": 1, "abab": 1}, LETTERS, slack=0.0)
    assert [text for text, _ in found] == ["a"] * 8
    found = choose_transcripts(logits, ["x"] * 8, {"abab": 1}, LETTERS, slack=0.0)
    assert found == [("", -math.inf)] * 8


def test_self_training_hears_nothing_but_the_transcripts(tmp_path, caplog) -> None:
    said = ["abc", "abd", "fgh", "fga"]  # two of them with a letter that was misheard
    unlabelled = [
        Utterance(id=f"{i}-{word}", audio_path=write(tmp_path / f"{word}.wav", synthesize(word)))
        for i in range(2)
        for word in said
    ]
    story = write(tmp_path / "story.wav", synthesize("abc" + "_" * 600))
    unlabelled.append(Utterance(id="story", audio_path=story))
    silence = write(tmp_path / "silence.wav", synthesize("____"))
    unlabelled.append(Utterance(id="silence", audio_path=silence))
    with caplog.at_level(logging.WARNING):
        found = pseudo_label(ToneModel(), unlabelled, closed_set={"abc": 1, "fgh": 1})
    assert {f.utterance.id[2:]: f.utterance.text for f in found} == {
        "abc": "abc",
        "abd": "abc",
        "fgh": "fgh",
        "fga": "fgh",
    }
    assert all(f.confidence <= 0 and f.utterance.extra[RECOGNISED] for f in found)
    assert "too long to be one of the transcripts (more than 15 s): 1 recording" in caplog.text
    assert pseudo_label(ToneModel(), unlabelled[-1:], closed_set={"abc": 1}) == []


def test_labels_that_are_no_closed_set_are_refused() -> None:
    recipe = build_recipe({"name": "x", "data": {"train": "/x"}})
    said = [Utterance(id=str(i), audio_path=Path("x.wav"), text=f"Word {i}!") for i in range(501)]
    said.append(Utterance(id="nothing", audio_path=Path("x.wav"), text="..."))
    labels = cast(Corpora, SimpleNamespace(labelled=said))
    with pytest.raises(ConfigError, match="at most 500 different transcripts.*have 501"):
        closed_transcripts(recipe, labels)
    said[500:501] = said[:1]
    counts = closed_transcripts(recipe, labels)
    assert counts["word 0"] == 2 and "" not in counts


def test_what_no_recording_gave_letters_to_is_named_and_left_out(caplog) -> None:
    recipe = build_recipe({"name": "x", "data": {"train": "/x"}})
    said = [Utterance(id=t, audio_path=Path("x.wav"), text=t) for t in ("a b", "b", "b", "zoo")]
    labels = cast(Corpora, SimpleNamespace(labelled=said))
    with caplog.at_level(logging.WARNING):
        assert writable_transcripts(recipe, labels, LETTERS) == {"a b": 1, "b": 2}
    assert "1 transcript of the closed set cannot be written" in caplog.text
    assert "the first: zoo" in caplog.text
