"""The times that words are measured against are those of the sound."""

from __future__ import annotations

import numpy as np
import pytest

from tools.benchmark_times import Errors, SpokenWord, speak

SAID = [
    SpokenWord(word="uno", start=0.1, end=0.4),
    SpokenWord(word="dos", start=0.4, end=None),
    SpokenWord(word="tres", start=None, end=0.9),
]


def heard(*words: tuple[str, float, float]) -> list[dict]:
    return [{"words": [{"word": w, "start": start, "end": end} for w, start, end in words]}]


def test_errors_are_those_of_right_words_whose_times_are_known() -> None:
    errors = Errors()
    errors.add(SAID, heard(("uno", 0.11, 0.36), ("x", 0.4, 0.6), ("tres", 0.7, 0.92)), 1.0)
    errors.add(SAID, heard(("dos", 0.35, 0.5)), 1.0)
    assert errors.starts == pytest.approx([10.0, -50.0])
    assert errors.ends == pytest.approx([-40.0, 20.0])
    found = errors.summary()
    assert found["median_ms"] == 30.0
    assert (found["num_starts"], found["num_ends"], found["words_heard"]) == (2, 2, 4)
    assert (found["share_monotone"], found["share_inside"]) == (1.0, 1.0)


def test_words_out_of_order_or_beyond_the_end_are_counted() -> None:
    errors = Errors()
    errors.add(SAID, heard(("uno", 0.5, 0.6), ("dos", 0.4, 0.5), ("tres", 0.9, 1.2)), 1.0)
    found = errors.summary()
    assert found["share_monotone"] == found["share_inside"] == pytest.approx(2 / 3)


def test_speech_is_where_its_words_are_said_to_be() -> None:
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("num2words")
    for waveform, words in speak("es", 3, seed=0):
        known = [word for word in words if word.start is not None and word.end is not None]
        assert known
        inside = np.zeros(len(waveform), bool)
        for word in known:
            assert 0 <= word.start < word.end <= len(waveform) / 16000
            inside[round(16000 * word.start) : round(16000 * word.end)] = True
        power = waveform**2
        if len(known) == len(words):
            assert power[inside].mean() > 10 * power[~inside].mean()
