"""The encoder that comes with the package is whole, small, and used where it fits."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch

import speechjepa.models.shipped as shipped
from speechjepa.data.synthetic.espeak import synthesise
from speechjepa.errors import ModelError
from speechjepa.inference.model import load
from speechjepa.metrics.error_rate import error_rates
from speechjepa.models.bundle import load_bundle
from speechjepa.models.speech_encoder import PRESETS, SpeechEncoderConfig


def test_it_is_the_tiny_preset_and_at_most_12_megabytes():
    folder = shipped.shipped_encoder()
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12_000_000
    assert shipped.fits_shipped(PRESETS["tiny"])
    for seconds in (0.0, 1.0, 2.0):
        own = replace(PRESETS["tiny"], normalization_prior_seconds=seconds)
        assert shipped.fits_shipped(own)
    assert not shipped.fits_shipped(PRESETS["small"])
    assert not shipped.fits_shipped(SpeechEncoderConfig(frame_rate=50))
    config = (folder / "config.json").read_text(encoding="utf-8")
    assert '"/' not in config, "a path of the machine it was made on"


def test_it_hears_and_its_weights_are_float32_again():
    bundle = load_bundle(shipped.shipped_encoder())
    assert {p.dtype for p in bundle.encoder.parameters()} == {torch.float32}
    torch.manual_seed(0)
    with torch.no_grad():
        output = bundle.encoder(0.1 * torch.randn(2, 16000), torch.tensor([16000, 8000]))
    assert torch.isfinite(output.features[0]).all()
    assert output.features[0].std() > 0.1
    assert {"a", "ŋ", "ɛ", "ʃ"} <= set(bundle.vocabulary.symbols)


def test_it_writes_phones(tmp_path: Path):
    speech = synthesise("buenos días", "es").waveform
    soundfile.write(tmp_path / "a.wav", speech, 16000)
    text = load("shipped").transcribe(tmp_path / "a.wav")["text"]
    assert error_rates(["buenosdias"], [text]).cer < 0.6, text


def test_the_card_names_data_licence_and_checksum():
    folder = shipped.shipped_encoder()
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert shipped.checksum(folder) in card
    for word in ("CC BY-SA 4.0", "Wyandot", "supervised", "recipes/pretrained/tiny.yaml"):
        assert word in card


def test_damage_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    copy = tmp_path / "tiny"
    shutil.copytree(shipped.SHIPPED, copy)
    monkeypatch.setattr(shipped, "SHIPPED", copy)
    assert shipped.shipped_encoder() == copy
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors: is not what SHA256SUMS says"):
        shipped.shipped_encoder()
    weights.unlink()
    with pytest.raises(ModelError, match="is missing"):
        shipped.shipped_encoder()
    (copy / "SHA256SUMS").unlink()
    with pytest.raises(ModelError, match="checksum is missing"):
        shipped.shipped_encoder()


def test_a_bundle_names_the_shipped_start_not_where_it_is_installed(tmp_path) -> None:
    assert shipped.start_name(shipped.shipped_encoder()) == "shipped"
    assert shipped.start_name(tmp_path) == str(tmp_path)
    assert shipped.start_name(None) is None
