"""Tones are known by their marks, which other things are written with, too, but fewer."""

from __future__ import annotations

import unicodedata

import pytest

from speechjepa.text.tones import writes_tones


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wáré bá mié", True),  # 4 of 9 letters
        ("ọjọ́ kẹ́jọ ń lọ́", True),  # with dots below
        ("bảy lẻ cả", True),  # hooks, as in Vietnamese
        ("má bcd fgh jkl xy", False),  # 1 of 13
        ("včera večer šel černý čtyřlístek", False),  # marks of consonants; 2 of 28 on vowels
        ("señor çâ müde åker", False),  # 1 of 15
        ("pinyin: ma3", False),
        ("", False),
    ],
)
def test_marks_on_vowels_are_counted(text, expected, form):
    assert writes_tones([unicodedata.normalize(form, text)]) is expected


def test_all_texts_count_together():
    assert not writes_tones(["á", "bababababababa"])
    assert writes_tones(["á", "bababa"[:5]])
