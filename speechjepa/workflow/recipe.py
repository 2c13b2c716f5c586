"""Recipes: which data, which settings; YAML that holds only differences from the defaults."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from speechjepa.config import (
    apply_overrides,
    from_dict,
    load_yaml,
    save_yaml,
    to_dict,
)
from speechjepa.errors import ConfigError
from speechjepa.inference.language_model import LanguageModelConfig
from speechjepa.inference.pseudo_labels import SelfTrainingConfig
from speechjepa.models.speech_encoder import PRESETS as NATIVE_PRESETS
from speechjepa.models.speech_encoder import SpeechEncoderConfig
from speechjepa.models.wav2vec2 import PRESETS as WAV2VEC2_PRESETS
from speechjepa.models.wav2vec2 import Wav2Vec2Config
from speechjepa.text.languages import is_code, is_known, standard_tag
from speechjepa.text.normalize import TextConfig
from speechjepa.training.config import FinetuneConfig, PretrainConfig
from speechjepa.workflow.catalogue import find_prepare, find_recipe
from speechjepa.workflow.translation_recipe import TranslationConfig

logger = logging.getLogger(__name__)

DATA_ROOT_VARIABLE = "SPEECHJEPA_DATA"
TEMPLATE_WORDS = {
    "MY-LANGUAGE": "write the name of your language; it names the run folder, which no two "
    "languages should share",
    "MY_FOLDER": "write the folder of your recordings, relative to the data root",
}
"""What stands in recipes/new_language/recipe.yaml to be replaced -> with what."""


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """A corpus that needs more said about it than where it is."""

    location: str | None = None
    """Folder or file, relative to the data root or absolute; or `hf:<dataset>:<subset>`.
    null = `data.corpus`."""
    format: str = "auto"
    """Reader; "auto" recognises the corpus by its files."""
    split: str | None = None
    """Only this split of it."""
    columns: dict[str, str] | None = None
    """Of tables: which column holds what, for example {audio: path, text: sentence}. Of ELAN's and
    Praat's files: `text` is the tier; see `read_annotations`."""


@dataclass(frozen=True, kw_only=True)
class LabelDraw:
    """A random labelled subset; the ids drawn are written into the run folder."""

    minutes: float
    """How much transcribed audio to draw (minutes)."""
    seed: int = 0
    """Of the draw; the same seed draws the same utterances."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which audio and which labels."""

    root: Path | None = None
    """Folder that locations are relative to; set by --data-root or SPEECHJEPA_DATA."""
    corpus: str | None = None
    """Location of the entries below that give only a split."""
    pool: tuple[str | CorpusConfig, ...] = ()
    """Corpora whose audio is used without labels in pretraining; empty = `train`. Of one in splits
    (train or training, and others) that is named without a `split`, all but test, testing and eval
    is."""
    train: str | CorpusConfig | None = None
    """Corpus with the labelled utterances."""
    labels: str | LabelDraw = "all"
    """"all"; the name of a list, "10min" reads 10min.txt in `train`; the path of a list that
    ends in .txt, relative to the folder that the command is run in; or {minutes: 10, seed: 0}."""
    dev: str | CorpusConfig | None = None
    """Corpus to measure on; null = the dev split of `train` if it is in splits, else `dev_minutes`
    held out of its labelled part."""
    dev_minutes: float = 5.0
    """How much to hold out when there is no `dev` (minutes; at most a fifth of the labels)."""

    def complete(self, entry: str | CorpusConfig) -> CorpusConfig:
        """Return an entry with its location settled: absolute, or an `hf:` id as it is.

        Raises:
            ConfigError: It has no location, or a relative one and there is no data root.
        """
        corpus = CorpusConfig(location=entry) if isinstance(entry, str) else entry
        location = corpus.location or self.corpus
        if location is None:
            raise ConfigError(f"{corpus} has no `location`, and there is no `data.corpus`")
        if not location.startswith("hf:") and not Path(location).is_absolute():
            location = str(self.under_root(location))
        corpus = replace(corpus, location=location)
        train = self.train
        if corpus.columns is None and isinstance(train, CorpusConfig) and train.columns:
            # The same folder, named for the pool too, is read alike.
            if self.complete(train).location == location:
                corpus = replace(corpus, columns=train.columns, format=train.format)
        return corpus

    def under_root(self, location: str) -> Path:
        """Return a path that is relative to the data root.

        Raises:
            ConfigError: There is no data root.
        """
        if self.root is None:
            raise ConfigError(
                f"`{location}` is relative to the data root, and none is given: say "
                f"--data-root FOLDER, or set {DATA_ROOT_VARIABLE}=FOLDER"
            )
        return self.root / location

    def pool_corpora(self) -> list[CorpusConfig]:
        """Return the corpora for pretraining, located."""
        entries = self.pool or (() if self.train is None else (self.train,))
        return [self.complete(entry) for entry in entries]

    def corpora(self) -> list[CorpusConfig]:
        """Return every corpus that is named, located, each once."""
        named = [self.complete(entry) for entry in (self.train, self.dev) if entry is not None]
        return list({repr(c): c for c in [*self.pool_corpora(), *named]}.values())


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a run depends on, apart from the data itself."""

    name: str
    """Names the run folder and the result; letters, digits, "-", "_" and "."."""
    title: str = ""
    """One line for the table of recipes."""
    language: str | None = None
    """Code of the language that is recognised, for example en, eng or eng_Latn; qaa to qtz are for
    languages that have none. null = none or several."""
    seed: int = 0
    """Seed of pretraining and fine-tuning, unless they give their own."""
    init: Path | None = None
    """Bundle to start from: continued pretraining, or fine-tuning where `pretrain` is null.
    null = the encoder that comes with the package where it has the sizes of `encoder`, else fresh
    weights; "shipped" and "fresh" ask for one of them."""
    licence: str = ""
    """Licence of the weights, stored in the bundle."""
    data: DataConfig = field(default_factory=DataConfig)
    text: TextConfig = field(default_factory=TextConfig)
    encoder: SpeechEncoderConfig | Wav2Vec2Config = NATIVE_PRESETS["tiny"]
    """In YAML: {preset: tiny, <differences>}; `type: wav2vec2` for the published architecture."""
    pretrain: PretrainConfig | None = field(default_factory=PretrainConfig)
    """null = none."""
    finetune: FinetuneConfig | None = field(default_factory=FinetuneConfig)
    """null = none."""
    language_model: LanguageModelConfig | None = field(default_factory=LanguageModelConfig)
    """null = greedy decoding only."""
    translation: TranslationConfig | None = None
    """Train a translator, instead of a recogniser; the encoder is that of `init`."""
    self_training: SelfTrainingConfig | None = None
    """Go on with what the fine-tuned model recognises in the rest of `data.train`; null = do not.
    `self_training: {}` does, as SelfTrainingConfig says."""

    def __post_init__(self) -> None:
        allowed = all(c.isalnum() or c in "-_." for c in self.name)
        if not allowed or not self.name.strip("."):
            raise ConfigError(
                "`name` must be letters, digits, '-', '_' and '.' (it names a folder), "
                f"but is {self.name!r} instead"
            )
        for key, value in (("name", self.name), ("data.corpus", self.data.corpus)):
            if value in TEMPLATE_WORDS:
                raise ConfigError(
                    f"`{key}` is still {value}, as in the template: {TEMPLATE_WORDS[value]}"
                )
        if self.language is not None and not is_code(self.language):
            tag = standard_tag(self.language)
            raise ConfigError(
                "`language` must be a code such as en, eng or eng_Latn (qaa for a language that "
                f"has none; null for none or several), but is {self.language!r} instead"
                + (f"; did you mean `{tag}`?" if tag else "")
            )
        for name in ("pretrain", "finetune"):
            _refuse_impossible_numbers(name, getattr(self, name))
        if self.finetune is not None and self.data.train is None:
            raise ConfigError(
                "`data.train` is missing: fine-tuning needs transcribed utterances "
                "(`finetune: null` for pretraining alone)"
            )
        if self.finetune is not None and self.pretrain is not None:
            if self.pretrain.objective == "future":
                raise ConfigError(
                    "`pretrain.objective: future` makes a model for `speechjepa surprise`, and "
                    "nothing to fine-tune: take `finetune: null`, or another objective"
                )
        if self.translation is not None and self.data.train is None:
            raise ConfigError("`data.train` is missing: translation needs pairs")
        for name in ("pretrain", "finetune", "self_training"):
            if self.translation is not None and getattr(self, name) is not None:
                raise ConfigError(
                    f"`{name}` and `translation` are two recipes: run the other first, and start "
                    "the translation from it with `init`"
                )
        if self.pretrain is not None and not self.data.pool and self.data.train is None:
            raise ConfigError("`data.pool` is missing: pretraining needs audio")


_MORE_THAN_0 = {"max_steps", "minutes", "batch_seconds", "accumulate", "learning_rate", "devices"}


def _refuse_impossible_numbers(name: str, section: PretrainConfig | FinetuneConfig | None) -> None:
    """Say at once what would fail, or train nothing, after hours of the stages before."""
    for key, value in vars(section).items() if section is not None else ():
        if not isinstance(value, (int, float)):
            continue
        if value < 0 or (value == 0 and key in _MORE_THAN_0):
            least = "more than 0" if key in _MORE_THAN_0 else "at least 0"
            raise ConfigError(f"`{name}.{key}` must be {least}, but is {value} instead")


# ---------------------------------------------------------------------------------------------
# Reading and writing


def load_recipe(
    path_or_name: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    data_root: str | os.PathLike[str] | None = None,
) -> Recipe:
    """Read a recipe, put flags on top, and settle where its data is.

    Args:
        path_or_name: A YAML file, or the name of one of the project's (`mboshi/asr_10min`).
        overrides: Flags such as `finetune.learning_rate=1e-4`.
        data_root: Folder that the recipe's locations are relative to; None = SPEECHJEPA_DATA.

    Raises:
        ConfigError: There is no such recipe, a setting does not fit, or a location is relative
            and there is no data root.
    """
    path = find_recipe(path_or_name)
    recipe = build_recipe(load_yaml(path), overrides, data_root, where=str(path_or_name))
    root = recipe.data.root
    makes_data = recipe.translation is not None and recipe.translation.phrases is not None
    if root is not None and not (root.is_dir() or makes_data or find_prepare(path)):
        raise ConfigError(f"the data root {root} is no folder")
    return recipe


def build_recipe(
    mapping: Mapping[str, Any],
    overrides: Iterable[str] = (),
    data_root: str | os.PathLike[str] | None = None,
    *,
    where: str = "recipe",
) -> Recipe:
    """Build a recipe from settings; the rest is as in `load_recipe`."""
    settings = apply_overrides(mapping, overrides)
    if "encoder" in settings:
        settings["encoder"] = _resolve_encoder(settings["encoder"], where)
    if settings.get("translation") is not None:
        for section in ("pretrain", "finetune", "language_model"):
            settings.setdefault(section, None)
    if "seed" in settings:
        for section in ("pretrain", "finetune"):
            given = settings.get(section, {})
            if isinstance(given, dict):
                settings[section] = {"seed": settings["seed"], **given}
        translation = settings.get("translation")
        if isinstance(translation, dict) and isinstance(translation.get("train", {}), dict):
            train = {"seed": settings["seed"], **translation.get("train", {})}
            settings["translation"] = {**translation, "train": train}
    root = data_root or os.environ.get(DATA_ROOT_VARIABLE)
    data = settings.get("data", {})
    if isinstance(data, dict) and (data_root or (root and data.get("root") is None)):
        settings["data"] = {**data, "root": str(Path(str(root)).resolve())}
    recipe = from_dict(Recipe, settings, where=where)
    recipe.data.corpora()  # says so now where a location cannot be settled
    if recipe.language is not None and not is_known(recipe.language):
        logger.warning(
            "`language` is %s, which is no code of a language that is known here; it is kept as it "
            "is (qaa to qtz are for languages that have no code)",
            recipe.language,
        )
    return recipe


def _resolve_encoder(section: Any, where: str) -> SpeechEncoderConfig | Wav2Vec2Config:
    """Turn {type, preset, differences} into the settings of an encoder."""
    if not isinstance(section, dict):
        raise ConfigError(
            f"{where}: `encoder` must be a section of keys, but is {section!r} instead; "
            "for example `encoder: {preset: tiny}`"
        )
    differences = dict(section)
    kind = differences.pop("type", "native")
    if kind not in ("native", "wav2vec2"):
        raise ConfigError(
            f"{where}: `encoder.type` must be native or wav2vec2, but is {kind!r} instead"
        )
    presets: Mapping[str, Any] = WAV2VEC2_PRESETS if kind == "wav2vec2" else NATIVE_PRESETS
    preset = differences.pop("preset", "tiny")
    if preset not in presets:
        raise ConfigError(
            f"{where}: `encoder.preset` must be one of {', '.join(presets)}, "
            f"but is {preset!r} instead"
        )
    content = {"encoder": {**to_dict(presets[preset]), **differences}}
    if kind == "wav2vec2":
        return from_dict(_PublishedSection, content, where=where).encoder
    return from_dict(_NativeSection, content, where=where).encoder


@dataclass(frozen=True, kw_only=True)
class _NativeSection:
    """Only so that errors say `encoder.width`."""

    encoder: SpeechEncoderConfig


@dataclass(frozen=True, kw_only=True)
class _PublishedSection:
    """Only so that errors say `encoder.width`."""

    encoder: Wav2Vec2Config


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the whole recipe, defaults included; `load_recipe` reads it back."""
    content = to_dict(recipe)
    kind = "wav2vec2" if isinstance(recipe.encoder, Wav2Vec2Config) else "native"
    content["encoder"] = {"type": kind, **content["encoder"]}
    save_yaml(content, path)
