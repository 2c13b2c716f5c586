"""ABX error on vectors whose order is known."""

from __future__ import annotations

import numpy as np
import pytest

from speechjepa.metrics.abx import abx_error


def test_classes_apart_have_no_error_and_mixed_ones_half():
    apart = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], np.float32)
    assert abx_error(apart, ["a", "a", "b", "b"]) == 0
    assert abx_error(np.ones((6, 3), np.float32), list("aaabbb")) == 0.5
    noise = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    assert abx_error(noise, list("ab" * 100)) == pytest.approx(0.5, abs=0.03)


def test_one_triple_by_hand():
    # x = a1, a = a2 at 90 degrees, b at 45 degrees: wrong. x = a2: b at 45, wrong too.
    # x = b1 with b2 the same: right for both a.
    vectors = np.array([[1, 0], [0, 1], [1, 1], [2, 2]], np.float32)
    assert abx_error(vectors, ["a", "a", "b", "b"]) == pytest.approx(0.5)


def test_too_few_tokens_are_refused():
    with pytest.raises(ValueError, match="at least two classes"):
        abx_error(np.ones((3, 2), np.float32), ["a", "a", "b"])
