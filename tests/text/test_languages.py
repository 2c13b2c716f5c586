"""Whatever people call a language, it is found; and never another one."""

from __future__ import annotations

import pytest

from speechjepa.text.languages import (
    is_code,
    is_known,
    match_language,
    nearest_languages,
    standard_tag,
)


@pytest.mark.parametrize("name", ["sw", "swa", "swh", "swh_Latn", "SWH", "Swahili", " sw "])
def test_names_of_one_language(name):
    assert standard_tag(name) == "sw"
    assert match_language(name, ["fra", "swh"]) == "swh"


def test_scripts_tell_apart_what_is_written_in_two():
    known = ["azj-script_cyrillic", "azj-script_latin"]
    assert match_language("azj-script_latin", known) == "azj-script_latin"
    assert match_language("az-Cyrl", known) == "azj-script_cyrillic"
    assert match_language("az_Latn", known) == "azj-script_latin"
    assert match_language("az", known) is None, "two would do: the user must say which"


def test_a_region_is_no_other_language_and_another_language_is_never_taken():
    assert match_language("pt-BR", ["pt", "es"]) == "pt"
    assert match_language("deu", ["fra", "swh"]) is None
    assert match_language("no such tongue", ["fra"]) is None
    assert match_language("mdw", ["mdw"]) == "mdw"


def test_the_nearest_are_proposed_by_code_and_by_name():
    known = ["swh", "spa", "fra", "mdw"]
    assert nearest_languages("Swahilli", known)[0] == "swh"
    assert nearest_languages("frz", known)[0] == "fra"
    assert nearest_languages("qqqqqq", known) == []


@pytest.mark.parametrize(
    "code",
    [
        *("en", "eng", "eng_Latn", "azj-script_latin", "yue-script_traditional", "es_419", "fr-fr"),
        *("mdw", "qaa", "qtz", "x-mine", "mdw-x-north", "Swahili"),
    ],
)
def test_codes_of_languages_are_known_listed_or_private(code: str) -> None:
    assert is_code(code)
    assert is_known(code)


@pytest.mark.parametrize("code", ["zzz", "hello", "my-dialect", "en_nowhere"])
def test_what_could_be_a_code_but_is_none_is_not_known(code: str) -> None:
    assert is_code(code)
    assert not is_known(code)


@pytest.mark.parametrize("text", ["", "not a language", "en,fr", "en/us", "-en", "12", "español"])
def test_what_cannot_be_a_code_is_told_apart(text: str) -> None:
    assert not is_code(text)
