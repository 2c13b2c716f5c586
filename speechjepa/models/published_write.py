"""Write an encoder of the wav2vec 2.0 family, and its CTC head, for `transformers`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from speechjepa.errors import DataError, ModelError
from speechjepa.models.bundle import CONFIG_FILE, WEIGHTS_FILE, Bundle
from speechjepa.models.ctc import CtcModel
from speechjepa.models.published import FAMILIES, SIZES, published_name
from speechjepa.models.wav2vec2 import Wav2Vec2, Wav2Vec2Config
from speechjepa.nn.tensor_files import save_tensors
from speechjepa.text.vocabulary import BLANK, WORD_BOUNDARY


def write_published(bundle: Bundle, folder: str | Path) -> Path:
    """Write a folder that `transformers` loads, with the processor beside the model.

    Raises:
        ModelError: The encoder is none of this family, or its head writes several symbols a frame.
        DataError: The folder holds something.
    """
    folder = Path(folder)
    encoder = bundle.encoder
    if not isinstance(encoder, Wav2Vec2):
        raise ModelError(
            "`transformers` has no such architecture: only encoders of the type wav2vec2 can be "
            "written for it. `speechjepa convert --to onnx` writes any"
        )
    if folder.exists() and any(folder.iterdir()):
        raise DataError("holds something already; name another folder", path=folder)
    config = encoder.config
    family = "wav2vec2" if config.feature_norm else "hubert"
    if config.position_layers is not None:
        family = "data2vec-audio"
    if config.bias_buckets is not None:
        family = "wavlm"
    # Large HuBERT has the architecture of large wav2vec 2.0: only its name tells them apart.
    family = bundle.training.get("published", {}).get("model_type", family)
    prefix = "" if bundle.ctc is None else FAMILIES[family]
    tensors = {
        prefix + published_name(name): tensor.contiguous()
        for name, tensor in encoder.state_dict().items()
    }
    settings = _published_settings(config, family)
    folder.mkdir(parents=True, exist_ok=True)
    if bundle.ctc is not None:
        settings |= _write_head(bundle, bundle.ctc, tensors, folder)
    settings["architectures"] = [_ARCHITECTURES[family] + ("Model" if not prefix else "ForCTC")]
    save_tensors(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    _write_json(folder / CONFIG_FILE, settings)
    _write_json(
        folder / "preprocessor_config.json",
        {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "feature_size": 1,
            "sampling_rate": encoder.sample_rate,
            "padding_side": "right",
            "padding_value": 0.0,
            "do_normalize": config.normalize_waveform,
            "return_attention_mask": config.conv_norm == "layer",
        },
    )
    return folder


_ARCHITECTURES = {
    "wav2vec2": "Wav2Vec2",
    "hubert": "Hubert",
    "data2vec-audio": "Data2VecAudio",
    "wavlm": "WavLM",
}


def _write_head(
    bundle: Bundle, ctc: CtcModel, tensors: dict[str, Tensor], folder: Path
) -> dict[str, Any]:
    if ctc.upsample != 1:
        raise ModelError(
            f"`transformers` writes one symbol a frame, this head {ctc.upsample}: fine-tune with "
            "finetune.upsample=1"
        )
    assert bundle.vocabulary is not None
    symbols = ["<pad>" if s == BLANK else s for s in bundle.vocabulary.symbols]
    tensors["lm_head.weight"] = ctc.head.weight.detach().contiguous()
    tensors["lm_head.bias"] = ctc.head.bias.detach().contiguous()
    _write_json(folder / "vocab.json", {symbol: index for index, symbol in enumerate(symbols)})
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "Wav2Vec2CTCTokenizer",
            "pad_token": "<pad>",
            "word_delimiter_token": WORD_BOUNDARY,
            "unk_token": "<unk>" if "<unk>" in symbols else "<pad>",
            "bos_token": "<s>" if "<s>" in symbols else None,
            "eos_token": "</s>" if "</s>" in symbols else None,
            "do_lower_case": False,
        },
    )
    return {"vocab_size": len(symbols), "pad_token_id": 0}


def _published_settings(config: Wav2Vec2Config, family: str) -> dict[str, Any]:
    settings: dict[str, Any] = {"model_type": family}
    for ours, theirs in SIZES.items():
        value = getattr(config, ours)
        settings[theirs] = list(value) if isinstance(value, tuple) else value
    settings |= {
        "feat_extract_norm": config.conv_norm,
        "do_stable_layer_norm": config.pre_norm,
        "num_feat_extract_layers": len(config.conv_widths),
        "feat_proj_layer_norm": config.feature_norm,
        "adapter_attn_dim": config.adapter_width,
    }
    if config.bias_buckets is not None:
        settings["num_buckets"] = config.bias_buckets
        settings["max_bucket_distance"] = config.bias_distance
    if config.position_layers is None:
        settings["num_conv_pos_embeddings"] = config.position_kernel
    else:
        settings["num_conv_pos_embeddings"] = config.position_layers
        settings["conv_pos_kernel_size"] = config.position_kernel
    return settings


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
