"""Training translators: tones into units."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from speechjepa.errors import ConfigError, DataError
from speechjepa.models.bundle import load_bundle
from speechjepa.models.speech_to_units import TranslatorConfig
from speechjepa.models.translator_files import load_translator
from speechjepa.text.normalize import TextConfig
from speechjepa.training.translation import Target, train_translator
from speechjepa.training.translation_config import TranslateConfig
from speechjepa.training.translation_items import Example
from tests.training.corpus import SMALL, make_corpus

HEAD = TranslatorConfig(num_layers=1, head_channels=16, ffn_factor=2, kernel_size=3)
CONFIG = TranslateConfig(
    max_steps=6, batch_seconds=12.0, evaluate_every=3, accelerator="cpu", translator=HEAD
)
UNITS = Target(kind="units", num_tokens=5, source_language="xx", language="yy")


def examples(folder: Path, number: int = 12) -> list[Example]:
    """Each letter becomes a unit, in reverse: "abca" is 1 3 2 1 (+ 1 for the blank)."""
    return [
        Example(
            source=u,
            tokens=tuple("abc".index(c) + 2 for c in reversed(u.text or "")),
            source_text=u.text or "",
            text=(u.text or "")[::-1],
        )
        for u in make_corpus(folder, number)
    ]


def train(folder: Path, config: TranslateConfig, **options: object) -> Path:
    pairs = examples(folder / "audio")
    options = {"target": UNITS, "encoder": SMALL, "text": TextConfig(), **options}
    return train_translator(
        config, pairs[:9], pairs[9:], folder / "run", cache_dir=folder / "cache", **options
    )


@pytest.mark.parametrize(("head", "pitch"), [("ctc", True), ("autoregressive", False)])
def test_a_translator_is_trained_and_read_back(tmp_path: Path, head: str, pitch: bool) -> None:
    config = replace(CONFIG, translator=replace(HEAD, head=head), pitch=pitch)
    folder = train(tmp_path, config)
    bundle = load_bundle(folder)
    translator, files = load_translator(folder, bundle.encoder)
    assert files.kind == "units" and files.num_tokens == 5 and files.language == "yy"
    assert files.config.head == head
    assert bundle.encoder.config.pitch == pitch
    assert bundle.training["translate"]["pairs"] == 9
    assert bundle.results["dev_while_training"]["token_error_rate"] > 0
    assert all(torch.isfinite(p).all() for p in translator.parameters())
    # The texts were there, so the auxiliary losses were used.
    assert len(files.source_vocabulary or ()) == 5
    assert (files.text_vocabulary is not None) == (head == "ctc")


def test_no_text_is_needed(tmp_path: Path) -> None:
    config = replace(CONFIG, source_text_weight=0.0, target_text_weight=0.0, max_steps=2)
    _, files = load_translator(folder := train(tmp_path, config), load_bundle(folder).encoder)
    assert files.source_vocabulary is None and files.text_vocabulary is None


@pytest.mark.parametrize("head", ["ctc", "autoregressive"])
def test_the_loss_falls(tmp_path: Path, head: str) -> None:
    config = replace(
        CONFIG, translator=replace(HEAD, head=head), max_steps=41, evaluate_every=40,
        learning_rate=3e-3, source_text_weight=0.0, target_text_weight=0.0,
    )  # fmt: skip
    train(tmp_path, config)
    with open(tmp_path / "run/metrics.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    name = "loss/ctc" if head == "ctc" else "loss/tokens"
    losses = [float(row[name]) for row in rows if row[name]]
    assert losses[-1] < 0.8 * losses[0]


def test_a_translator_starts_from_another_of_its_kind(tmp_path: Path) -> None:
    first = train(tmp_path / "a", replace(CONFIG, max_steps=2))
    frozen = replace(CONFIG, max_steps=1, learning_rate=0.0)
    second = train(tmp_path / "b", frozen, init=first, encoder=None)
    old, _ = load_translator(first, load_bundle(first).encoder)
    new, _ = load_translator(second, load_bundle(second).encoder)
    for name, tensor in old.state_dict().items():
        assert torch.equal(tensor, new.state_dict()[name]), name


def test_what_fits_no_frames_is_left_out_and_said(tmp_path: Path) -> None:
    pairs = examples(tmp_path / "audio", 4)
    long = [replace(pair, tokens=tuple([1, 2] * 500)) for pair in pairs]
    with pytest.raises(DataError, match="no translation fits"):
        train_translator(
            CONFIG, long, [], tmp_path / "run", target=UNITS, text=TextConfig(), encoder=SMALL,
            cache_dir=tmp_path / "cache",
        )  # fmt: skip
    found = (tmp_path / "run/doctor.jsonl").read_text(encoding="utf-8")
    assert found.count("label_longer_than_frames") == 4


def test_settings_that_mean_nothing_here_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"`upsample` has no meaning.*translator\.upsample"):
        TranslateConfig(upsample=2)
    with pytest.raises(ConfigError, match="`label_smoothing` must be at least 0"):
        TranslateConfig(label_smoothing=1.5)
