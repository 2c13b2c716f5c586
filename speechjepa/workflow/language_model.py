"""The stage `language_model`: built from the labels' text, tuned on dev, kept in the bundle."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from speechjepa.data.findings import number
from speechjepa.errors import DataError
from speechjepa.workflow.corpora import Corpora, file_fingerprint
from speechjepa.workflow.recipe import Recipe
from speechjepa.workflow.run import Stage

logger = logging.getLogger(__name__)

LANGUAGE_MODEL_FILES = ("finetune/bundle/lm.arpa", "finetune/bundle/decoder.json")


def has_language_model(recipe: Recipe) -> bool:
    """Return whether the recipe decodes with a language model."""
    section = recipe.language_model
    return section is not None and section.kind != "none"


def extra_text(recipe: Recipe) -> list[Path]:
    """Return the files of text for the language model.

    Raises:
        DataError: One is not there; said at the start, not after hours of training.
    """
    section = recipe.language_model
    named = () if section is None else section.extra_text
    paths = [Path(p) if Path(p).is_absolute() else recipe.data.under_root(p) for p in named]
    for path in paths:
        if not path.is_file():
            raise DataError("there is no such file of `language_model.extra_text`", path=path)
    return paths


def language_model_stage(recipe: Recipe, corpora: Corpora, bundle: Path) -> Stage:
    """Return the stage.

    Args:
        recipe: One that has a language model.
        corpora: Its data.
        bundle: The fine-tuned model that gets it.
    """

    def inputs() -> dict[str, Any]:
        return {
            "language_model": recipe.language_model,
            "extra_text": [file_fingerprint(path) for path in extra_text(recipe)],
        }

    def action() -> dict[str, Any]:
        decoder = attach(recipe, corpora, bundle)
        return {"beam": (decoder or {}).get("beam")}

    return Stage(
        name="language_model",
        inputs=inputs,
        action=action,
        outputs=LANGUAGE_MODEL_FILES,
        after=("finetune",),
    )


def attach(recipe: Recipe, corpora: Corpora, bundle: Path) -> Any:
    """Build the recipe's language model from the true labels, tune it on dev, and store both.

    Returns:
        The content of decoder.json; None where the recipe has no language model.
    """
    from speechjepa.inference.evaluate import dev_set
    from speechjepa.inference.language_model import attach_language_model
    from speechjepa.inference.model import load
    from speechjepa.models.bundle import default_device
    from speechjepa.text.normalize import normalize_text

    section = recipe.language_model
    if section is None or not has_language_model(recipe):
        return None
    model = load(bundle, device=default_device())
    texts = [
        normalize_text(u.text or "", recipe.text) for u in [*corpora.labelled, *corpora.stories]
    ]
    # What was not learnt from, as its recording cannot be read, gave the vocabulary nothing.
    known = [text for text in texts if all(character in model.vocabulary for character in text)]
    if len(known) < len(texts):
        logger.warning(
            "%s with characters that occur in no recording learnt from: not in the language model",
            number(len(texts) - len(known), "transcript"),
        )
    dev = dev_set(model, corpora.dev, name=corpora.dev_name)
    return attach_language_model(
        bundle,
        [text for text in known if text],
        vocabulary=model.vocabulary,
        text_config=recipe.text,
        config=dataclasses.replace(section, extra_text=tuple(map(str, extra_text(recipe)))),
        dev=dev,
    )
