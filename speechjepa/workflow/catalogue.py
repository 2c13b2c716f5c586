"""The recipes of the project and their last measured results; light enough for a table."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import speechjepa
from speechjepa.errors import ConfigError, DataError


def project_folders(name: str) -> list[Path]:
    """Return the folders called `name` of the current folder and of the checkout, if any."""
    checkout = Path(speechjepa.__file__).resolve().parent.parent / name
    folders = dict.fromkeys([Path(name).resolve(), checkout])
    return [folder for folder in folders if folder.is_dir()]


def list_recipes() -> dict[str, Path]:
    """Return every recipe of the project by name (`mboshi/asr_10min`)."""
    found: dict[str, Path] = {}
    for folder in project_folders("recipes"):
        for path in sorted(folder.glob("*/*.yaml")):
            found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    return found


def find_recipe(path_or_name: str | os.PathLike[str]) -> Path:
    """Return the file of a recipe given by path or name.

    Raises:
        ConfigError: There is none; the nearest name is given, if one is near.
    """
    text = os.fspath(path_or_name)
    path = Path(text)
    if path.is_file():
        return path
    if (path / "recipe.yaml").is_file():
        return path / "recipe.yaml"
    known = list_recipes()
    name = text.removeprefix("recipes/").removesuffix(".yaml").rstrip("/")
    for candidate in (name, f"{name}/recipe"):
        if candidate in known:
            return known[candidate]
    variants = [other for other in known if other.startswith(f"{name}/")]
    if variants:
        raise ConfigError(f"'{text}' is a folder of recipes; choose one of: {', '.join(variants)}")
    # The folder first: names of recipes of many folders are alike.
    folders = sorted({other.partition("/")[0] for other in known})
    near_folder = difflib.get_close_matches(name.partition("/")[0], folders, n=1, cutoff=0.75)
    inside = [other for other in known if other.partition("/")[0] in near_folder]
    near = difflib.get_close_matches(name, inside, n=1)
    what = "file" if text.endswith((".yaml", ".yml")) else "recipe"
    raise ConfigError(
        f"there is no {what} '{text}'; "
        + (f"did you mean `{near[0]}`?" if near else "`speechjepa recipes` lists those there are")
    )


def find_prepare(recipe_file: Path) -> Path | None:
    """Return the program beside a recipe that fetches and unpacks its data, if there is one."""
    path = recipe_file.parent / "prepare.py"
    return path if path.is_file() else None


def stage_names(settings: Mapping[str, Any], recipe_file: Path) -> list[str]:
    """Return the stages of a recipe, without check and report, which all have.

    Args:
        settings: What the recipe's file holds; whether it is right is `load_recipe`'s to say.
        recipe_file: The file.
    """
    translation = settings.get("translation")
    if isinstance(translation, Mapping):
        return _translation_stages(translation, settings.get("data"), recipe_file)
    names = ["prepare"] if find_prepare(recipe_file) else []
    if settings.get("pretrain", {}) is not None:
        names.append("pretrain")
    if settings.get("finetune", {}) is not None:
        names.append("finetune")
        language_model = settings.get("language_model", {})
        if language_model is not None and _get(language_model, "kind") != "none":
            names.append("language_model")
        if settings.get("self_training") is not None:
            names.append("self_training")
        names.append("evaluate")
    return names


def _translation_stages(translation: Mapping[str, Any], data: Any, file: Path) -> list[str]:
    names = []
    if find_prepare(file) or translation.get("phrases") is not None:
        names.append("prepare")
    if translation.get("writes", "units") == "units":
        names.append("units")
        if translation.get("voice", "selection") is not None:
            names.append("voice")
    names.append("translate")
    if translation.get("recogniser") is not None:
        names.append("recogniser")
    if _get(data, "dev") is not None:
        head = _get(_get(translation.get("train"), "translator"), "head")
        if translation.get("language_model", {}) is not None and head in (None, "ctc"):
            names.append("language_model")
        names.append("evaluate")
    return names


def _get(section: Any, key: str) -> Any:
    return section.get(key) if isinstance(section, Mapping) else None


def last_results() -> dict[str, Mapping[str, Any]]:
    """Return a record of each recipe that was measured, by the recipe's `name`.

    Of `results/recipes` the latest, of `results/translation` the one that was trained the longest.

    Raises:
        DataError: A record is not JSON.
    """
    return _records("translation", "training_minutes", float) | _records("recipes", "date", str)


def _records(kind: str, key: str, order: Callable[[Any], Any]) -> dict[str, Mapping[str, Any]]:
    """Return the records in a folder of results that have most of a key, by recipe."""
    found: dict[str, Mapping[str, Any]] = {}
    most: dict[str, Any] = {}
    for folder in project_folders("results"):
        for path in sorted((folder / kind).glob("*.json")):
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                name, place = str(record["recipe"]), order(record[key])
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"is no result of a recipe: {error}", path=path) from error
            if name not in found or place >= most[name]:
                found[name], most[name] = record, place
    return found
