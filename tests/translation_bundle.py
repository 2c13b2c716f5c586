"""Bundles that translate, of random weights that write much."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from speechjepa.inference.selection_voice import RecordedUnits
from speechjepa.inference.voice import SelectionVoice
from speechjepa.models.bundle import Bundle, build_encoder, save_bundle
from speechjepa.models.speech_encoder import SpeechEncoderConfig, StreamingConfig
from speechjepa.models.speech_to_units import SpeechTranslationModel, TranslatorConfig
from speechjepa.models.translator_files import TranslatorFiles, save_translator
from speechjepa.text.vocabulary import Vocabulary
from speechjepa.units.kmeans import Units

NUM_UNITS = 4
SMALL = SpeechEncoderConfig(
    width=32, num_layers=2, num_heads=2, ffn_width=64, kernel_size=5, frame_rate=25,
    streaming=StreamingConfig(),
)  # fmt: skip


def units() -> Units:
    """Return units that nothing was ever written in."""
    return Units(
        centroids=torch.arange(float(NUM_UNITS))[:, None],
        mean=torch.zeros(1),
        scale=torch.ones(1),
        frame_rate=25.0,
    )


def bundle(
    folder: Path,
    *,
    kind: str = "units",
    head: str = "ctc",
    voice: bool = True,
    text: bool = True,
) -> Path:
    """Write one and return its folder.

    Args:
        folder: To write it to.
        kind: What it writes, units or characters.
        head: What writes it.
        voice: Whether it speaks its units.
        text: Whether it writes text beside its units.
    """
    torch.manual_seed(0)
    letters = Vocabulary(["<blank>", "|", "a", "b", "c"])
    text = text and head == "ctc"
    config = TranslatorConfig(
        head=head,  # type: ignore[arg-type]
        num_layers=1,
        head_channels=16,
        ffn_factor=2,
        kernel_size=3,
        text_symbols=5 if text or head != "ctc" else 0,
    )
    encoder = build_encoder(SMALL)
    model = SpeechTranslationModel(encoder, NUM_UNITS + 1, config)
    torch.nn.init.normal_(model.translator.head.weight, std=1.0)
    save_bundle(Bundle(encoder=encoder, training={"translate": {}}), folder)
    files = TranslatorFiles(
        kind=kind,  # type: ignore[arg-type]
        num_tokens=NUM_UNITS + 1,
        config=config,
        vocabulary=letters if kind == "characters" else None,
        text_vocabulary=letters if text else None,
        source_language="xx",
        language="yy",
    )
    save_translator(model.translator, files, folder)
    if voice and kind == "units":
        generator = np.random.default_rng(0)
        noise = generator.normal(0, 0.1, (5, 13 * 16000)).astype(np.float32)
        heard = torch.from_numpy(generator.integers(0, NUM_UNITS, (5, 1, 13 * 25)))
        recorded = RecordedUnits.of(list(zip(heard, noise, strict=True)), 640)
        SelectionVoice(recorded, units()).save(folder / "voice")
    return folder
