"""What an encoder makes of a batch whose speed was changed and whose features were masked."""

from __future__ import annotations

from typing import Any, cast

import torch

from speechjepa.audio.augment import mask_features, perturb_speed
from speechjepa.data.batches import Batch
from speechjepa.models.encoder import Encoder, EncoderOutput
from speechjepa.nn.transformer import Chunks
from speechjepa.training.config import FinetuneConfig
from speechjepa.training.streaming import chunks_of


def encode_augmented(
    encoder: Encoder, batch: Batch, config: FinetuneConfig, *, frozen: bool
) -> tuple[EncoderOutput, Chunks | None]:
    """Return the output of an encoder that hears an augmented batch, and the chunks of a stream.

    What is drawn depends on the first utterance's key alone, so that a resumed run draws the same.

    Args:
        encoder: With or without gradient.
        batch: As recorded.
        config: What is changed and masked, all settled.
        frozen: The whole encoder gets no gradient.
    """
    waveform, lengths = batch.waveform, batch.lengths
    generator = torch.Generator().manual_seed(int(batch.keys[0]) % 2**31)
    if config.speed_perturbation:
        waveform, lengths = perturb_speed(waveform, lengths, config.speed_perturbation, generator)
    rate = 16000 / encoder.hop  # frames per second
    chunks = chunks_of(batch, config, rate)
    chunked: dict[str, Any] = {} if chunks is None else {"chunks": chunks}
    learns = torch.is_grad_enabled()
    with torch.set_grad_enabled(learns and not (frozen or bool(config.freeze_feature_encoder))):
        streams = {"streaming": True} if chunked else {}
        features, frames = encoder.extract_features(waveform, lengths, **streams)
    features = mask_features(
        features,
        frames,
        mask_prob=cast(float, config.mask_prob),
        mask_length=max(1, round(config.mask_length_seconds * rate)),
        mask_channel_prob=cast(float, config.mask_channel_prob),
        mask_channel_length=config.mask_channel_length,
        generator=generator,
    )
    with torch.set_grad_enabled(learns and not frozen):
        return encoder.contextualize(features, frames, **chunked), chunked.get("chunks")
