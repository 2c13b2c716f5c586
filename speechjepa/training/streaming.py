"""Fine-tuning an encoder for streams: with chunks of sampled lengths, and with whole utterances.

Sampled chunks with full context among them make one model for both (dynamic chunk training,
https://arxiv.org/abs/2012.05481); convolutions keep to their chunk as
https://arxiv.org/abs/2304.09325 has it, so that weights trained on whole utterances stay of use.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from speechjepa.data.batches import CachedItems
from speechjepa.errors import ConfigError
from speechjepa.models.encoder import Encoder
from speechjepa.models.speech_encoder import SpeechEncoder, StreamingConfig
from speechjepa.nn.transformer import Chunks
from speechjepa.training.config import FinetuneConfig

logger = logging.getLogger(__name__)

GAIN_DECIBELS = 10.0
"""Levels are changed by up to this: a stream knows the level of what is to come only roughly."""
STATISTICS_SECONDS = 1200.0
"""Audio that the running statistics start from is measured on (seconds)."""
DEV_CHUNK_SECONDS = 0.32
"""Chunks of the dev error while training (seconds)."""


def learn_to_stream(config: FinetuneConfig, encoder: Encoder, items: CachedItems) -> FinetuneConfig:
    """Make an encoder trainable for streams, where the settings want it or it streams already.

    Args:
        config: Settings.
        encoder: Changed in place.
        items: Training data, whose statistics a stream starts from.

    Returns:
        The settings, with the chunks that it is trained with.

    Raises:
        ConfigError: Only the native encoder can stream.
    """
    if config.streaming is None and isinstance(encoder, SpeechEncoder):
        if encoder.config.streaming is not None:
            logger.info("the model that training starts from can stream; so will this one")
        config = replace(config, streaming=encoder.config.streaming)
    if config.streaming is None:
        return config
    if not isinstance(encoder, SpeechEncoder):
        raise ConfigError(
            "`finetune.streaming` needs the native encoder, whose front end can run on a stream; "
            "wav2vec 2.0 normalises over whole utterances. Leave it out: `model.stream()` works "
            "without, by hearing the last seconds again and again"
        )
    encoder.set_streaming(config.streaming)
    if encoder.feature_encoder.log_mel.running is not None:
        encoder.feature_encoder.log_mel.running.fit(_log_mels(encoder, items))
    return config


def _log_mels(encoder: SpeechEncoder, items: CachedItems) -> list[Tensor]:
    """Return log-mel frames (T, F) of an even sample of the items."""
    log_mel = encoder.feature_encoder.log_mel
    margin = log_mel.window_size - log_mel.hop
    step = max(1, math.ceil(float(items.lengths.sum()) / 16000 / STATISTICS_SECONDS))
    frames = []
    for index in range(0, len(items), step):
        waveform = torch.from_numpy(items[(index, 0)][0]).float()
        if len(waveform) >= log_mel.hop:
            padded = torch.nn.functional.pad(waveform, (margin // 2, margin - margin // 2))
            frames.append(log_mel.frames(padded[None])[0])
    return frames


def draw_chunks(
    streaming: StreamingConfig, frame_rate: float, generator: torch.Generator
) -> Chunks | None:
    """Draw the chunks of a batch, their lengths uniform in the logarithm; None = no chunks."""
    if torch.rand((), generator=generator) < streaming.full_prob:
        return None
    low, high = math.log(streaming.min_chunk_seconds), math.log(streaming.max_chunk_seconds)
    seconds = math.exp(low + (high - low) * float(torch.rand((), generator=generator)))
    seconds = min(max(seconds, streaming.min_chunk_seconds), streaming.max_chunk_seconds)
    return streaming.chunks(seconds, frame_rate)


def draw_gain(generator: torch.Generator) -> float:
    """Draw the factor by which a batch is made louder or softer."""
    decibels = GAIN_DECIBELS * (2 * float(torch.rand((), generator=generator)) - 1)
    return 10 ** (decibels / 20)


def dev_chunks(encoder: Encoder) -> Chunks | None:
    """Return the chunks that the dev error of a stream is read with; None if it does not stream."""
    if not isinstance(encoder, SpeechEncoder) or encoder.config.streaming is None:
        return None
    streaming = encoder.config.streaming
    seconds = max(streaming.min_chunk_seconds, DEV_CHUNK_SECONDS)
    return streaming.chunks(min(streaming.max_chunk_seconds, seconds), 16000 / encoder.hop)


def dev_error(found: Mapping[str, Any]) -> float:
    """Return what the best state of a run has least of: the CER, plus that in chunks if read."""
    return float(found["cer"]) + float(found.get("cer_streaming", 0.0))
