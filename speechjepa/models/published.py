"""Read checkpoints of the wav2vec 2.0 family as `transformers` stores them.

Wav2Vec2, XLS-R, MMS (one language at a time), HuBERT, WavLM and data2vec-audio; for pretraining
(its quantizer is left behind), encoder only, and CTC.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from speechjepa.errors import ConfigError, ModelError
from speechjepa.models.bundle import CONFIG_FILE, Bundle
from speechjepa.models.ctc import CtcModel
from speechjepa.models.wav2vec2 import Wav2Vec2, Wav2Vec2Config
from speechjepa.text.languages import match_language, nearest_languages, standard_tag
from speechjepa.text.normalize import TextConfig
from speechjepa.text.vocabulary import BLANK, WORD_BOUNDARY, Vocabulary

FAMILIES = {
    "wav2vec2": "wav2vec2.",
    "hubert": "hubert.",
    "data2vec-audio": "data2vec_audio.",
    "wavlm": "wavlm.",
}
"""`model_type` -> what the encoder's tensors begin with where there is a head."""
LEFT_BEHIND = ("quantizer.", "project_hid.", "project_q.", "lm_head.", "masked_spec_embed")
"""Beginnings of tensors that the encoder has no use for, or that are read apart."""
SIZES = {
    "conv_widths": "conv_dim",
    "conv_kernels": "conv_kernel",
    "conv_strides": "conv_stride",
    "conv_bias": "conv_bias",
    "width": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "ffn_width": "intermediate_size",
    "position_groups": "num_conv_pos_embedding_groups",
    "layer_norm_eps": "layer_norm_eps",
    "dropout": "hidden_dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "input_dropout": "feat_proj_dropout",
    "layerdrop": "layerdrop",
}
_NAMES = (
    ("feature_encoder.convolutions.", "feature_extractor.conv_layers.", ".conv."),
    ("feature_encoder.norms.", "feature_extractor.conv_layers.", ".layer_norm."),
    ("feature_norm.", "feature_projection.layer_norm.", None),
    ("feature_projection.", "feature_projection.projection.", None),
    ("mask_embedding", "masked_spec_embed", None),
    ("positions.convolutions.", "encoder.pos_conv_embed.layers.", ".conv."),
    ("positions.convolution.", "encoder.pos_conv_embed.conv.", None),
    ("norm.", "encoder.layer_norm.", None),
    ("relative_bias.table.", "encoder.layers.0.attention.rel_attn_embed.", None),
    ("blocks.", "encoder.layers.", None),
)
"""Ours, theirs, and what stands behind the number of a layer in theirs."""
_PARTS = (
    ("attention_norm.", "layer_norm."),
    ("ffn_norm.", "final_layer_norm."),
    ("ffn_in.", "feed_forward.intermediate_dense."),
    ("ffn_out.", "feed_forward.output_dense."),
    ("attention.query.", "attention.q_proj."),
    ("attention.key.", "attention.k_proj."),
    ("attention.value.", "attention.v_proj."),
    ("attention.output.", "attention.out_proj."),
    ("attention.gate.projection.", "attention.gru_rel_pos_linear."),
    ("attention.gate.scale", "attention.gru_rel_pos_const"),
    ("adapter.norm.", "adapter_layer.norm."),
    ("adapter.down.", "adapter_layer.linear_1."),
    ("adapter.up.", "adapter_layer.linear_2."),
)


def published_name(name: str) -> str:
    """Return what `transformers` calls one of the tensors of a `Wav2Vec2`."""
    for ours, theirs, layer_part in _NAMES:
        if name.startswith(ours):
            rest = name.removeprefix(ours)
            if layer_part:
                index, _, parameter = rest.partition(".")
                return f"{theirs}{index}{layer_part}{parameter}"
            if ours == "blocks.":
                index, _, rest = rest.partition(".")
                part = next(pair for pair in _PARTS if rest.startswith(pair[0]))
                rest = f"{index}.{part[1]}{rest.removeprefix(part[0])}"
            return theirs + rest
    raise ValueError(f"no published name for {name}")


def read_published(folder: str | Path, language: str | None = None) -> Bundle:
    """Read a folder that `transformers` wrote.

    Args:
        folder: With config.json and model.safetensors or pytorch_model.bin, in one part or many.
        language: Which adapter and vocabulary, where there is one for each language.

    Raises:
        ModelError: It is of another kind, something is missing, or there is no such language.
    """
    folder = Path(folder)
    settings = _read_json(folder / CONFIG_FILE)
    family = settings.get("model_type")
    if family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ModelError(f"{folder}: is of the type {family!r}; those that can be read: {known}")
    tensors = {_modern(key): value for key, value in _read_tensors(folder).items()}
    if settings.get("adapter_attn_dim") is not None:
        tensors |= _adapter(folder, language)
    elif language is not None and _languages(folder):
        raise ModelError(f"{folder}: has vocabularies by language, but no adapters")
    encoder = Wav2Vec2(_sizes(folder, settings, tensors))
    _fill(encoder, tensors, FAMILIES[family], folder)
    bundle = Bundle(encoder=encoder.eval(), path=folder)
    bundle.training = {"published": {"model_type": family, "name": folder.name}}
    if "lm_head.weight" in tensors:
        bundle.vocabulary, order = _vocabulary(folder, language, settings)
        bundle.text = _text(bundle.vocabulary)
        bundle.languages = () if language is None else (standard_tag(language) or language,)
        bundle.ctc = CtcModel(encoder, len(order)).eval()
        if len(tensors["lm_head.weight"]) != len(order):
            raise ModelError(
                f"{folder}: vocab.json has {len(order)} symbols, but the head "
                f"{len(tensors['lm_head.weight'])}"
            )
        with torch.no_grad():
            bundle.ctc.head.weight.copy_(tensors["lm_head.weight"][order])
            bundle.ctc.head.bias.copy_(tensors["lm_head.bias"][order])
    return bundle


def _sizes(
    folder: Path, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Wav2Vec2Config:
    if settings.get("conv_pos_batch_norm"):
        raise ModelError(f"{folder}: a batch norm in its positions cannot be read")
    if settings.get("add_adapter"):
        raise ModelError(f"{folder}: an adapter behind the encoder cannot be read")
    for name in ("hidden_act", "feat_extract_activation"):
        if settings.get(name, "gelu") != "gelu":
            raise ModelError(f"{folder}: `{name}` must be gelu, but is {settings[name]!r} instead")
    preprocessor = folder / "preprocessor_config.json"
    # Where nothing is said, waveforms are normalised: that is the default of the processor.
    normalize = (
        _read_json(preprocessor).get("do_normalize", True) if preprocessor.exists() else True
    )
    values: dict[str, Any] = {}
    try:
        for ours, theirs in SIZES.items():
            value = settings[theirs]
            values[ours] = tuple(value) if isinstance(value, list) else value
        is_data2vec = settings["model_type"] == "data2vec-audio"
        is_wavlm = settings["model_type"] == "wavlm"
        kernel = "conv_pos_kernel_size" if is_data2vec else "num_conv_pos_embeddings"
        return Wav2Vec2Config(
            **values,
            conv_norm="layer" if is_data2vec else settings["feat_extract_norm"],
            pre_norm=bool(settings.get("do_stable_layer_norm", False)),
            position_kernel=settings[kernel],
            position_layers=settings["num_conv_pos_embeddings"] if is_data2vec else None,
            bias_buckets=settings["num_buckets"] if is_wavlm else None,
            bias_distance=settings["max_bucket_distance"] if is_wavlm else 800,
            feature_norm=bool(settings.get("feat_proj_layer_norm", True)),
            adapter_width=settings.get("adapter_attn_dim"),
            normalize_waveform=bool(normalize),
        )
    except KeyError as error:
        raise ModelError(f"{folder / CONFIG_FILE}: lacks `{error.args[0]}`") from error
    except (ConfigError, TypeError) as error:
        raise ModelError(f"{folder / CONFIG_FILE}: {error}") from error


def _fill(encoder: Wav2Vec2, tensors: Mapping[str, Tensor], prefix: str, folder: Path) -> None:
    """Put every tensor where it belongs; nothing may be missing and nothing left over."""
    bare = {key.removeprefix(prefix): value for key, value in tensors.items()}
    wanted = {published_name(name): name for name in encoder.state_dict()}
    found = {name: bare[theirs] for theirs, name in wanted.items() if theirs in bare}
    # Checkpoints that were never trained with masks have no embedding for them.
    found.setdefault("mask_embedding", encoder.mask_embedding.detach())
    missing = sorted(set(wanted.values()) - set(found))
    known = {*wanted, *(key for key in bare if key.startswith(LEFT_BEHIND))}
    surplus = sorted(set(bare) - known)
    if missing or surplus:
        what = f"lacks {published_name(missing[0])}" if missing else f"has {surplus[0]}"
        raise ModelError(
            f"{folder}: {what}, which does not go with its config.json "
            f"({len(missing)} missing, {len(surplus)} left over)"
        )
    try:
        encoder.load_state_dict(found)
    except RuntimeError as error:
        raise ModelError(f"{folder}: the weights do not fit config.json: {error}") from error


def _modern(key: str) -> str:
    """Return a tensor's name as it is written today: weight norm had others once."""
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        if key.endswith(f"pos_conv_embed.conv.{old}"):
            return key.removesuffix(old) + f"parametrizations.weight.{new}"
    return key


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    for index_name, name in (
        ("model.safetensors.index.json", "model.safetensors"),
        ("pytorch_model.bin.index.json", "pytorch_model.bin"),
    ):
        if (folder / index_name).exists():
            parts = sorted(set(_read_json(folder / index_name).get("weight_map", {}).values()))
        elif (folder / name).exists():
            parts = [name]
        else:
            continue
        return _join(read_tensors(folder / Path(part).name) for part in parts)
    raise ModelError(f"{folder}: holds neither model.safetensors nor pytorch_model.bin")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors; nothing in it is executed.

    Raises:
        ModelError: It cannot be read, or holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: the weights cannot be read: {error}") from error
    except Exception as error:  # torch raises UnpicklingError, RuntimeError, EOFError, ...
        raise ModelError(
            f"{path}: holds more than tensors, or is damaged, and is not read: {error}"
        ) from error


def _join(parts: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {key: value for part in parts for key, value in part.items()}


def _languages(folder: Path) -> list[str]:
    """Return the languages that have a vocabulary of their own."""
    path = folder / "vocab.json"
    vocabulary = _read_json(path) if path.exists() else {}
    return [key for key, value in vocabulary.items() if isinstance(value, dict)]


def _adapter(folder: Path, language: str | None) -> dict[str, Tensor]:
    """Return the tensors that belong to one language: adapters and head."""
    files = {
        path.name.removeprefix("adapter.").rpartition(".")[0]: path
        for suffix in ("bin", "safetensors")
        for path in folder.glob(f"adapter.*.{suffix}")
    }
    if language is None:
        if not files:  # the adapters of its one language are in the model itself
            return {}
        raise ModelError(f"{folder}: say which language: {', '.join(sorted(files))}")
    found = match_language(language, sorted(files))
    if found is None:
        raise ModelError(f"{folder}: has no adapter for {language!r}; {_others(language, files)}")
    return read_tensors(files[found])


def _others(language: str | None, known: Iterable[str]) -> str:
    codes = sorted(known)
    close = nearest_languages(language or "", codes)
    return f"the nearest: {', '.join(close)}" if close else f"it has {', '.join(codes) or 'none'}"


def _vocabulary(
    folder: Path, language: str | None, settings: Mapping[str, Any]
) -> tuple[Vocabulary, list[int]]:
    """Return the vocabulary with the blank first, and where each symbol is in the head."""
    path = folder / "vocab.json"
    if not path.exists():
        raise ModelError(f"{folder}: has a CTC head, but no vocab.json that says what it writes")
    ids = _read_json(path)
    if _languages(folder):
        found = None if language is None else match_language(language, sorted(ids))
        if found is None:
            raise ModelError(f"{path}: no vocabulary for {language!r}; {_others(language, ids)}")
        ids = ids[found]
    blank = settings.get("pad_token_id", 0)
    symbols = {index: symbol for symbol, index in ids.items()}
    if blank not in symbols or sorted(symbols) != list(range(len(symbols))):
        raise ModelError(f"{path}: the ids must be 0 to {len(symbols) - 1}, the blank {blank} too")
    order = [blank, *(index for index in sorted(symbols) if index != blank)]
    names = [BLANK, *(symbols[index] for index in order[1:])]
    names = [WORD_BOUNDARY if name == " " else name for name in names]
    if WORD_BOUNDARY not in names:
        raise ModelError(f"{path}: has no word boundary {WORD_BOUNDARY!r}")
    return Vocabulary(names), order


def _text(vocabulary: Vocabulary) -> TextConfig:
    """Return how references are written with these symbols: many models know capitals only."""
    letters = [s for s in vocabulary.symbols if len(s) == 1 and s.lower() != s.upper()]
    if letters and all(letter == letter.upper() for letter in letters):
        return TextConfig(lowercase=False, replacements={s.lower(): s for s in letters})
    return TextConfig(lowercase=not any(letter != letter.lower() for letter in letters))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: must hold one JSON object")
    return content
