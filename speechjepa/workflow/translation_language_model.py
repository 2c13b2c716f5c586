"""The stage `language_model` of runs that translate by CTC: what its targets usually look like,
tuned on dev, kept in the bundle where it helps."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from speechjepa.errors import AudioError, DataError
from speechjepa.inference.search import Symbols
from speechjepa.inference.translator_language_model import (
    Part,
    PartData,
    TokenModelConfig,
    attach_token_models,
    symbols_of,
)
from speechjepa.training.translation_items import Example
from speechjepa.workflow.recipe import Recipe
from speechjepa.workflow.run import Stage
from speechjepa.workflow.translation_data import (
    SPLITS,
    character_examples,
    read_units,
    unit_examples,
)

if TYPE_CHECKING:
    from speechjepa.inference.translator import SpeechTranslator
    from speechjepa.workflow.translation import TranslationPlan

logger = logging.getLogger(__name__)

TRANSLATOR_LANGUAGE_MODEL_FILES = ("translate/bundle/translator/decoder.json",)


def has_translator_language_model(recipe: Recipe) -> bool:
    """Return whether the recipe's translator writes with a language model, if one helps on dev."""
    config = recipe.translation
    return (
        config is not None
        and config.language_model is not None
        and config.train.translator.head == "ctc"
        and recipe.data.dev is not None
    )


def translator_language_model_stage(plan: TranslationPlan) -> Stage:
    """Return the stage.

    Args:
        plan: Of a recipe whose translator has a language model.
    """
    config = plan.config.language_model
    assert config is not None

    return Stage(
        name="language_model",
        inputs=lambda: {"language_model": config},
        action=lambda: _attach(plan, config),
        outputs=TRANSLATOR_LANGUAGE_MODEL_FILES,
        after=("translate",),
    )


def _attach(plan: TranslationPlan, config: TokenModelConfig) -> dict[str, Any]:
    from speechjepa.inference.model import load
    from speechjepa.inference.translator import SpeechTranslator
    from speechjepa.models.bundle import default_device

    translator = SpeechTranslator(load(plan.bundle, device=default_device()), decoder="greedy")
    train, dev = (_examples(plan, split, translator) for split in SPLITS)
    dev = dev[:: max(1, -(-len(dev) // config.max_tuning_pairs))]
    parts = _parts(translator, train, dev)
    content = attach_token_models(plan.bundle, parts, config)
    figures: dict[str, Any] = {part: _figures(content[part]) for part in parts}
    for part, found in figures.items():
        logger.info(
            "error rate of %s on %d dev pairs: %.1f %% by the best path, %.1f %% with a language "
            "model, which is %s",
            *(part, found["pairs"], 100 * found["error_rate_best_path"]),
            *(100 * found["error_rate"], "used" if found["is_used"] else "therefore not used"),
        )
    return figures


def _figures(entry: dict[str, Any]) -> dict[str, Any]:
    tuning, beam = entry["tuning"], entry["beam"]
    return {
        "is_used": entry["is_used"],
        **{name: tuning[name] for name in ("pairs", "error_rate_best_path", "error_rate")},
        **{name: beam[name] for name in ("lm_weight", "blank_score")},
        **{name: entry[name] for name in ("order", "sequences")},
    }


def _examples(plan: TranslationPlan, split: str, translator: SpeechTranslator) -> list[Example]:
    pairs, text = plan.pairs.of(split), plan.recipe.text
    if translator.files.kind == "units":
        return unit_examples(pairs, read_units(plan.run_dir / "units" / f"{split}.jsonl"), text)
    vocabulary = translator.files.vocabulary
    assert vocabulary is not None
    return character_examples(pairs, vocabulary, text)


def _parts(
    translator: SpeechTranslator, train: Sequence[Example], dev: Sequence[Example]
) -> dict[Part, PartData]:
    """Return what the translator writes: training targets, and what it makes of dev."""
    from speechjepa.inference.recognise import read_utterance

    vocabulary = translator.files.text_vocabulary

    def text_ids(example: Example) -> list[int]:
        return vocabulary.encode(example.text, unknown="drop") if vocabulary else []

    tokens: list[tuple[Tensor, Sequence[int]]] = []
    texts: list[tuple[Tensor, Sequence[int]]] = []
    for example in dev:
        try:
            waveform = read_utterance(example.source, translator.model.sample_rate)
        except AudioError as error:
            logger.warning("left out: %s", error)
            continue
        found = translator.logits(torch.from_numpy(waveform))
        tokens.append((found.logits[0].cpu(), example.tokens))
        if found.text_logits is not None and text_ids(example):
            texts.append((found.text_logits[0].cpu(), text_ids(example)))
    if not tokens:
        raise DataError("there is no dev pair to tune the language model on")
    symbols = symbols_of(translator.files, "tokens")
    assert symbols is not None
    parts: dict[Part, PartData] = {
        "tokens": _data(symbols, [example.tokens for example in train], tokens)
    }
    if vocabulary is not None and texts:
        parts["text"] = _data(vocabulary, [text_ids(example) for example in train], texts)
    return parts


def _data(
    symbols: Symbols, train: Sequence[Sequence[int]], dev: Sequence[tuple[Tensor, Sequence[int]]]
) -> PartData:
    logits, references = zip(*dev, strict=True)
    return PartData(symbols=symbols, train=train, logits=logits, references=references)
