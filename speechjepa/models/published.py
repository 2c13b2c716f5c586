"""Read checkpoints of the wav2vec 2.0 family as `transformers` stores them.

Wav2Vec2, XLS-R, MMS (one language at a time), HuBERT, WavLM and data2vec-audio; for pretraining
(its quantizer is left behind), encoder only, and CTC.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechjepa.config import from_dict
from speechjepa.errors import ConfigError, DataError, ModelError
from speechjepa.models.bundle import CONFIG_FILE, Bundle
from speechjepa.models.checkpoint_files import read_json, read_tensors
from speechjepa.models.ctc import CtcModel
from speechjepa.models.wav2vec2 import Wav2Vec2, Wav2Vec2Config
from speechjepa.text.languages import match_language, nearest_languages, standard_tag
from speechjepa.text.normalize import TextConfig
from speechjepa.text.vocabulary import BLANK, SPECIAL, WORD_BOUNDARY, Vocabulary

FAMILIES = {
    "wav2vec2": "wav2vec2.",
    "hubert": "hubert.",
    "data2vec-audio": "data2vec_audio.",
    "wavlm": "wavlm.",
}
"""`model_type` -> what the encoder's tensors begin with where there is a head."""
ELSEWHERE = {
    "wav2vec2-bert": "it hears 160 filterbank channels that its own processor computes, not "
    "samples, and its blocks are conformers with relative keys: another encoder, which is not here",
    "wav2vec2-conformer": "its blocks are conformers: another encoder, which is not here",
}
"""`model_type` -> why a relative of the family is not read."""
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
    settings = read_json(folder / CONFIG_FILE)
    family = settings.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        known = ", ".join(FAMILIES)
        reason = f" ({ELSEWHERE[str(family)]})" if str(family) in ELSEWHERE else ""
        raise ModelError(
            f"{folder}: is of the type {family!r}{reason}; those that can be read: {known}"
        )
    tensors = {modern_name(key): value for key, value in _read_tensors(folder).items()}
    if settings.get("adapter_attn_dim") is not None:
        tensors |= _adapter(folder, language)
    elif language is not None:
        raise ModelError(
            f"{folder}: has no adapters for languages, so none can be chosen: it writes what it "
            f"was trained on, whether that is {language!r} or not; leave the language out"
        )
    prefix = FAMILIES[family]
    bare = {key.removeprefix(prefix): value for key, value in tensors.items()}
    encoder = filled_encoder(_sizes(folder, settings), bare, folder)
    bundle = Bundle(encoder=encoder, path=folder)
    bundle.training = {"published": {"model_type": family, "name": folder.name}}
    if "lm_head.weight" in tensors:
        ids = _symbols(folder, language, rows=len(tensors["lm_head.weight"]))
        blank = settings.get("pad_token_id", 0)
        add_head(bundle, tensors, order_vocabulary(ids, blank, folder / "vocab.json"), folder)
        bundle.languages = () if language is None else (standard_tag(language) or language,)
    return bundle


def filled_encoder(config: Wav2Vec2Config, tensors: Mapping[str, Tensor], where: Path) -> Wav2Vec2:
    """Return an encoder with these weights; nothing may be missing and nothing left over.

    Args:
        config: Sizes, compared with the weights before any memory is taken.
        tensors: By the names of `transformers`, float16 or float32.
        where: The checkpoint, for messages.

    Raises:
        ModelError: The weights are not those of such an encoder.
    """
    if config.num_layers > len(tensors):
        raise ModelError(f"{where}: {config.num_layers} blocks, but only {len(tensors)} tensors")
    try:
        with torch.device("meta"):
            encoder = Wav2Vec2(config)
    except RuntimeError as error:  # more than 2^63 bytes
        raise ModelError(f"{where}: no model has such sizes: {error}") from error
    wanted = {published_name(name): name for name in encoder.state_dict()}
    found = {name: tensors[theirs] for theirs, name in wanted.items() if theirs in tensors}
    missing = sorted(set(wanted.values()) - set(found) - {"mask_embedding"})
    surplus = sorted(
        key for key in tensors if key not in wanted and not key.startswith(LEFT_BEHIND)
    )
    if missing or surplus:
        what = f"lacks {published_name(missing[0])}" if missing else f"has {surplus[0]}"
        raise ModelError(
            f"{where}: {what}, which does not go with the sizes that it is said to have "
            f"({len(missing)} missing, {len(surplus)} left over)"
        )
    for name, parameter in encoder.state_dict().items():
        if name in found and found[name].shape != parameter.shape:
            raise ModelError(
                f"{where}: {published_name(name)} must be {tuple(parameter.shape)} by the sizes "
                f"that it is said to have, but is {tuple(found[name].shape)} instead"
            )
    # Copies: what was read may be the file itself, and the file may change.
    copies = {name: tensor.to(torch.float32, copy=True) for name, tensor in found.items()}
    # Checkpoints that were never trained with masks have no embedding for them.
    copies.setdefault("mask_embedding", torch.rand(config.width))
    encoder.load_state_dict(copies, assign=True)
    return encoder.eval()


def add_head(
    bundle: Bundle,
    tensors: Mapping[str, Tensor],
    symbols: tuple[Vocabulary, list[int]],
    where: Path,
) -> None:
    """Give a bundle its CTC head, and the vocabulary and text of it.

    Raises:
        ModelError: The head has not one row for each symbol.
    """
    vocabulary, order = symbols
    weight, bias = tensors["lm_head.weight"], tensors.get("lm_head.bias")
    expected = (len(order), bundle.encoder.width)
    if tuple(weight.shape) != expected or bias is None or tuple(bias.shape) != expected[:1]:
        raise ModelError(
            f"{where}: the head must be {expected}, {len(order)} symbols and as wide as the "
            f"encoder, but is {tuple(weight.shape)} instead"
        )
    bundle.vocabulary, bundle.text = vocabulary, _text(vocabulary)
    bundle.ctc = CtcModel(bundle.encoder, len(order)).eval()
    with torch.no_grad():
        bundle.ctc.head.weight.copy_(weight[order])
        bundle.ctc.head.bias.copy_(bias[order])


def _sizes(folder: Path, settings: Mapping[str, Any]) -> Wav2Vec2Config:
    if settings.get("conv_pos_batch_norm"):
        raise ModelError(f"{folder}: a batch norm in its positions cannot be read")
    if settings.get("add_adapter"):
        raise ModelError(f"{folder}: an adapter behind the encoder cannot be read")
    for name in ("hidden_act", "feat_extract_activation"):
        if settings.get(name, "gelu") != "gelu":
            raise ModelError(f"{folder}: `{name}` must be gelu, but is {settings[name]!r} instead")
    # Where nothing is said, waveforms are normalised: that is the default of the processor.
    normalize = _preprocessor(folder).get("do_normalize", True)
    is_data2vec = settings["model_type"] == "data2vec-audio"
    is_wavlm = settings["model_type"] == "wavlm"
    kernel = "conv_pos_kernel_size" if is_data2vec else "num_conv_pos_embeddings"
    where = str(folder / CONFIG_FILE)
    try:
        values = {ours: settings[theirs] for ours, theirs in SIZES.items()} | {
            "conv_norm": "layer" if is_data2vec else settings["feat_extract_norm"],
            "pre_norm": settings.get("do_stable_layer_norm", False),
            "position_kernel": settings[kernel],
            "position_layers": settings["num_conv_pos_embeddings"] if is_data2vec else None,
            "bias_buckets": settings["num_buckets"] if is_wavlm else None,
            "bias_distance": settings["max_bucket_distance"] if is_wavlm else 800,
            "feature_norm": settings.get("feat_proj_layer_norm", True),
            "adapter_width": settings.get("adapter_attn_dim"),
            "normalize_waveform": normalize,
        }
        return from_dict(Wav2Vec2Config, values, where=where)
    except KeyError as error:
        raise ModelError(f"{where}: lacks `{error.args[0]}`") from error
    except ConfigError as error:  # names the file
        raise ModelError(str(error)) from error


def modern_name(key: str) -> str:
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
            weight_map = read_json(folder / index_name).get("weight_map")
            if not isinstance(weight_map, dict):
                raise ModelError(f"{folder / index_name}: has no `weight_map`")
            parts = sorted({str(part) for part in weight_map.values()})
        elif (folder / name).exists():
            parts = [name]
        else:
            continue
        return _join(read_tensors(folder / Path(part).name) for part in parts)
    raise ModelError(f"{folder}: holds neither model.safetensors nor pytorch_model.bin")


def _join(parts: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {key: value for part in parts for key, value in part.items()}


def adapter_languages(folder: Path) -> list[str]:
    """Return the languages that have a vocabulary of their own, in a folder of `transformers`."""
    path = folder / "vocab.json"
    vocabulary = read_json(path) if path.exists() else {}
    return [key for key, value in vocabulary.items() if isinstance(value, dict)]


def find_language(folder: Path, language: str | None, known: Iterable[str]) -> str:
    """Return the code that a folder has for a language.

    Raises:
        ModelError: It has none, or the language is not given.
    """
    codes = sorted(known)
    listed = ", ".join(codes[:20]) + (", ..." if len(codes) > 20 else "")
    if language is None:
        raise ModelError(
            f"{folder}: say which language: {listed}. Where none can be given, convert it first: "
            "`speechjepa convert SRC DST --language CODE`"
        )
    found = match_language(language, codes)
    if found is None:
        close = nearest_languages(language, codes)
        others = f"the nearest: {', '.join(close)}" if close else f"it has {listed or 'none'}"
        raise ModelError(f"{folder}: has no adapter for {language!r}; {others}")
    return found


def _adapter(folder: Path, language: str | None) -> dict[str, Tensor]:
    """Return the tensors that belong to one language: adapters and head."""
    files = {
        path.name.removeprefix("adapter.").rpartition(".")[0]: path
        for suffix in ("bin", "safetensors")
        for path in folder.glob(f"adapter.*.{suffix}")
    }
    if language is None and not files:  # the adapters of its one language are in the model itself
        return {}
    return read_tensors(files[find_language(folder, language, files)])


def _preprocessor(folder: Path) -> dict[str, Any]:
    """Return what is said about waveforms: in a file of its own, or, since transformers 5, in that
    of the whole processor."""
    alone, whole = folder / "preprocessor_config.json", folder / "processor_config.json"
    if alone.exists():
        return read_json(alone)
    return (read_json(whole).get("feature_extractor") or {}) if whole.exists() else {}


def _symbols(folder: Path, language: str | None, *, rows: int) -> dict[str, int]:
    """Return {symbol: row of the head, which has `rows`} of the language."""
    path = folder / "vocab.json"
    if not path.exists():
        raise ModelError(f"{folder}: has a CTC head, but no vocab.json that says what it writes")
    ids = read_json(path)
    known = adapter_languages(folder)
    if known:
        return ids[find_language(folder, language, known)]
    added = folder / "added_tokens.json"  # <s> and </s>, for which the head may have rows
    more = read_json(added) if added.exists() else {}
    return {**{s: row for s, row in more.items() if type(row) is int and row < rows}, **ids}


def order_vocabulary(
    ids: Mapping[str, int], blank: Any, where: Path
) -> tuple[Vocabulary, list[int]]:
    """Return the vocabulary with the blank first, and where each symbol is in the head.

    Raises:
        ModelError: The ids are no such numbers, or there is no word boundary.
    """
    symbols = {index: symbol for symbol, index in ids.items() if type(index) is int}
    if type(blank) is not int or blank not in symbols or set(symbols) != set(range(len(ids))):
        raise ModelError(f"{where}: the ids must be 0 to {len(ids) - 1}, the blank {blank} too")
    order = [blank, *(index for index in sorted(symbols) if index != blank)]
    names = [BLANK, *(symbols[index] for index in order[1:])]
    names = [WORD_BOUNDARY if name == " " else name for name in names]
    long = [n for n in names if len(_letters(n)) > 1 and not SPECIAL.fullmatch(n)]
    if long:
        raise ModelError(
            f"{where}: {', '.join(map(repr, long[:5]))} are symbols of several characters, as "
            "models of phones have; only models that write characters can be read"
        )
    if WORD_BOUNDARY not in names:
        raise ModelError(f"{where}: has no word boundary {WORD_BOUNDARY!r}")
    try:
        return Vocabulary(names), order
    except DataError as error:
        raise ModelError(f"{where}: {error}") from error


def _letters(symbol: str) -> str:
    """Return a symbol without its combining marks: an accented letter is one letter."""
    return "".join(c for c in unicodedata.normalize("NFD", symbol) if not unicodedata.combining(c))


def _text(vocabulary: Vocabulary) -> TextConfig:
    """Return how references are written with these symbols: many models know capitals only."""
    letters = [s for s in vocabulary.symbols if len(s) == 1 and s.lower() != s.upper()]
    if letters and all(letter == letter.upper() for letter in letters):
        return TextConfig(lowercase=False, replacements={s.lower(): s for s in letters})
    return TextConfig(lowercase=not any(letter != letter.lower() for letter in letters))
