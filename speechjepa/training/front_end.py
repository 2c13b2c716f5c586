"""What a front end gets before it is trained further: what is known of speech, and the pitch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from speechjepa.audio.features import LogMel
from speechjepa.data.batches import CachedItems
from speechjepa.models.encoder import Encoder
from speechjepa.models.speech_encoder import SpeechEncoder
from speechjepa.training.config import FinetuneConfig

STATISTICS_SECONDS = 1200.0
"""Audio that is measured, about, at most (seconds)."""


def fit_front_end(encoder: Encoder, items: CachedItems, *, frozen: bool = False) -> None:
    """Measure on training data the statistics that streams and short utterances start from.

    A run that goes on measures the same again.

    Args:
        encoder: Changed in place; one without such statistics is left alone.
        items: Training data.
        frozen: The weights behind the front end will not follow it: what utterances are
            normalised by stays as it was measured before.
    """
    if not isinstance(encoder, SpeechEncoder):
        return
    log_mel = encoder.feature_encoder.log_mel
    prior = None if frozen and log_mel.prior and log_mel.prior.is_measured else log_mel.prior
    known = [part for part in (log_mel.running, prior) if part is not None]
    if known:
        frames = _log_mels(log_mel, items)
        for part in known:
            part.fit(frames)


def learn_pitch(config: FinetuneConfig, encoder: Encoder) -> None:
    """Let an encoder hear the pitch where the settings want it, unless its front end is frozen.

    Args:
        config: Settings without any that are open.
        encoder: Changed in place; one whose front end hears the waveform is left alone.
    """
    if config.pitch and not config.is_frozen and isinstance(encoder, SpeechEncoder):
        encoder.learn_pitch()


def _log_mels(log_mel: LogMel, items: CachedItems) -> list[Tensor]:
    """Return log-mel frames (T, F) of an even sample of the items."""
    margin = log_mel.window_size - log_mel.hop
    step = max(1, math.ceil(float(items.lengths.sum()) / 16000 / STATISTICS_SECONDS))
    frames = []
    for index in range(0, len(items), step):
        waveform = torch.from_numpy(items[(index, 0)][0]).float()
        if len(waveform) >= log_mel.hop:
            padded = torch.nn.functional.pad(waveform, (margin // 2, margin - margin // 2))
            frames.append(log_mel.frames(padded[None])[0])
    return frames
