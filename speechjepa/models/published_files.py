"""Read checkpoints of the wav2vec 2.0 family that are one file: fairseq's and torchaudio's.

Names of tensors are translated to those of `transformers`, sizes come from the tensors' shapes, and
what shapes cannot tell from the settings in the file, or else from what the published models are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from speechjepa.errors import ConfigError, ModelError
from speechjepa.models.bundle import Bundle
from speechjepa.models.checkpoint_files import read_checkpoint, read_json, require_tensors
from speechjepa.models.fairseq_settings import embedded_symbols, read_settings, read_symbols
from speechjepa.models.published import (
    add_head,
    filled_encoder,
    modern_name,
    order_vocabulary,
)
from speechjepa.models.wav2vec2 import PRESETS, Wav2Vec2Config

HEADS = {768: 12, 1024: 16, 1280: 16, 1920: 16}
"""Attention heads of the published models, by their width; no tensor's shape tells them."""
STRIDES: dict[tuple[int, ...], tuple[int, ...]] = {(10, 3, 3, 3, 3, 2, 2): (5, 2, 2, 2, 2, 2, 2)}
"""Strides of the waveform convolutions of the published models, by their kernels."""
_FAIRSEQ = (
    (r"(w2v_encoder\.)?w2v_model\.", ""),
    (r"(w2v_encoder\.)?proj\.", "lm_head."),
    (r"feature_extractor\.conv_layers\.(\d+)\.0\.", r"feature_extractor.conv_layers.\1.conv."),
    (
        r"feature_extractor\.conv_layers\.(\d+)\.2\.(1\.)?",
        r"feature_extractor.conv_layers.\1.layer_norm.",
    ),
    (r"layer_norm\.", "feature_projection.layer_norm."),
    (r"post_extract_proj\.", "feature_projection.projection."),
    (r"mask_emb$", "masked_spec_embed"),
    (r"encoder\.pos_conv\.0\.", "encoder.pos_conv_embed.conv."),
    (r"(encoder\.layers\.\d+\.)self_attn_layer_norm\.", r"\1layer_norm."),
    (r"(encoder\.layers\.\d+\.)self_attn\.", r"\1attention."),
    (r"(encoder\.layers\.\d+\.)fc1\.", r"\1feed_forward.intermediate_dense."),
    (r"(encoder\.layers\.\d+\.)fc2\.", r"\1feed_forward.output_dense."),
    (r"(.*\.attention\.)grep_linear\.", r"\1gru_rel_pos_linear."),
    (r"(.*\.attention\.)grep_a$", r"\1gru_rel_pos_const"),
    (r"(.*\.attention\.)relative_attention_bias\.", r"\1rel_attn_embed."),
)
_TORCHAUDIO = (
    (r"(model\.|wav2vec2\.)+", ""),
    (r"mask_generator\.mask_embedding$", "masked_spec_embed"),
    (r"aux\.", "lm_head."),
    (r"encoder\.feature_projection\.", "feature_projection."),
    (r"encoder\.transformer\.", "encoder."),
    (r"(.*\.attention\.)attention\.", r"\1"),
)
"""What the beginning of a name becomes, one rule after the other."""
_LEFT_BEHIND = re.compile(
    r"quantizer\.|project_q\.|final_proj\.|label_embs_concat|target_glu\.|logit_generator\."
)
"""Beginnings of tensors that only pretraining uses."""


def read_checkpoint_file(path: str | Path, num_heads: int | None = None) -> Bundle:
    """Read a file that fairseq or torchaudio wrote: wav2vec 2.0, HuBERT, or WavLM.

    A CTC head takes its symbols from `vocab.json` ({symbol: index}, the blank at 0) or fairseq's
    `dict.ltr.txt` beside the file, or from the dictionary that fairseq put into it.

    Args:
        path: .pt, .pth, .bin or .safetensors.
        num_heads: Attention heads, where neither the file nor its width says.

    Raises:
        ModelError: It is of another kind, something is missing, or it holds what is not read.
    """
    path = Path(path)
    content = read_checkpoint(path)
    is_whole = isinstance(content.get("model"), Mapping)
    state = require_tensors(content["model"] if is_whole else content, path)
    settings = read_settings(content) if is_whole else {}
    tensors = _translate(state, path)
    encoder = filled_encoder(_sizes(tensors, settings, num_heads, path), tensors, path)
    bundle = Bundle(encoder=encoder, path=path)
    family = "wav2vec2" if encoder.config.bias_buckets is None else "wavlm"
    if any("label_embs_concat" in name or "logit_generator" in name for name in state):
        family = "hubert"
    bundle.training = {"published": {"model_type": family, "name": path.name}}
    if "lm_head.weight" in tensors:
        ids = _symbols(path, content)
        add_head(bundle, tensors, order_vocabulary(ids, 0, path.parent), path)
    return bundle


def _translate(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    rules: tuple[tuple[str, str], ...]
    if any(".feature_projection." in name for name in state):
        rules = _TORCHAUDIO
    elif any("post_extract_proj." in name for name in state):
        rules = _FAIRSEQ
    elif any(name.startswith("feature_projection.") for name in state):
        raise ModelError(f"{path}: is a file of `transformers`: name the folder that it is in")
    else:
        raise ModelError(
            f"{path}: is not a wav2vec 2.0, HuBERT or WavLM of fairseq or torchaudio: it has no "
            f"projection of features; it begins with {', '.join(sorted(state)[:3]) or 'nothing'}"
        )
    tensors: dict[str, Tensor] = {}
    for name, tensor in state.items():
        bare = re.sub(r"^(w2v_encoder\.)?w2v_model\.", "", name)
        if _LEFT_BEHIND.match(bare):
            continue
        for pattern, replacement in rules:
            name = re.sub("^" + pattern, replacement, name)
        joined = re.match(r"(.*\.attention\.)in_proj_(weight|bias)$", name)
        if joined:  # torchaudio's WavLM has query, key and value in one
            for part, rows in zip("qkv", tensor.chunk(3), strict=False):
                tensors[f"{joined[1]}{part}_proj.{joined[2]}"] = rows
        else:
            tensors[modern_name(name)] = tensor
    return tensors


def _sizes(
    tensors: Mapping[str, Tensor], settings: Mapping[str, Any], num_heads: int | None, path: Path
) -> Wav2Vec2Config:
    """Return the sizes; what was guessed is what all published models of that shape have."""

    def shape(name: str, dimensions: int) -> tuple[int, ...]:
        if name not in tensors:
            raise ModelError(f"{path}: lacks {name} (as `transformers` calls it)")
        if tensors[name].dim() != dimensions:
            raise ModelError(f"{path}: {name} has the shape {tuple(tensors[name].shape)}")
        return tuple(tensors[name].shape)

    convolution = "feature_extractor.conv_layers.{}.conv.weight"
    count = 0
    while convolution.format(count) in tensors:
        count += 1
    shapes = [shape(convolution.format(i), 3) for i in range(count)]
    kernels = tuple(size[2] for size in shapes)
    strides = settings.get("strides", STRIDES.get(kernels))
    if strides is None or len(strides) != count:
        raise ModelError(
            f"{path}: the strides of its convolutions (kernels {kernels}) are neither in the file "
            "nor those of a published model"
        )
    is_layer = "feature_extractor.conv_layers.1.layer_norm.weight" in tensors
    width, position_width, position_kernel = shape(
        "encoder.pos_conv_embed.conv.parametrizations.weight.original1", 3
    )
    buckets = None
    if "encoder.layers.0.attention.rel_attn_embed.weight" in tensors:
        buckets, heads = shape("encoder.layers.0.attention.rel_attn_embed.weight", 2)
        num_heads = heads
    heads_found = num_heads or settings.get("num_heads") or HEADS.get(width)
    if heads_found is None:
        raise ModelError(
            f"{path}: nothing in it says how many attention heads it has, and no published model "
            f"is {width} wide: give them, as `speechjepa convert --heads N`"
        )
    layers = {
        found[1] for name in tensors if (found := re.match(r"encoder\.layers\.(\d+)\.", name))
    }
    pre_norm = settings.get("pre_norm", is_layer)
    try:
        return replace(
            PRESETS["large" if pre_norm else "base"],
            **settings.get("dropouts", {}),
            conv_widths=tuple(size[0] for size in shapes),
            conv_kernels=kernels,
            conv_strides=tuple(strides),
            conv_norm="layer" if is_layer else "group",
            conv_bias="feature_extractor.conv_layers.0.conv.bias" in tensors,
            width=width,
            num_layers=len(layers),
            num_heads=heads_found,
            ffn_width=shape("encoder.layers.0.feed_forward.intermediate_dense.weight", 2)[0],
            pre_norm=pre_norm,
            position_kernel=position_kernel,
            position_groups=max(1, width // max(1, position_width)),
            bias_buckets=buckets,
            bias_distance=settings.get("bias_distance", 800),
            feature_norm="feature_projection.layer_norm.weight" in tensors,
            normalize_waveform=settings.get("normalize", is_layer),
        )
    except ConfigError as error:
        raise ModelError(f"{path}: {error}") from error


def _symbols(path: Path, content: Mapping[str, Any]) -> dict[str, int]:
    """Return what a CTC head writes, from beside the file or from inside it."""
    if (path.parent / "vocab.json").exists():
        return read_json(path.parent / "vocab.json")
    found = sorted(path.parent.glob("dict.*.txt"))
    if len(found) == 1:
        return read_symbols(found[0])
    symbols = embedded_symbols(content)
    if symbols is not None:
        return symbols
    what = f"several of {', '.join(p.name for p in found)}" if found else "no dict.ltr.txt"
    raise ModelError(
        f"{path}: has a CTC head, but there is {what} beside it that says what it writes; put "
        "fairseq's dict.ltr.txt there, or a vocab.json of {symbol: index} with the blank at 0 and "
        'the word boundary "|"'
    )
