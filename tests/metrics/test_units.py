"""Figures of units, by hand."""

from __future__ import annotations

import math

import pytest

from speechjepa.metrics.units import bitrate, phone_figures


def test_units_that_are_the_phones_say_everything() -> None:
    assert phone_figures([7, 7, 3, 3, 9], "aabbc") == pytest.approx((1.0, 1.0, 1.0))


def test_one_unit_says_nothing_of_the_phones() -> None:
    found = phone_figures([0, 0, 0, 0], "aaab")
    assert found == pytest.approx((0.75, 1.0, 0.0))


def test_purity_and_information_by_hand() -> None:
    # Unit 0: a a a b; unit 1: b b; unit 2: a b. Right by unit: 3 + 2 + 1 = 6 of 8.
    # By phone: a is mostly unit 0 (3 of 4), b mostly unit 1 (2 of 4): 5 of 8.
    found = phone_figures([0, 0, 0, 0, 1, 1, 2, 2], "aaabbbab")
    assert found.phone_purity == pytest.approx(6 / 8)
    assert found.unit_purity == pytest.approx(5 / 8)
    # H(phone) = 1 bit; H(phone | unit) = 1/2 h(1/4) + 1/4 * 0 + 1/4 * 1 bits.
    h = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert found.phone_information == pytest.approx(1 - (h / 2 + 1 / 4))


def test_the_bitrate_of_four_units_alike_is_two_bits_each() -> None:
    assert bitrate([[0, 1, 2, 3], [3, 2, 1, 0]], seconds=4.0) == pytest.approx(2 * 8 / 4)
    assert bitrate([[5, 5]], seconds=1.0) == 0.0


def test_figures_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="must be as many"):
        phone_figures([1, 2], "a")
    with pytest.raises(ValueError, match="must be as many"):
        phone_figures([], "")
    with pytest.raises(ValueError, match="`seconds` must be more than 0"):
        bitrate([[1]], 0.0)
