"""Speech to units: the frames that a set of units is made of, and each frame's unit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from speechjepa.audio.features import LogMel
from speechjepa.audio.windows import WindowConfig, stream_windows
from speechjepa.data.utterance import Utterance
from speechjepa.errors import AudioError, ConfigError, DataError, ModelError
from speechjepa.inference.model import SpeechModel
from speechjepa.inference.recognise import Skipped, read_utterance, skip
from speechjepa.models.encoder import Encoder
from speechjepa.units.kmeans import Layer, Units, fit_units
from speechjepa.units.sequences import deduplicate

WINDOW_SECONDS = 20.0
"""What the encoder hears at once; longer recordings are heard in overlapping windows."""
OVERLAP_SECONDS = 4.0
MEL_RATE = 100
"""Log-mel frames per second."""
MAX_FRAMES = 200_000
"""Frames that units are found in at most, drawn at random: more change the centroids little."""


def encoder_checksum(encoder: Encoder) -> str:
    """Return the SHA-256 of an encoder's weights, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def frame_rate(model: SpeechModel) -> float:
    """Return how many frames a second an encoder makes."""
    return model.sample_rate / model.hop


def extract_frames(
    model: SpeechModel, layer: Layer, waveform: Tensor, *, phases: int = 1
) -> Tensor:
    """Return the frames (T, D) of a layer, float32, of a recording of any length.

    Frames of "mel" are log-mel frames standardised over what is heard at once, as many in a row
    joined as the encoder makes one frame of; T is the encoder's, times `phases`.

    Args:
        model: Any model; of "mel", only its rate counts.
        layer: See `speechjepa.units.kmeans.Layer`.
        waveform: (S,) float32 in [-1, 1] at the model's rate.
        phases: Times that it is heard, each a part of a frame later; their frames take turns.

    Raises:
        ConfigError: The encoder has no such layer.
    """
    if waveform.dim() != 1:
        raise ModelError(f"`waveform` must be (S,), but is {tuple(waveform.shape)} instead")
    check_layer(model, layer)
    windows = WindowConfig.from_seconds(
        WINDOW_SECONDS, OVERLAP_SECONDS, hop=model.hop, sample_rate=model.sample_rate
    )
    pieces = []
    for window, samples in stream_windows([waveform.cpu().numpy()], windows):
        later = [
            functional.pad(torch.from_numpy(samples[part:]), (0, part))
            for part in (model.hop * phase // phases for phase in range(phases))
        ]
        heard = _window_frames(model, layer, torch.stack(later))  # (phases, T, D)
        frames = heard.transpose(0, 1)[window.frame_slice]
        pieces.append(frames.flatten(0, 1))
    return torch.cat(pieces) if pieces else torch.zeros(0, _width(model, layer))


def check_layer(model: SpeechModel, layer: Layer) -> None:
    """Raise ConfigError unless an encoder has this layer."""
    last = model.encoder.num_layers
    if layer == "mel":
        if model.hop % _mel(model.sample_rate).hop:
            raise ConfigError(
                f"log-mel units need an encoder whose hop is a multiple of 10 ms, "
                f"but it is {1000 * model.hop / model.sample_rate:g} ms"
            )
    elif not (type(layer) is int and 0 <= layer <= last):
        raise ConfigError(f"`layer` must be mel or 0 to {last}, but is {layer!r} instead")


def _window_frames(model: SpeechModel, layer: Layer, waveform: Tensor) -> Tensor:
    """Return the frames (B, T, D) of waveforms (B, S) of one length."""
    if layer != "mel":
        output = model.encode(waveform, return_layers=True)
        assert output.layers is not None
        return output.layers[layer][:, : int(output.lengths[0])].float().cpu()
    mel, _ = _mel(model.sample_rate)(waveform, torch.full((len(waveform),), waveform.shape[1]))
    joined = model.hop // _mel(model.sample_rate).hop
    num_frames = mel.shape[1] // joined
    width = joined * mel.shape[2]
    return mel[:, : num_frames * joined].reshape(len(mel), num_frames, width)


def _width(model: SpeechModel, layer: Layer) -> int:
    mel = _mel(model.sample_rate)
    return model.hop // mel.hop * mel.filters.shape[1] if layer == "mel" else model.encoder.width


@lru_cache
def _mel(sample_rate: int) -> LogMel:
    return LogMel(sample_rate=sample_rate)


def check_encoder(model: SpeechModel, units: Units) -> None:
    """Refuse units that another encoder's frames were grouped into.

    Raises:
        ModelError: They are of another encoder, or of other frames per second.
    """
    rate = frame_rate(model) * units.phases
    if units.frame_rate != rate:
        raise ModelError(
            f"these units are of {units.frame_rate:g} frames per second, but this encoder makes "
            f"{rate:g}: give the model that they were fitted with"
        )
    if units.encoder_checksum is None:
        return
    found = encoder_checksum(model.encoder)
    if found != units.encoder_checksum:
        raise ModelError(
            f"these units were fitted with the encoder {units.encoder_checksum[:12]}, but this one "
            f"is {found[:12]}: give the model that they were fitted with, or fit units with this"
        )


@torch.no_grad()
def encode_units(model: SpeechModel, units: Units, waveform: Tensor) -> Tensor:
    """Return the unit of every frame, (T,) int64, of waveform (S,) at the model's rate.

    The encoder is taken to be that of the units; `check_encoder` says so, once.
    """
    return units(extract_frames(model, units.layer, waveform, phases=units.phases))


@dataclass(frozen=True, kw_only=True)
class UnitSequence:
    """The units of one recording, each once, with its length."""

    units: tuple[int, ...]
    """(L,)"""
    durations: tuple[int, ...]
    """(L,) in frames."""
    frame_seconds: float

    @classmethod
    def of(cls, frames: Tensor, frame_seconds: float) -> UnitSequence:
        """Return the sequence of units (T,), frame by frame."""
        units, durations = deduplicate(frames)
        return cls(
            units=tuple(units.tolist()),
            durations=tuple(durations.tolist()),
            frame_seconds=frame_seconds,
        )

    def times(self) -> list[tuple[float, float]]:
        """Return when each unit starts and ends (seconds)."""
        edges = (np.cumsum([0, *self.durations]) * self.frame_seconds).round(4).tolist()
        return list(zip(edges, edges[1:], strict=False))


def fit(
    model: SpeechModel,
    utterances: Sequence[Utterance],
    *,
    layer: Layer,
    num_units: int,
    seed: int = 0,
    phases: int = 1,
    change_penalty: float = 0.0,
    progress: Callable[[int, float], None] = lambda files, seconds: None,
) -> tuple[Units, list[Skipped]]:
    """Fit units to recordings; one that cannot be read is left out, and said.

    Args:
        model: Its encoder makes the frames.
        utterances: What was recorded, with or without text.
        layer: See `speechjepa.units.kmeans.Layer`.
        num_units: K.
        seed: Of k-means and of the draw of frames where there are more than it needs.
        phases: See `Units`.
        change_penalty: See `Units`.
        progress: Told how many recordings were heard, and their seconds.

    Raises:
        ConfigError: There is no such layer; a setting is out of its range.
        DataError: Too little could be heard.
    """
    check_layer(model, layer)
    if phases < 1 or model.hop % phases or change_penalty < 0:
        raise ConfigError(
            f"`phases` must divide the hop of {model.hop} samples and `change_penalty` must be 0 "
            f"or more, but they are {phases} and {change_penalty} instead"
        )
    kept: list[NDArray[np.float32]] = []
    skipped: list[Skipped] = []
    order = np.random.default_rng(seed).permutation(len(utterances)).tolist()
    num_frames = 0
    for index in order:
        if num_frames >= MAX_FRAMES:
            break
        utterance = utterances[index]
        try:
            waveform = torch.from_numpy(read_utterance(utterance, model.sample_rate))
        except AudioError as error:
            skipped.append(skip(utterance, error))
            continue
        frames = extract_frames(model, layer, waveform, phases=phases)
        kept.append(frames.numpy())
        num_frames += len(frames)
        progress(1, len(waveform) / model.sample_rate)
    if not kept:
        first = f"; the first: {skipped[0].audio_path}: {skipped[0].reason}" if skipped else ""
        raise DataError(f"no recording could be read of {len(utterances)}{first}")
    units = fit_units(torch.from_numpy(np.concatenate(kept)[:MAX_FRAMES]), num_units, seed)
    checksum = None if layer == "mel" else encoder_checksum(model.encoder)
    made = replace(
        units,
        layer=layer,
        frame_rate=frame_rate(model) * phases,
        encoder_checksum=checksum,
        phases=phases,
        change_penalty=change_penalty,
    )
    return made, skipped
