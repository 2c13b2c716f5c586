"""Whatever people call a language, it is found; and never another one."""

from __future__ import annotations

import pytest

from speechjepa.text.languages import match_language, nearest_languages, standard_tag


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
