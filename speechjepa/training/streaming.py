"""Fine-tuning an encoder for streams: with chunks of sampled lengths, and with whole utterances.

Sampled chunks with full context among them make one model for both (dynamic chunk training,
https://arxiv.org/abs/2012.05481); convolutions keep to their chunk as
https://arxiv.org/abs/2304.09325 has it, so that weights trained on whole utterances stay of use.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from speechjepa.data.batches import Batch
from speechjepa.errors import ConfigError
from speechjepa.models.encoder import Encoder
from speechjepa.models.speech_encoder import SpeechEncoder, StreamingConfig
from speechjepa.nn.transformer import Chunks
from speechjepa.training.config import FinetuneConfig

logger = logging.getLogger(__name__)

GAIN_DECIBELS = 10.0
"""Levels are changed by up to this: a stream knows the level of what is to come only roughly."""
PAUSE_SECONDS = (0.2, 1.5)
"""Least and most silence between joined utterances (seconds)."""
DEV_CHUNK_SECONDS = 0.32
"""Chunks of the dev error while training (seconds)."""


def learn_to_stream(config: FinetuneConfig, encoder: Encoder) -> FinetuneConfig:
    """Make an encoder trainable for streams, where the settings want it or it streams already.

    Args:
        config: Settings.
        encoder: Changed in place.

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
    return config


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


def chunks_of(batch: Batch, config: FinetuneConfig, frame_rate: float) -> Chunks | None:
    """Return the chunks of a training batch; the same batch is always given the same ones."""
    if config.streaming is None:
        return None
    return draw_chunks(config.streaming, frame_rate, _generator(batch, 1))


def as_on_a_stream(
    batch: Batch,
    token_ids: Sequence[Tensor],
    config: FinetuneConfig,
    frame_rate: float,
    boundary_id: int,
) -> tuple[Batch, list[Tensor]]:
    """Return a batch that is to be heard in chunks as a stream might bring it.

    Each utterance gets a level of its own, and every second batch has its utterances joined two by
    two, with a pause between them: on a stream speech follows other speech, from other speakers
    and places too, which the statistics and the attention carry over. Without this the error on
    a stream of many utterances is half as high again as on each alone.

    Args:
        batch: As recorded.
        token_ids: Its labels.
        config: Settings; a batch that is to be heard whole is left as it is.
        frame_rate: Encoder frames per second.
        boundary_id: The symbol between words, and so between joined labels.
    """
    if chunks_of(batch, config, frame_rate) is None:
        return batch, list(token_ids)
    generator = _generator(batch, 2)
    number = len(batch.waveform)
    decibels = GAIN_DECIBELS * (2 * torch.rand(number, 1, generator=generator) - 1)
    waveform = batch.waveform * (10 ** (decibels / 20)).to(batch.waveform)
    batch = replace(batch, waveform=waveform)
    if number < 2 or torch.rand((), generator=generator) < 0.5:
        return batch, list(token_ids)
    low, high = PAUSE_SECONDS
    half = number // 2
    rows, labels = [], []
    for first, second in zip(range(half), range(half, 2 * half), strict=True):
        seconds = low + (high - low) * float(torch.rand((), generator=generator))
        loudness = 10 ** (-5 + 2.5 * float(torch.rand((), generator=generator)))
        pause = loudness * torch.randn(round(16000 * seconds), generator=generator)
        heard = [waveform[row, : int(batch.lengths[row])] for row in (first, second)]
        rows.append(torch.cat([heard[0], pause.to(waveform), heard[1]]))
        boundary = token_ids[first].new_tensor([boundary_id])
        labels.append(torch.cat([token_ids[first], boundary, token_ids[second]]))
    for row in range(2 * half, number):  # an odd one stays alone
        rows.append(waveform[row, : int(batch.lengths[row])])
        labels.append(token_ids[row])
    lengths = batch.lengths.new_tensor([len(row) for row in rows])
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    kept = len(rows)
    return Batch(padded, lengths, batch.items[:kept], batch.keys[:kept]), labels


def _generator(batch: Batch, purpose: int) -> torch.Generator:
    return torch.Generator().manual_seed((int(batch.keys[0]) + purpose) % 2**31)


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
