"""CTC model: any encoder with a linear head over characters."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from speechjepa.models.encoder import Encoder
from speechjepa.models.speech_encoder import SpeechEncoder
from speechjepa.nn.transformer import Chunks


class CtcModel(nn.Module):
    """Encoder and linear head.

    Args:
        encoder: Any encoder of this package.
        vocabulary_size: V, blank included.
        upsample: Logit frames per encoder frame. A 25 Hz encoder with upsample 2 gives CTC 50
            frames a second to place characters in, for almost no compute.
        dropout: On the encoder's output.
    """

    encoder: Encoder

    def __init__(
        self, encoder: Encoder, vocabulary_size: int, upsample: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.upsample = upsample
        self.vocabulary_size = vocabulary_size
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.width, vocabulary_size * upsample)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Return the logit frames (B,) of utterances of `lengths` samples (B,)."""
        return self.encoder.output_lengths(lengths) * self.upsample

    def head_logits(self, features: Tensor) -> Tensor:
        """Return logits (B, T * upsample, V) float32 of encoder output (B, T, D)."""
        with torch.autocast(features.device.type, enabled=False):
            x = self.head(self.dropout(features.float()))  # (B, T, V * upsample)
        return x.reshape(x.shape[0], x.shape[1] * self.upsample, self.vocabulary_size)

    def in_chunks(self, waveform: Tensor, lengths: Tensor, chunks: Chunks) -> tuple[Tensor, Tensor]:
        """Return what `forward` does, each frame having heard no more than it would on a stream."""
        output = cast(SpeechEncoder, self.encoder).encode_in_chunks(waveform, lengths, chunks)
        return self.head_logits(output.features), output.lengths * self.upsample

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, T, V) float32 and their lengths (B,) of waveform (B, S)."""
        output = self.encoder(waveform, lengths)
        return self.head_logits(output.features), output.lengths * self.upsample
