"""Scripts of characters, and characters that look alike though computers tell them apart."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

# First words of Unicode names that say nothing about the script of a letter.
_SHARED = frozenset(
    "MODIFIER COMBINING MICRO FEMININE MASCULINE MATHEMATICAL SCRIPT BLACK-LETTER DOUBLE-STRUCK "
    "SUPERSCRIPT SUBSCRIPT".split()
)
# Scripts that are written together in one orthography.
_TOGETHER = {
    "HIRAGANA": "CJK",
    "KATAKANA": "CJK",
    "KATAKANA-HIRAGANA": "CJK",
    "IDEOGRAPHIC": "CJK",
    "BOPOMOFO": "CJK",
    "HANGUL": "CJK",
    "FULLWIDTH": "LATIN",
    "HALFWIDTH": "CJK",
    "KELVIN": "LATIN",
    "ANGSTROM": "LATIN",
    "OHM": "GREEK",
}

# Groups of characters that a reader cannot tell apart, or hardly. Lower case, decomposed.
_GROUPS = (
    "a\u0430\u03b1\u0251",  # Latin, Cyrillic, Greek alpha, Latin alpha
    "c\u0441\u03f2",
    "d\u0501",
    "e\u0435",
    "\u025b\u03b5\u0511",  # open e, Greek epsilon, Cyrillic reversed ze
    "\u0259\u01dd\u04d9",  # schwa, turned e, Cyrillic schwa
    "g\u0261",
    "h\u04bb",
    "i\u0456",
    "\u0269\u03b9",  # Latin iota, Greek iota
    "j\u0458\u03f3",
    "k\u03ba\u043a",
    "\u014b\u03b7\u019e",  # eng, Greek eta, n with long leg
    "o\u043e\u03bf\u0585",
    "\u0254\u2184\u037b",  # open o, reversed c, Greek reversed lunate sigma
    "p\u0440\u03c1",
    "q\u051b",
    "s\u0455",
    "\u028a\u0277",  # upsilon, closed omega
    "\u03c9\ua7b7\u0461",  # Greek omega, Latin omega, Cyrillic omega
    "u\u03c5",
    "v\u03bd\u0475",
    "w\u051d",
    "x\u0445\u03c7\uab53",
    "y\u0443",
    "\u0263\u03b3\u0264",  # gamma, Greek gamma, rams horn
    "\u0278\u03c6",  # phi, Greek phi
    "\u03b2\ua7b5\u00df",  # Greek beta, Latin beta, sharp s
    "\u0275\u04e9",  # barred o, Cyrillic barred o
    "\u0111\u0256\u00f0",  # d with stroke, retroflex d, eth: one capital for all three
    "\u0294\u0242\u02c0",  # glottal stops
    "\u01c3!",
    "\u01c0|\u04cf",
    "\u02d0:\ua789",  # length mark, colon, modifier colon
    "\u00b7\u2022\u2027\ua78f\u2219",  # middle dots
    "'\u2019\u2018\u02bc\u02bb\ua78c`\u00b4\u2032\u02b9\u02c8\u02be\u02bf\u02bd",
    "-\u2010\u2011\u2013\u2212",
    "\u06cc\u064a",  # Farsi yeh, Arabic yeh
    "\u06a9\u0643",  # keheh, Arabic kaf
)
# The same for marks; they are compared on the same letter only.
_MARK_GROUPS = (
    "\u030c\u0306",  # caron, breve
    "\u0304\u0305",  # macron, overline
    "\u0301\u030d",  # acute, vertical line above
    "\u0323\u0329",  # dot below, vertical line below
    "\u0327\u0326\u0328",  # cedilla, comma below, ogonek
)

LOOK_ALIKES: dict[str, str] = {c: group for group in _GROUPS for c in group}
"""Character -> all characters that look like it, itself included."""

MARK_LOOK_ALIKES: dict[str, str] = {c: group for group in _MARK_GROUPS for c in group}
"""Combining mark -> all marks that look like it on the same letter, itself included."""


@lru_cache(maxsize=8192)
def script_of(character: str) -> str:
    """Return the script of a letter ("Latin"), or "" for what all scripts share: digits, marks,
    punctuation, modifier letters."""
    if not unicodedata.category(character).startswith("L"):
        return ""
    name = unicodedata.name(character, "")
    first = name.split(" ", 1)[0]
    if not first or first in _SHARED:
        return ""
    script = _TOGETHER.get(first, first)
    return script if script == "CJK" else script.capitalize()


def scripts_of(word: str) -> set[str]:
    """Return the scripts of the letters of a word."""
    return {script for script in map(script_of, word) if script}


def twins(character: str, script: str) -> str:
    """Return the characters of another script, such as "Latin", that look like this one."""
    return "".join(
        c for c in LOOK_ALIKES.get(character, "") if c != character and script_of(c) == script
    )


def describe(character: str) -> str:
    """Return a character as a person and a computer name it: `а (U+0430 CYRILLIC SMALL A)`."""
    shown = f"\u25cc{character}" if unicodedata.combining(character) else character
    if unicodedata.category(character)[0] in "CZ":
        shown = "(invisible)"
    name = unicodedata.name(character, "no name").replace(" LETTER", "")
    return f"{shown} (U+{ord(character):04X} {name})"
