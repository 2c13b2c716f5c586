from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from speechjepa.config import load_yaml
from speechjepa.errors import ConfigError
from speechjepa.models.shipped import SHIPPED
from speechjepa.workflow.catalogue import find_prepare, stage_names
from speechjepa.workflow.recipe import TEMPLATE_WORDS, Recipe, load_recipe
from speechjepa.workflow.stages import Plan

FOLDER = Path(__file__).resolve().parent.parent.parent / "recipes"
RECIPES = sorted(FOLDER.glob("*/*.yaml"))


FILLED_IN = ("name=mine", "data.corpus=recordings")


def _load(path: Path, root: Path) -> Recipe:
    return load_recipe(path, FILLED_IN if path.parent.name == "new_language" else (), root)


def _id(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", RECIPES, ids=_id)
def test_every_setting_of_a_recipe_exists(path: Path, tmp_path: Path) -> None:
    assert _load(path, tmp_path).name


@pytest.mark.parametrize("left", ["name", "data.corpus"])
def test_the_template_is_refused_while_its_capitals_are_there(left: str, tmp_path: Path) -> None:
    settings = [flag for flag in FILLED_IN if not flag.startswith(left)]
    with pytest.raises(ConfigError, match=rf"`{left}` is still MY.* as in the template: write"):
        load_recipe(FOLDER / "new_language" / "recipe.yaml", settings, tmp_path)


def test_the_capitals_of_the_template_are_those_that_are_refused() -> None:
    text = (FOLDER / "new_language" / "recipe.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"\bMY[-_][A-Z_-]+\b", text)) == set(TEMPLATE_WORDS)


@pytest.mark.parametrize("path", RECIPES, ids=_id)
def test_a_recipe_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40


@pytest.mark.parametrize("path", RECIPES, ids=_id)
def test_a_recipe_starts_from_a_model_or_pretrains_on_audio_that_it_names(path: Path) -> None:
    settings = load_yaml(path)
    if settings.get("translation") is not None:  # starts from a model
        return
    if settings.get("pretrain", {}) is None:
        assert settings.get("init") != "fresh"
    else:
        assert settings["data"]["pool"]


@pytest.mark.parametrize("path", RECIPES, ids=_id)
def test_the_table_shows_the_stages_that_a_recipe_has(path: Path, tmp_path: Path) -> None:
    recipe = _load(path, tmp_path)
    if recipe.init is not None and recipe.init.parts[0] == "runs":  # nobody has run it here
        recipe = replace(recipe, init=SHIPPED)
    plan = Plan(recipe, tmp_path, tmp_path, find_prepare(path))
    names = [stage.name for stage in plan.stages()]
    shown = [name for name in names if name not in ("check", "report")]
    assert stage_names(load_yaml(path), path) == list(dict.fromkeys(shown))


def test_a_stage_that_is_switched_off_is_not_in_the_table() -> None:
    without = {"pretrain": None, "language_model": {"kind": "none"}}
    assert stage_names(without, Path("none.yaml")) == ["finetune", "evaluate"]
    assert stage_names({"finetune": None}, Path("none.yaml")) == ["pretrain"]
    assert stage_names({"translation": {"train": 3}, "data": []}, Path("none.yaml")) == [
        *("units", "voice", "translate")
    ]


def test_no_two_recipes_share_a_name() -> None:
    names = [load_yaml(path)["name"] for path in RECIPES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("folder", sorted({path.parent for path in RECIPES}), ids=lambda p: p.name)
def test_every_folder_of_recipes_has_a_readme(folder: Path) -> None:
    assert (folder / "README.md").is_file()


@pytest.mark.parametrize(
    "name",
    [
        *("digits/asr_2min", "digits/asr_10min", "prompts/asr_en", "prompts/asr_es"),
        *(f"{corpus}/asr_{n}" for corpus in ("mboshi", "cherokee") for n in ("10min", "1h", "all")),
        *(f"librispeech/asr_{n}" for n in ("10min", "1h", "10h", "100h")),
        *("fleurs/asr", "common_voice/asr", "new_language/recipe"),
        *(f"s2st_phrases/{pair}" for pair in ("es_en", "fr_de", "en_id")),
        *("s2st_prompts/es_en", "s2st_mboshi/text", "s2st_mboshi/speech"),
    ],
)
def test_the_promised_recipes_are_there(name: str) -> None:
    assert (FOLDER / f"{name}.yaml").is_file()
