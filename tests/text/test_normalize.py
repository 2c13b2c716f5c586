"""Text normalisation must respect orthographies that few tools were made for."""

from __future__ import annotations

import unicodedata

import pytest

from speechjepa.errors import ConfigError
from speechjepa.text.normalize import (
    APOSTROPHES,
    TextConfig,
    is_invisible,
    is_punctuation,
    normalize_text,
)

DEFAULT = TextConfig()


@pytest.mark.parametrize("apostrophe", APOSTROPHES)
def test_every_apostrophe_is_a_letter(apostrophe: str) -> None:
    word = f"{apostrophe}a{apostrophe}i{apostrophe}"
    assert normalize_text(f'"{word}", ok.', DEFAULT) == f"{word} ok"


def test_tone_marks_are_kept_and_composed() -> None:
    assert normalize_text("ko\u0301o\u0300", DEFAULT) == "kóò"
    assert normalize_text("\u025b\u0301", DEFAULT) == "\u025b\u0301"  # no composed form exists


def test_nfd_makes_the_tone_mark_a_symbol_of_its_own() -> None:
    assert normalize_text("ÓÒ", TextConfig(unicode_form="NFD")) == "o\u0301o\u0300"


def test_nfkc_replaces_ligatures_and_full_width_letters() -> None:
    assert normalize_text("ﬁＡ", TextConfig(unicode_form="NFKC")) == "fia"
    assert normalize_text("ﬁ", DEFAULT) == "ﬁ"


def test_lower_case_follows_unicode_not_ascii() -> None:
    assert normalize_text("ΟΔΟΣ ŊƐƆ ГОРОД", DEFAULT) == "οδος ŋɛɔ город"
    assert normalize_text("STRASSE ẞ ß", DEFAULT) == "strasse ß ß"


def test_cherokee_has_case() -> None:
    assert normalize_text("\u13a0\u13a1", DEFAULT) == "\uab70\uab71"
    assert normalize_text("\u13a0\uab70", TextConfig(lowercase=False)) == "\u13a0\uab70"


def test_scripts_without_case_are_left_alone() -> None:
    for text in ("ᐃᓄᒃᑎᑐᑦ", "አማርኛ", "မြန်မာ", "हिन्दी", "ⵜⵉⴼⵉⵏⴰⵖ"):
        assert normalize_text(text, DEFAULT) == text


def test_punctuation_of_any_script_becomes_a_space() -> None:
    text = "¿Qué?—«sí»/no… «እሺ»፣ हाँ। 你好，世界 €5 ©"
    assert normalize_text(text, DEFAULT) == "qué sí no እሺ हाँ 你好 世界 5"


def test_a_hyphen_joins_words_but_is_not_one() -> None:
    assert normalize_text("ba-tu - mo-tu --", DEFAULT) == "ba-tu mo-tu"


def test_kept_characters_are_letters() -> None:
    assert normalize_text("!Kung, ye:s.", TextConfig(keep_characters="!:")) == "!kung ye:s"
    assert normalize_text("it's", TextConfig(keep_characters="")) == "it s"


def test_length_and_tone_letters_are_not_punctuation() -> None:
    for letter in "\ua789\ua78a\u02e5\u02d0\u02de\ua71b":
        assert not is_punctuation(letter)
        assert normalize_text(f"a{letter}", DEFAULT) == f"a{letter}"


def test_punctuation_can_stay() -> None:
    assert normalize_text("A, b!", TextConfig(strip_punctuation=False)) == "a, b!"


def test_digits_are_kept() -> None:
    assert normalize_text("Tone 35, ٣", DEFAULT) == "tone 35 ٣"


def test_zero_width_characters_vanish_without_splitting_a_word() -> None:
    for invisible in "\u200b\u200c\u200d\ufeff\u2060\u00ad\u200e\u034f\ufe0f\x00":
        assert is_invisible(invisible)
        assert normalize_text(f"a{invisible}b", DEFAULT) == "ab"


def test_a_zero_width_character_that_is_spelling_can_be_kept() -> None:
    persian = "می\u200cخواهم"
    assert normalize_text(persian, TextConfig(keep_characters="\u200c")) == persian


def test_all_kinds_of_space_become_one() -> None:
    assert normalize_text("\ta\u00a0\u3000b\r\n c ", DEFAULT) == "a b c"


def test_stripping_marks_spares_the_vowels_of_other_scripts() -> None:
    config = TextConfig(combining_marks="strip")
    assert normalize_text("Ndɛ̌ kóò ñ", config) == "ndɛ koo n"
    for text in ("हिन्दी", "ที่", "မြန်မာ"):
        assert normalize_text(text, config) == unicodedata.normalize("NFC", text)


def test_replacements_take_the_longest_match_once_and_before_lower_case() -> None:
    config = TextConfig(replacements={"’": "ʼ", "I": "ı", "ng": "ŋ", "n": "m"})
    assert normalize_text("IRMAK nga’na", config) == "ırmak ŋaʼma"


def test_replacements_match_whatever_the_unicode_form_of_the_text() -> None:
    config = TextConfig(replacements={"e\u0301": "é!", "ß": "ss"}, keep_characters="!")
    assert normalize_text("\u00e9 ß", config) == "é! ss"


def test_normalising_twice_changes_nothing() -> None:
    text = "İstanbul ’Okina—\u1e9b\u0323 \ufb01 ᎠᎡ, ΑΣ·"
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        config = TextConfig(unicode_form=form)
        once = normalize_text(text, config)
        assert normalize_text(once, config) == once


def test_nothing_left_is_the_empty_text() -> None:
    assert normalize_text(" … - ' ", DEFAULT) == ""


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(ConfigError, match="unicode_form.*NFC.*'nfc'"):
        TextConfig(unicode_form="nfc")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="replacements"):
        TextConfig(replacements={"": "a"})
    with pytest.raises(ConfigError, match="combining_marks"):
        TextConfig(combining_marks="drop")  # type: ignore[arg-type]


def test_text_settings_can_be_hashed_and_compared() -> None:
    assert TextConfig(replacements={"a": "b"}) != DEFAULT
    assert hash(TextConfig()) == hash(DEFAULT)
