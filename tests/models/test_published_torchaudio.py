"""Files of torchaudio give the layers and logits that its models have."""

from __future__ import annotations

import json

import pytest
import torch

from speechjepa.models.published_files import read_checkpoint_file
from speechjepa.nn.waveform_encoder import normalize_waveform
from tests.models.test_wav2vec2 import audio

TORCHAUDIO = {
    "base": {"extractor_mode": "group_norm", "encoder_layer_norm_first": False},
    "large": {
        "extractor_mode": "layer_norm",
        "encoder_layer_norm_first": True,
        "extractor_conv_bias": True,
    },
}


def torchaudio_model(style, kind="wav2vec2", width=32, heads=4, **changes):
    from torchaudio import models

    torch.manual_seed(0)
    sizes = {
        "extractor_conv_layer_config": [(16, 10, 5)] + [(16, 3, 2)] * 4 + [(16, 2, 2)] * 2,
        "extractor_conv_bias": False,
        "encoder_embed_dim": width,
        "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": 16,
        "encoder_pos_conv_groups": 4,
        "encoder_num_layers": 3,
        "encoder_num_heads": heads,
        "encoder_attention_dropout": 0.1,
        "encoder_ff_interm_features": 48,
        "encoder_ff_interm_dropout": 0.1,
        "encoder_dropout": 0.1,
        "encoder_layer_drop": 0.1,
        "aux_num_out": 8,
    }
    if kind == "wavlm":
        sizes |= {"encoder_num_buckets": 320, "encoder_max_distance": 800}
    model = getattr(models, f"{kind}_model")(**{**sizes, **TORCHAUDIO[style], **changes}).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def write_labels(folder):
    labels = ("-", "|", *"ETAONI")  # as `bundle.get_labels()` of torchaudio's pipelines
    (folder / "vocab.json").write_text(json.dumps({s: i for i, s in enumerate(labels)}))


@pytest.mark.parametrize(
    ("style", "kind", "lengths"),
    [
        ("base", "wav2vec2", (8000, 8000)),
        ("large", "wav2vec2", (8000, 8000)),
        ("large", "wav2vec2", (8000, 5000)),
        ("base", "wavlm", (8000, 8000)),
        ("large", "wavlm", (8000, 8000)),
    ],
)
def test_a_model_of_torchaudio_has_its_layers_and_logits(style, kind, lengths, tmp_path):
    model = torchaudio_model(style, kind)
    torch.save(model.state_dict(), tmp_path / "a.pth")
    write_labels(tmp_path)
    bundle = read_checkpoint_file(tmp_path / "a.pth", num_heads=4)
    waveform, lengths = audio(*lengths)
    values = normalize_waveform(waveform, lengths) if style == "large" else waveform
    given = lengths if len(set(lengths.tolist())) > 1 else None  # WavLM's takes none
    with torch.no_grad():
        layers, _ = model.extract_features(values, given)
        logits, _ = model(values, given)
        output = bundle.encoder(waveform, lengths, return_layers=True)
        found, frames = bundle.ctc(waveform, lengths)
    for ours, theirs in zip([*output.layers[1:], found], [*layers, logits], strict=True):
        for row, count in enumerate(frames.tolist()):
            torch.testing.assert_close(ours[row, :count], theirs[row, :count], atol=1e-4, rtol=0)
    assert found.std() > 0.05
    assert bundle.vocabulary.symbols[:3] == ("<blank>", "|", "E")


def test_a_pretraining_model_of_torchaudio_gives_its_encoder(tmp_path):
    from safetensors.torch import save_file

    inner = torchaudio_model("base", aux_num_out=None)
    state = {"wav2vec2." + name: tensor for name, tensor in inner.state_dict().items()}
    state["mask_generator.mask_embedding"] = torch.full((32,), 0.5)
    state["logit_generator.label_embeddings"] = torch.zeros(5, 4)
    save_file(state, tmp_path / "hubert.safetensors")
    bundle = read_checkpoint_file(tmp_path / "hubert.safetensors", num_heads=4)
    waveform, lengths = audio(8000)
    with torch.no_grad():
        expected = inner(waveform)[0]
        torch.testing.assert_close(
            bundle.encoder(waveform, lengths).features, expected, atol=1e-4, rtol=0
        )
    assert bundle.encoder.mask_embedding.eq(0.5).all()
    assert bundle.training["published"]["model_type"] == "hubert"
