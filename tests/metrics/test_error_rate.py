from __future__ import annotations

import random

import jiwer
import pytest

from speechjepa.metrics.error_rate import align, bootstrap_interval, error_rates


def test_rates_of_a_hand_counted_pair() -> None:
    rates = error_rates(["the cat sat", "a dog"], ["the hat sat on", "a dog"])
    assert rates.num_characters == 11 + 5
    assert rates.num_words == 3 + 2
    assert rates.characters.substitutions == 1
    assert rates.characters.insertions == 3
    assert rates.cer == pytest.approx(4 / 16)
    assert rates.wer == pytest.approx(2 / 5)
    assert [count.edits for count in rates.per_utterance_words] == [2, 0]


def test_rates_equal_those_of_jiwer() -> None:
    generator = random.Random(3)

    def sentence() -> str:
        return " ".join(
            "".join(generator.choices("abcé", k=generator.randint(1, 5)))
            for _ in range(generator.randint(1, 8))
        )

    references = [sentence() for _ in range(200)]
    hypotheses = [sentence() for _ in range(200)]
    rates = error_rates(references, hypotheses)
    assert rates.cer == pytest.approx(jiwer.cer(references, hypotheses))
    assert rates.wer == pytest.approx(jiwer.wer(references, hypotheses))


def test_white_space_alone_is_no_error() -> None:
    assert error_rates(["  a  b "], ["a b"]).cer == 0.0


def test_empty_references_count_what_was_said_as_insertions() -> None:
    rates = error_rates(["", "abcd"], ["xy", "abcd"])
    assert rates.characters.insertions == 2
    assert rates.cer == pytest.approx(2 / 4)
    assert error_rates([""], [""]).wer == 0.0
    assert error_rates([""], ["word"]).wer == 1.0
    assert error_rates([], []).cer == 0.0


def test_unequal_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="1 and 2"):
        error_rates(["a"], ["a", "b"])


def test_interval_holds_the_rate_and_narrows_with_more_utterances() -> None:
    edits, lengths = [0, 1, 2, 3] * 5, [10] * 20
    low, high = bootstrap_interval(edits, lengths)
    assert low < sum(edits) / sum(lengths) < high
    more_low, more_high = bootstrap_interval(edits * 50, lengths * 50)
    assert more_high - more_low < (high - low) / 3
    assert bootstrap_interval(edits, lengths, seed=1) == bootstrap_interval(edits, lengths, seed=1)


def test_interval_of_equal_utterances_is_a_point() -> None:
    assert bootstrap_interval([1] * 8, [4] * 8) == pytest.approx((0.25, 0.25))


def test_alignment_names_each_operation_and_loses_nothing() -> None:
    aligned = align("kitten", "sitting")
    assert aligned[0] == ("substitute", "k", "s")
    assert aligned[-1] == ("insert", None, "g")
    assert "".join(left for _, left, _ in aligned if left) == "kitten"
    assert "".join(right for _, _, right in aligned if right) == "sitting"


def test_words_can_be_aligned() -> None:
    assert align(["a", "b"], ["a"]) == [("equal", "a", "a"), ("delete", "b", None)]
