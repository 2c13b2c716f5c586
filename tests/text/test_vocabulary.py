"""The vocabulary: what goes in comes out, and what cannot go in is named."""

from __future__ import annotations

import json

import pytest

from speechjepa.errors import DataError
from speechjepa.text.vocabulary import Vocabulary

VOCABULARY = Vocabulary.build(["ba ab", "cˈa"])


def test_blank_comes_first_and_characters_are_sorted() -> None:
    assert VOCABULARY.symbols == ("<blank>", "|", "a", "b", "c", "ˈ")
    assert (VOCABULARY.blank_id, VOCABULARY.word_boundary_id, len(VOCABULARY)) == (0, 1, 6)


def test_the_order_of_texts_does_not_matter() -> None:
    assert Vocabulary.build(["cˈa", "ba ab"]) == VOCABULARY


def test_decode_undoes_encode() -> None:
    for text in ("ba ab", "aabb cc", "", "cˈa"):
        assert VOCABULARY.decode(VOCABULARY.encode(text)) == text


def test_ctc_collapses_repeats_but_not_across_a_blank() -> None:
    assert VOCABULARY.decode_ctc([0, 2, 2, 0, 2, 3, 3]) == "aab"


def test_ctc_writes_single_spaces_inside_words_only() -> None:
    assert VOCABULARY.decode_ctc([1, 0, 2, 1, 1, 0, 1, 3, 1, 0]) == "a b"


def test_ctc_of_blanks_or_nothing_is_the_empty_text() -> None:
    assert VOCABULARY.decode_ctc([0, 0]) == VOCABULARY.decode_ctc([]) == ""


def test_an_unknown_character_is_named() -> None:
    with pytest.raises(DataError, match=r"'z' \(U\+007A\).*bzb"):
        VOCABULARY.encode("bzb")


def test_unknown_characters_can_be_left_out() -> None:
    assert VOCABULARY.encode("bz|b", unknown="drop") == VOCABULARY.encode("bb")


def test_a_literal_bar_is_not_a_space() -> None:
    with pytest.raises(DataError, match=r"a\|b.*holds"):
        Vocabulary.build(["a|b"])
    with pytest.raises(DataError, match="U\\+007C"):
        VOCABULARY.encode("a|b")


def test_only_normalised_spaces_are_accepted() -> None:
    with pytest.raises(DataError, match=r"U\+00A0"):
        Vocabulary.build(["a\u00a0b"])


def test_a_vocabulary_survives_json() -> None:
    assert Vocabulary.from_list(json.loads(json.dumps(VOCABULARY.to_list()))) == VOCABULARY


def test_a_malformed_vocabulary_is_refused() -> None:
    for symbols in ((), ("a", "|"), ("<blank>", "a"), ("<blank>", "|", "a", "a")):
        with pytest.raises(DataError):
            Vocabulary(symbols)


def test_membership_is_that_of_text() -> None:
    assert "a" in VOCABULARY and " " in VOCABULARY
    assert "|" not in VOCABULARY and "z" not in VOCABULARY


def test_symbols_of_programs_are_not_written() -> None:
    vocabulary = Vocabulary(["<blank>", "|", "a", "<unk>", "[PAD]", "[", "<", "</s>"])
    assert vocabulary.silent_ids == {0, 3, 4, 7}
    assert vocabulary.decode_ctc([2, 3, 2, 4, 1, 5, 7, 6]) == "aa [<"
