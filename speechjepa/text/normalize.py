"""Bring transcripts of any orthography into one form before characters are counted or learned."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, get_args

from speechjepa.errors import ConfigError

UnicodeForm = Literal["NFC", "NFD", "NFKC", "NFKD"]
CombiningMarks = Literal["keep", "strip"]

APOSTROPHES = "'\u2019\u2018\u02bc\u02bb\ua78c"
"""What people type for a glottal stop or an ejective: typewriter, curly, modifier and saltillo."""

HYPHENS = "-\u2010\u2011"
"""Hyphen-minus, hyphen, non-breaking hyphen: they join the parts of a word."""

MIDDLE_DOTS = "\u00b7\u2027"
"""Middle dot and hyphenation point: length in some orthographies, a letter in Catalan."""

# Code points that Unicode files under "symbol" but that linguists write as letters:
# spacing modifiers (length, aspiration, tone letters), modifier tone letters, modifier colon.
_MODIFIER_BLOCKS = ((0x02B0, 0x02FF), (0xA700, 0xA71F), (0xA788, 0xA78A))

# Marks that sit on letters of any script. The vowel signs of Devanagari, Thai or Ethiopic are
# combining marks too, but they are the vowels themselves and are never stripped.
_DIACRITIC_BLOCKS = (
    (0x0300, 0x036F),
    (0x1AB0, 0x1AFF),
    (0x1DC0, 0x1DFF),
    (0x20D0, 0x20FF),
    (0xFE20, 0xFE2F),
)

# Default-ignorable code points that are not in category Cf.
_INVISIBLE_BLOCKS = (
    (0x034F, 0x034F),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFFA0, 0xFFA0),
    (0xE0100, 0xE01EF),
)


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """How transcripts are normalised; travels in the recipe and in every bundle."""

    unicode_form: UnicodeForm = "NFC"
    """Unicode normalisation form. NFC writes a letter and its accent as one code point where one
    exists; NFD always writes them as two, so that a tone mark is a symbol of its own; NFKC and
    NFKD also replace ligatures, full-width letters and superscripts by plain ones."""
    lowercase: bool = True
    """Lower-case by the Unicode rules, which do nothing to scripts without case."""
    strip_punctuation: bool = True
    """Turn punctuation and symbols (Unicode categories P and S) into spaces, except
    `keep_characters` and modifier letters (length and tone marks such as U+A789 or U+02E5)."""
    keep_characters: str = APOSTROPHES + HYPHENS + MIDDLE_DOTS
    """Characters that are letters of this orthography although Unicode calls them punctuation,
    symbols or invisible: apostrophes, word-internal hyphens, clicks written `!`, U+200C."""
    combining_marks: CombiningMarks = "keep"
    """`strip` removes accents and tone marks from letters; vowel signs of Indic and other scripts
    always stay. To remove only some, use NFD and `replacements`."""
    replacements: dict[str, str] = field(default_factory=dict, hash=False)
    """What to write instead of what, case-sensitive, the longest match first, applied once and
    before lower-casing. Example: {"’": "ʼ", "I": "ı"}."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("unicode_form", self.unicode_form, get_args(UnicodeForm)),
            ("combining_marks", self.combining_marks, get_args(CombiningMarks)),
            ("lowercase", self.lowercase, (True, False)),
            ("strip_punctuation", self.strip_punctuation, (True, False)),
        ):
            if value not in allowed:
                choices = ", ".join(map(str, allowed))
                raise ConfigError(
                    f"`text.{name}` must be one of {choices}, but is {value!r} instead."
                )
        if not isinstance(self.keep_characters, str):
            raise ConfigError(
                "`text.keep_characters` must be a string of characters, but is "
                f"{self.keep_characters!r} instead."
            )
        for key, new in self.replacements.items():
            if not isinstance(key, str) or not isinstance(new, str) or not key:
                raise ConfigError(
                    "`text.replacements` must map text to text (quote digits in YAML), but holds "
                    f"{key!r}: {new!r} instead."
                )


def normalize_text(text: str, config: TextConfig) -> str:
    """Return `text` with one spelling for each thing, words separated by single spaces.

    The order is: Unicode form, replacements, lower case, combining marks, invisible characters,
    punctuation, spaces, Unicode form again. Applying it twice gives the same as once, unless a
    replacement produces what another one replaces.

    Args:
        text: A transcript as written in the corpus.
        config: What to keep and what to change.

    Returns:
        The normalised transcript, without leading or trailing space; empty when nothing is left.
    """
    text = unicodedata.normalize(config.unicode_form, text)
    if config.replacements:
        text = _replace(text, config.replacements, config.unicode_form)
    if config.lowercase:
        text = text.lower()
    if config.combining_marks == "strip":
        decomposed = unicodedata.normalize("NFD", text)
        text = "".join(c for c in decomposed if not _in_blocks(ord(c), _DIACRITIC_BLOCKS))
    text = "".join(_keep_or_space(c, config) for c in text)
    words = text.split()
    if config.strip_punctuation:
        words = [word for word in words if not all(is_punctuation(c) for c in word)]
    return unicodedata.normalize(config.unicode_form, " ".join(words))


@lru_cache(maxsize=4096)
def is_punctuation(character: str) -> bool:
    """Say whether Unicode calls a character punctuation or symbol and linguists do not write it
    as a letter (modifier letters are not punctuation here)."""
    if _in_blocks(ord(character), _MODIFIER_BLOCKS):
        return False
    return unicodedata.category(character)[0] in "PS"


@lru_cache(maxsize=4096)
def is_invisible(character: str) -> bool:
    """Say whether a character has no width and is not a space: joiners, byte order marks,
    direction marks, variation selectors, control characters."""
    if character.isspace():
        return False
    return unicodedata.category(character) in ("Cf", "Cc") or _in_blocks(
        ord(character), _INVISIBLE_BLOCKS
    )


def _keep_or_space(character: str, config: TextConfig) -> str:
    if character in config.keep_characters:
        return character
    if is_invisible(character):
        return ""
    if config.strip_punctuation and is_punctuation(character):
        return " "
    return character


def _replace(text: str, replacements: dict[str, str], form: UnicodeForm) -> str:
    table = {unicodedata.normalize(form, key): value for key, value in replacements.items()}
    pattern = "|".join(re.escape(key) for key in sorted(table, key=len, reverse=True))
    return re.sub(pattern, lambda match: table[match.group()], text)


def _in_blocks(code_point: int, blocks: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= code_point <= last for first, last in blocks)
