"""What a recipe's training starts from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechjepa.errors import ConfigError, ModelError
from speechjepa.models.bundle import CONFIG_FILE, WEIGHTS_FILE, is_published, parse_config
from speechjepa.models.checkpoint_files import CHECKPOINT_SUFFIXES
from speechjepa.models.shipped import (
    SHIPPED,
    checksum,
    fits_shipped,
    shipped_encoder,
    shipped_version,
)
from speechjepa.workflow.recipe import Recipe
from speechjepa.workflow.run import digest

_TOLD = ("results", "calibration", "licence", "languages")
"""What config.json tells of a finished model, and no training depends on."""
_STAGES = ("pretrain", "self_training", "finetune", "translate")  # whose bundle is a run's start
_WEIGHT_SUFFIXES = (".safetensors", ".bin")


def starting_bundle(recipe: Recipe) -> Path | None:
    """Return the bundle to start from, None = fresh weights.

    `init` may also name a run folder, or that of a stage. Of a run that pretrained it is that
    encoder, of another one its last model.

    Raises:
        ConfigError: There is no model to start from.
        ModelError: The shipped encoder is damaged.
    """
    init = recipe.init
    if init is None:
        return shipped_encoder() if fits_shipped(recipe.encoder) else None
    if init == Path("fresh"):
        return None
    if init == Path("shipped"):
        return shipped_encoder()
    if init.is_file() and init.suffix in CHECKPOINT_SUFFIXES:
        return init
    if (init / "bundle" / "config.json").exists() and not (init / WEIGHTS_FILE).exists():
        return init / "bundle"  # of a stage, whose folder has a config.json of its own
    for path in (init, *(init / stage / "bundle" for stage in _STAGES)):
        if (path / "config.json").exists():
            return path
    raise ConfigError(
        f"`init` must be a model, or a run folder with one, or shipped or fresh, but {init} "
        "holds none (what is on the hub is fetched by `speechjepa convert OWNER/NAME FOLDER`)"
    )


def refuse_own_start(recipe: Recipe, run_dir: Path, stages: Sequence[str]) -> None:
    """Refuse an `init` that one of the stages would move out of its way before it is read.

    Raises:
        ConfigError: It lies in a stage's part of the run folder.
    """
    if recipe.init is None or not recipe.init.resolve().is_relative_to(run_dir):
        return
    start = starting_bundle(recipe)
    for name in stages:
        if start is not None and start.resolve().is_relative_to(run_dir / name):
            raise ConfigError(
                f"`init` is {start}, which this run would write anew; give it a folder of its own "
                "with -o"
            )


def shipped_start(recipe: Recipe) -> str | None:
    """Return the version of the shipped encoder, None = training starts from something else."""
    return shipped_version() if starting_bundle(recipe) == SHIPPED else None


def start_fingerprint(recipe: Recipe) -> dict[str, Any] | None:
    """Return what training depends on in the bundle that it starts from, wherever that lies."""
    bundle = starting_bundle(recipe)
    if bundle is None:
        return None
    if bundle == SHIPPED:  # read from there, so that the weights need not be
        return {"shipped": checksum(bundle)}
    return {"digest": digest(_contents(bundle))}


def _contents(start: Path) -> dict[str, Any]:
    """Return by name what a model was read from: checksums, and config.json without results."""
    if start.is_file():
        beside = [start.parent / "vocab.json", *start.parent.glob("dict.*.txt")]
        symbols = {path.name: _sha256(path) for path in beside if path.is_file()}
        return {start.suffix: _sha256(start), **symbols}
    config = parse_config(start)
    if not isinstance(config, dict):
        raise ModelError(f"{start / CONFIG_FILE}: must be a mapping, not {type(config).__name__}")
    if is_published(config):
        read = [path for path in start.iterdir() if path.suffix in (".json", *_WEIGHT_SUFFIXES)]
    else:
        read = [start / WEIGHTS_FILE]
    contents: dict[str, Any] = {
        path.name: _sha256(path)
        for path in read
        if path.is_file() and not path.name.startswith(".") and path.name != CONFIG_FILE
    }
    contents[CONFIG_FILE] = {key: config[key] for key in config if key not in _TOLD}
    return contents


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_start(recipe: Recipe) -> str:
    """Return in words what training starts from."""
    named = {None: "fresh weights", SHIPPED: "the encoder that comes with speechjepa"}
    bundle = starting_bundle(recipe)
    return named.get(bundle, str(bundle))
