"""Whether transcripts write tones."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

MARKS = frozenset("\u0300\u0301\u0302\u0304\u0309\u030c")
"""Grave, acute, circumflex, macron, hook above and caron: what most tones are written with."""
SHARE = 0.12
"""Share of letters with such a mark from which on tones are meant. Mboshi has 26 %; of the names of
the numbers up to 999, Vietnamese has 15 %, Hungarian and Czech, which write long vowels so, 10 and
8 %."""
_OTHERS = frozenset("bcdfghjklpqrstvwxz")
"""Letters on which a mark is another letter, as in č or ś; tones stand on vowels, m and n."""


def writes_tones(texts: Iterable[str]) -> bool:
    """Say whether so many letters carry a mark of tone that tones are likely written."""
    letters = marked = 0
    base = ""
    for character in unicodedata.normalize("NFD", " ".join(texts).lower()):
        if character in MARKS:
            marked += base not in _OTHERS
        elif not unicodedata.combining(character):
            base = character
            letters += character.isalpha()
    return marked >= SHARE * max(1, letters)
