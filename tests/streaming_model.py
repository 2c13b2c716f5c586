"""A bundle that can stream, with random weights that write many words."""

from __future__ import annotations

from pathlib import Path

import torch

from speechjepa.models.bundle import Bundle, save_bundle
from speechjepa.models.ctc import CtcModel
from speechjepa.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig, StreamingConfig
from speechjepa.text.vocabulary import Vocabulary

CONFIG = SpeechEncoderConfig(
    width=32,
    num_layers=2,
    num_heads=2,
    ffn_width=48,
    frame_rate=25,
    streaming=StreamingConfig(left_seconds=1.0),
)


def write_bundle(folder: Path) -> Path:
    """Write it and return its folder."""
    torch.manual_seed(0)
    encoder = SpeechEncoder(CONFIG)
    vocabulary = Vocabulary(["<blank>", "|", *"abcde"])
    ctc = CtcModel(encoder, len(vocabulary), upsample=2)
    for parameter in ctc.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    bundle = Bundle(encoder=encoder, ctc=ctc, vocabulary=vocabulary, languages=("xx",))
    return save_bundle(bundle, folder)
