"""Scores of translations, against values worked by hand."""

from __future__ import annotations

import pytest

from speechjepa.metrics.translation import bleu, chrf, latency, sequence_error_rate, unit_bleu


def test_the_unit_error_rate_counts_edits_per_reference_unit() -> None:
    # One substitution and one deletion in five units; nothing wrong in two.
    assert sequence_error_rate([[1, 2, 3, 4, 5], [6, 7]], [[1, 9, 3, 4], [6, 7]]) == 2 / 7
    assert sequence_error_rate([[]], [[]]) == 0.0
    assert sequence_error_rate([[]], [[1]]) == 1.0
    with pytest.raises(ValueError, match="2 and 1"):
        sequence_error_rate([[1], [2]], [[1]])


def test_bleu_and_chrf_are_sacrebleus_and_say_how() -> None:
    same = bleu(["the cat sat on the mat"], ["the cat sat on the mat"])
    assert same.value == pytest.approx(100.0)
    assert "tok:13a" in same.signature and "version:" in same.signature
    # 4 of 5 words, 3 of 4 pairs, 2 of 3 triples, 1 of 2 quadruples: their geometric mean.
    partly = bleu(["a b c d e"], ["a b c d x"])
    assert partly.value == pytest.approx(100 * (0.8 * 0.75 * 2 / 3 * 0.5) ** 0.25)
    assert chrf(["hello"], ["hello"]).value == pytest.approx(100.0)
    assert 0 < chrf(["hello"], ["hallo"]).value < 100


def test_units_are_the_words_of_unit_bleu() -> None:
    assert unit_bleu([[1, 2, 3, 4, 5]], [[1, 2, 3, 4, 6]]).value == pytest.approx(
        bleu(["a b c d e"], ["a b c d x"]).value
    )
    assert unit_bleu([[12, 1, 2, 3]], [[1, 21, 2, 3]]).value < 50


def test_a_wait_3_policy_lags_3_pieces() -> None:
    # The ideal of https://arxiv.org/abs/1810.08398: source and target of equal length, wait-k
    # reads k pieces before the first: AL = k. Ten pieces of a second each, k = 3.
    delays = [min(3000.0 + 1000.0 * i, 10_000.0) for i in range(10)]
    found = latency(delays, 10_000.0, 10)
    assert found.al == pytest.approx(3000.0)
    assert found.laal == pytest.approx(3000.0)
    assert (found.start_offset, found.end_offset) == (3000.0, 0.0)


def test_everything_at_the_end_lags_the_whole_source() -> None:
    found = latency([4000.0] * 8, 4000.0, 8)
    assert found.al == found.laal == 4000.0


def test_writing_too_much_is_no_advantage_to_laal() -> None:
    # Four pieces where the reference has two, at 1, 2, 3 and 4 s of 4 s.
    # AL, by hand with T / r = 2000: (1000 + 0 - 1000 - 2000) / 4 = -500.
    # LAAL, with T / 4 = 1000: (1000 + 1000 + 1000 + 1000) / 4 = 1000.
    found = latency([1000.0, 2000.0, 3000.0, 4000.0], 4000.0, 2)
    assert found.al == pytest.approx(-500.0)
    assert found.laal == pytest.approx(1000.0)


def test_only_the_first_piece_after_the_source_has_ended_counts() -> None:
    # Pieces at 1 s, at the end (2 s) twice: tau = 2. T / r = 2000 / 3.
    found = latency([1000.0, 2000.0, 2000.0], 2000.0, 3)
    assert found.al == pytest.approx((1000 + 2000 - 2000 / 3) / 2)
    late = latency([2500.0, 2600.0], 2000.0, 2)
    assert (late.al, late.end_offset) == (2500.0, 600.0)


def test_no_delays_are_refused() -> None:
    with pytest.raises(ValueError, match="delays"):
        latency([], 1000.0)
