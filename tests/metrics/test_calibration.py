"""Calibration: values worked by hand, and maps that give back what made the data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechjepa.metrics.calibration import (
    MAX_LOG_ODDS,
    MAX_TEMPERATURE,
    ScoreMap,
    area_under_roc,
    expected_calibration_error,
    fit_score_map,
    log_odds,
    reliability,
)

SCORES = [0.1, 0.15, 0.6, 0.65, 0.9]
RIGHT = [False, True, True, True, False]


def test_the_error_is_that_worked_by_hand() -> None:
    low, middle, high = reliability(SCORES, RIGHT, num_bins=5)
    assert (low.low, low.high, low.count) == (0.0, 0.2, 2)
    assert (low.confidence, low.accuracy) == (pytest.approx(0.125), 0.5)
    assert (middle.count, middle.accuracy) == (2, 1.0)
    assert (high.count, high.high, high.accuracy) == (1, 1.0, 0.0)
    # (2 |0.5 - 0.125| + 2 |1 - 0.625| + 1 |0 - 0.9|) / 5
    assert expected_calibration_error(SCORES, RIGHT, num_bins=5) == pytest.approx(2.4 / 5)


def test_bins_of_equal_mass_hold_equally_many() -> None:
    bins = reliability([0.9, 0.91, 0.92, 0.93], [1, 0, 1, 1], num_bins=2, equal_mass=True)
    assert [one.count for one in bins] == [2, 2]
    assert [one.accuracy for one in bins] == [0.5, 1.0]
    assert (bins[1].low, bins[1].high) == (0.92, 0.93)


def test_a_score_of_one_belongs_to_the_last_bin() -> None:
    assert reliability([1.0], [True])[0].high == 1.0
    assert expected_calibration_error([1.0], [True]) == 0.0
    assert expected_calibration_error([], []) == 0.0


def test_scores_outside_zero_and_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        reliability([1.2], [True])
    with pytest.raises(ValueError, match=r"must be \(N,\)"):
        reliability([0.2, 0.3], [True])


def test_the_area_counts_pairs_in_the_right_order() -> None:
    assert area_under_roc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == 0.75  # 3 of 4 pairs
    assert area_under_roc([0.5, 0.5, 0.5], [0, 1, 1]) == 0.5
    assert area_under_roc([0.5], [True]) is None


def test_log_odds_are_exact_at_both_ends() -> None:
    assert log_odds(math.log(0.5)) == pytest.approx(0.0)
    assert log_odds(math.log(0.8)) == pytest.approx(math.log(4))
    assert log_odds(-1e-12) == pytest.approx(27.631, abs=1e-3)
    assert log_odds(-25.0) == pytest.approx(-25.0)
    assert (log_odds(0.0), log_odds(-math.inf)) == (MAX_LOG_ODDS, -MAX_LOG_ODDS)


def test_a_map_is_the_sigmoid_of_cooled_log_odds() -> None:
    made = ScoreMap(temperature=2.0, offset=-1.0)
    assert made(2.0) == pytest.approx(0.5)
    assert made(4.0) == pytest.approx(1 / (1 + math.exp(-1)))
    assert 0 < made(-1e9) < made(1e9) < 1
    with pytest.raises(ValueError, match="temperature"):
        ScoreMap(temperature=0.0)


def drawn(temperature: float, offset: float, count: int = 20000) -> tuple[np.ndarray, np.ndarray]:
    """Draw raw log-odds, and what is right where this map is the truth."""
    generator = np.random.default_rng(0)
    x = generator.normal(2.0, 4.0, count)
    return x, generator.random(count) < 1 / (1 + np.exp(-(x / temperature + offset)))


def test_the_map_that_made_the_data_is_found() -> None:
    x, right = drawn(3.0, -1.5)
    found = fit_score_map(x, right)
    assert found.temperature == pytest.approx(3.0, rel=0.05)
    assert found.offset == pytest.approx(-1.5, abs=0.07)
    raw = 1 / (1 + np.exp(-x))
    mapped = [found(value) for value in x]
    assert expected_calibration_error(raw, right) > 0.2
    assert expected_calibration_error(mapped, right) < 0.015
    assert area_under_roc(mapped, right) == pytest.approx(area_under_roc(raw, right), abs=1e-9)


def test_without_an_offset_it_is_temperature_scaling() -> None:
    found = fit_score_map(*drawn(2.5, 0.0), use_offset=False)
    assert found.temperature == pytest.approx(2.5, rel=0.05)
    assert found.offset == 0.0


def test_scores_that_say_nothing_become_the_share_of_right_ones() -> None:
    x = np.linspace(-5, 5, 1000)
    found = fit_score_map(x, x < -2.5)  # the surer the wronger: the order is never turned round
    assert found.temperature == MAX_TEMPERATURE
    assert found(3.0) == pytest.approx(0.25, abs=0.01)


@given(
    st.lists(st.floats(-60, 60), min_size=1, max_size=30),
    st.integers(0, 1 << 30),
    st.booleans(),
)
def test_a_map_always_rises_and_stays_a_probability(x, bits, use_offset) -> None:
    right = [bool(bits >> index & 1) for index in range(len(x))]
    found = fit_score_map(x, right, use_offset=use_offset)
    values = [found(value) for value in (-100.0, -3.0, 0.0, 3.0, 100.0)]
    assert values == sorted(values)
    assert all(0 <= value <= 1 and math.isfinite(value) for value in values)
