"""Bundles: a folder that holds a model and everything needed to use it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from speechjepa.config import from_dict, to_dict
from speechjepa.errors import ConfigError, ModelError, SpeechJepaError
from speechjepa.models.checkpoint_files import CHECKPOINT_SUFFIXES
from speechjepa.models.ctc import CtcModel
from speechjepa.models.encoder import Encoder
from speechjepa.models.future import FutureConfig, FutureModel
from speechjepa.models.pretraining import (
    ContextPredictionModel,
    PredictorConfig,
    build_predictor,
)
from speechjepa.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from speechjepa.models.wav2vec2 import Wav2Vec2, Wav2Vec2Config
from speechjepa.nn.tensor_files import save_tensors
from speechjepa.text.normalize import TextConfig
from speechjepa.text.vocabulary import Vocabulary

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

EncoderConfig = SpeechEncoderConfig | Wav2Vec2Config


@dataclass
class Bundle:
    """What a bundle folder holds, in memory."""

    encoder: Encoder
    """The encoder alone, also when there is a head."""
    ctc: CtcModel | None = None
    """Encoder and head, when fine-tuned."""
    predictor: ContextPredictionModel | None = None
    """Encoder and predictor of a JEPA, when pretrained and not fine-tuned since."""
    predictor_config: PredictorConfig | None = None
    """Sizes of the predictor."""
    future: FutureModel | None = None
    """Encoder and a predictor of what comes next, where pretraining was for that."""
    vocabulary: Vocabulary | None = None
    """Characters of the head."""
    text: TextConfig = field(default_factory=TextConfig)
    """How transcripts were normalised."""
    languages: tuple[str, ...] = ()
    """Language codes it was fine-tuned on."""
    training: dict[str, Any] = field(default_factory=dict)
    """Training data and settings, stage by stage."""
    results: dict[str, Any] = field(default_factory=dict)
    """Measured results."""
    calibration: dict[str, dict[str, float]] = field(default_factory=dict)
    """What makes probabilities of the scores of words, for `greedy` and `lm` decoding each:
    temperature and offset (`speechjepa.metrics.calibration.ScoreMap`), fitted on dev."""
    licence: str = ""
    """Licence of the weights."""
    path: Path | None = None
    """Where it was read from."""


@dataclass(frozen=True, kw_only=True)
class _Head:
    """The entry `head` of config.json."""

    type: Literal["ctc"]
    upsample: int


@dataclass(frozen=True, kw_only=True)
class _Origin:
    """Entries of config.json that say where a model comes from; fields as in `Bundle`."""

    languages: tuple[str, ...]
    training: dict[str, dict[str, Any]]
    results: dict[str, Any]
    licence: str


@dataclass(frozen=True, kw_only=True)
class _Calibration:
    """The entry `calibration` of config.json, which older bundles lack."""

    calibration: dict[str, dict[str, float]]


def encoder_type(config: EncoderConfig) -> str:
    """Return the name under which an encoder's settings are stored."""
    return "wav2vec2" if isinstance(config, Wav2Vec2Config) else "native"


def build_encoder(config: EncoderConfig) -> Encoder:
    """Return an encoder with fresh weights."""
    if isinstance(config, Wav2Vec2Config):
        return Wav2Vec2(config)
    return SpeechEncoder(config)


def fresh_copy(encoder: Encoder) -> Encoder:
    """Return an encoder of the same settings and the same normalisation, with fresh weights."""
    fresh = build_encoder(cast(EncoderConfig, encoder.config))
    if isinstance(encoder, SpeechEncoder) and isinstance(fresh, SpeechEncoder):
        measured = encoder.feature_encoder.log_mel.state_dict()
        fresh.feature_encoder.log_mel.load_state_dict(measured)
    return fresh


def encoder_config(entry: Mapping[str, Any], where: str = CONFIG_FILE) -> EncoderConfig:
    """Return the settings of an encoder stored as {"type": ..., settings}."""
    values = dict(entry)
    kind = values.pop("type", "native")
    if kind == "native":
        return from_dict(SpeechEncoderConfig, values, where=where)
    if kind == "wav2vec2":
        return from_dict(Wav2Vec2Config, values, where=where)
    raise ModelError(f"{where}: `encoder.type` must be native or wav2vec2, but is {kind!r} instead")


def save_bundle(bundle: Bundle, folder: Path) -> Path:
    """Write a bundle; an older one in the same folder is replaced only once the new one is whole.

    Files beside the model (language model, decoder settings) are left as they are.

    Returns:
        The folder.
    """
    config = cast(EncoderConfig, bundle.encoder.config)
    entry: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "encoder": {"type": encoder_type(config), **to_dict(config)},
        "head": None,
        "predictor": None,
        "future": None,
        "vocabulary": None if bundle.vocabulary is None else bundle.vocabulary.to_list(),
        "text": to_dict(bundle.text),
        "languages": list(bundle.languages),
        "training": bundle.training,
        "results": bundle.results,
        "calibration": bundle.calibration,
        "licence": bundle.licence,
    }
    module: nn.Module = bundle.encoder
    if bundle.ctc is not None:
        entry["head"] = {"type": "ctc", "upsample": bundle.ctc.upsample}
        module = bundle.ctc
    elif bundle.predictor is not None:
        entry["predictor"] = to_dict(bundle.predictor_config)
        module = bundle.predictor
    elif bundle.future is not None:
        entry["future"] = to_dict(bundle.future.predictor.config)
        module = bundle.future
    prefix = "encoder." if module is bundle.encoder else ""
    tensors = {
        prefix + name: tensor.detach().cpu().contiguous()
        for name, tensor in module.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / (WEIGHTS_FILE + ".partial")
    save_tensors(tensors, weights)
    settings = folder / (CONFIG_FILE + ".partial")
    settings.write_text(json.dumps(entry, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(weights, folder / WEIGHTS_FILE)
    os.replace(settings, folder / CONFIG_FILE)
    return folder


def update_bundle(folder: Path, **entries: Any) -> None:
    """Change entries of a bundle's config.json, such as `results`."""
    path = folder / CONFIG_FILE
    config = _read_config(folder)
    config.update(entries)
    partial = folder / (CONFIG_FILE + ".partial")
    partial.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def load_bundle(folder: str | Path, language: str | None = None) -> Bundle:
    """Read a bundle, a folder that `transformers` wrote, or a file of fairseq or torchaudio.

    Args:
        folder: The folder or file (`speechjepa.models.published`, `published_files`).
        language: Which adapter and vocabulary of a published checkpoint that has several.

    Raises:
        ModelError: It is not a bundle, or not a readable one; the message says what is missing.
    """
    folder = Path(folder)
    if folder.is_file() and folder.suffix in CHECKPOINT_SUFFIXES:
        from speechjepa.models.published_files import read_checkpoint_file  # needs this module

        if language is not None:
            raise ModelError(f"{folder}: has no languages to choose from; leave the language out")
        return read_checkpoint_file(folder)
    content = parse_config(folder)
    if is_published(content):
        from speechjepa.models.published import read_published  # which needs this module

        return read_published(folder, language)
    entry = _checked(content, folder)
    where = str(folder / CONFIG_FILE)
    try:
        encoder = build_encoder(encoder_config(entry["encoder"], where))
        head = None if entry["head"] is None else from_dict(_Head, entry["head"], where=where)
        origin = {key.name: entry[key.name] for key in fields(_Origin)}
        vocabulary = entry.get("vocabulary")
        bundle = Bundle(
            encoder=encoder,
            vocabulary=None if vocabulary is None else Vocabulary.from_list(vocabulary),
            text=from_dict(TextConfig, entry["text"], where=where),
            calibration=from_dict(
                _Calibration, {"calibration": entry.get("calibration", {})}, where=where
            ).calibration,
            path=folder,
            **vars(from_dict(_Origin, origin, where=where)),
        )
        if head is not None:
            if bundle.vocabulary is None:
                raise ValueError("there is a head but no vocabulary")
            bundle.ctc = CtcModel(encoder, len(bundle.vocabulary), head.upsample)
        elif entry.get("predictor") is not None:
            sizes = from_dict(PredictorConfig, entry["predictor"], where=where)
            bundle.predictor, bundle.predictor_config = build_predictor(encoder, sizes), sizes
        elif entry.get("future") is not None:
            bundle.future = FutureModel(
                encoder, from_dict(FutureConfig, entry["future"], where=where)
            )
    except ModelError:
        raise
    except KeyError as error:
        raise ModelError(f"{where}: `{error.args[0]}` is missing; the bundle is damaged") from error
    except ConfigError as error:  # names the file already
        raise ModelError(f"{error}; the bundle is damaged") from error
    except (SpeechJepaError, TypeError, ValueError) as error:
        raise ModelError(f"{where}: {error}; the bundle is damaged") from error
    module: nn.Module = (
        bundle.ctc or bundle.predictor or bundle.future or nn.ModuleDict({"encoder": encoder})
    )
    _load_weights(module, folder / WEIGHTS_FILE)
    module.eval()
    return bundle


def is_published(config: object) -> bool:
    """Say whether a config.json is that of a checkpoint of `transformers`."""
    return isinstance(config, dict) and "model_type" in config and "format_version" not in config


def parse_config(folder: Path) -> Any:
    """Return the content of the config.json of a folder, whoever wrote it.

    Raises:
        ModelError: There is none, or it cannot be read.
    """
    path = folder / CONFIG_FILE
    if not folder.is_dir():
        what = "this is a file" if folder.exists() else "there is no such folder"
        raise ModelError(
            f"{folder}: {what}; a model is a folder with {CONFIG_FILE}, or a checkpoint of fairseq "
            f"or torchaudio ({', '.join(CHECKPOINT_SUFFIXES)}). `make quickstart` makes "
            "runs/quickstart, and the name `shipped` is the model that comes with the package"
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder}: not a model: it holds no {CONFIG_FILE}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error


def _read_config(folder: Path) -> dict[str, Any]:
    return _checked(parse_config(folder), folder)


def _checked(config: Any, folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    version = config.get("format_version") if isinstance(config, dict) else None
    if version != FORMAT_VERSION:
        raise ModelError(
            f"{path}: `format_version` must be {FORMAT_VERSION}, but is {version!r} instead"
        )
    return config


def _load_weights(module: nn.Module, path: Path) -> None:
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise ModelError(f"{path}: the weights are missing") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: the weights cannot be read: {error}") from error
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(f"{path}: the weights do not fit config.json: {error}") from error


def load_init(source: str | Path) -> Encoder:
    """Return the encoder of a bundle, to start training from."""
    try:
        bundle = load_bundle(source)
    except SpeechJepaError as error:
        raise ModelError(f"cannot start from {source}: {error}") from error
    if bundle.future is not None:
        raise ModelError(
            f"cannot start from {source}: it was made for `speechjepa surprise` (objective "
            "future), and its encoder is the one that it began with; start from that instead"
        )
    return bundle.encoder


def num_parameters(module: nn.Module) -> int:
    """Return the number of weights."""
    return sum(p.numel() for p in module.parameters())


def default_device() -> torch.device:
    """Return the GPU when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
