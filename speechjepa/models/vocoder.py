"""A small vocoder: units to pitch and spectral envelopes, and those to a waveform."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from speechjepa.config import from_dict, to_dict
from speechjepa.errors import ConfigError, ModelError
from speechjepa.models.encoder import require_at_least
from speechjepa.nn.source_filter import OVERHANG, SourceFilter, pulse_train
from speechjepa.nn.tensor_files import save_tensors

CONFIG_FILE = "vocoder.json"
WEIGHTS_FILE = "vocoder.safetensors"
LOUDEST = 1.0
"""Of an envelope (nepers); speech at its usual level stays well below 0."""
CONTROL_RATE = 100
"""Frames of pitch and envelopes per second."""


@dataclass(frozen=True, kw_only=True)
class VocoderConfig:
    """Sizes of a `UnitVocoder`."""

    num_units: int = 100
    """Units K."""
    frame_rate: int = 25
    """Frames of units per second (Hz), a divisor of 100."""
    width: int = 192
    """Channels D."""
    unit_layers: int = 4
    """Blocks at the rate of the units."""
    layers: int = 2
    """Blocks at 100 Hz."""
    kernel_size: int = 5
    """Frames that a block sees, odd."""
    num_bands: int = 120
    """Bands of each spectral envelope."""
    mean_pitch: float = 7.0
    """Of the voice (log2 of Hz)."""
    mean_level: float = -4.0
    """Of the envelopes before training (nepers)."""

    def __post_init__(self) -> None:
        names = ("num_units", "frame_rate", "width", "unit_layers", "layers", "num_bands")
        require_at_least(self, dict.fromkeys((*names, "kernel_size"), 1))
        if CONTROL_RATE % self.frame_rate:
            raise ConfigError(
                f"`frame_rate` must divide {CONTROL_RATE}, but is {self.frame_rate} instead"
            )
        if self.kernel_size % 2 == 0:
            raise ConfigError(f"`kernel_size` must be odd, but is {self.kernel_size} instead")

    @property
    def upsample(self) -> int:
        """Control frames per unit frame."""
        return CONTROL_RATE // self.frame_rate

    @property
    def context(self) -> int:
        """Unit frames that a frame sees on either side."""
        reach = self.kernel_size // 2
        return self.unit_layers * reach * self.dilation + -(-self.layers * reach // self.upsample)

    @property
    def dilation(self) -> int:
        """Frames between those that a block at the rate of the units sees: about 40 ms."""
        return max(1, self.frame_rate // 25)


class Controls(NamedTuple):
    """What a waveform is made from, every 10 ms."""

    pitch: Tensor
    """(B, T) log2 of Hz."""
    envelopes: Tensor
    """(B, T, 2, bands) natural logarithms of the amplitudes of pulses and noise."""


class ConvNextBlock(nn.Module):
    """Depthwise convolution over time, then two linear layers, around a residual connection.

    ConvNeXt as in Vocos (https://arxiv.org/abs/2306.00814).

    Args:
        width: Channels D.
        kernel_size: Frames, odd.
        dilation: From one of them to the next.
    """

    def __init__(self, width: int, kernel_size: int, dilation: int = 1) -> None:
        super().__init__()
        padding = dilation * (kernel_size // 2)
        self.convolution = nn.Conv1d(
            width, width, kernel_size, padding=padding, dilation=dilation, groups=width
        )
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 3 * width)
        self.contract = nn.Linear(3 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        """Transform (B, T, D)."""
        y = self.convolution(x.transpose(1, 2)).transpose(1, 2)
        y = self.contract(nn.functional.gelu(self.expand(self.norm(y))))
        return x + self.scale * y


class DurationPredictor(nn.Module):
    """How long each unit lasts, from the units around it.

    Args:
        num_units: Units K.
        width: Channels.
    """

    CONTEXT = 4
    """Units that are seen on either side."""

    def __init__(self, num_units: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_units, width)
        self.blocks = nn.ModuleList(ConvNextBlock(width, 5) for _ in range(2))
        self.output = nn.Linear(width, 1)

    def forward(self, units: Tensor) -> Tensor:
        """Return log durations (B, L), natural logarithms of frames, of units (B, L + 8), four more
        on either side."""
        x = self.embedding(units)
        for block in self.blocks:
            x = block(x)
        return self.output(x)[:, self.CONTEXT : x.shape[1] - self.CONTEXT, 0]


class UnitVocoder(nn.Module):
    """Units, frame by frame, to a waveform.

    Pitch is not in the units: it is predicted from them, as their mean over training. Pulses and
    noise are then filtered by predicted envelopes (`SourceFilter`), so that a waveform of whatever
    phase can be trained on without adversaries.

    Args:
        config: Sizes.
    """

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        width, kernel = config.width, config.kernel_size
        self.durations = DurationPredictor(config.num_units, max(1, width // 2))
        self.embedding = nn.Embedding(config.num_units, width)
        self.unit_blocks = nn.ModuleList(
            ConvNextBlock(width, kernel, config.dilation) for _ in range(config.unit_layers)
        )
        self.upsample = nn.Linear(width, config.upsample * width)
        self.blocks = nn.ModuleList(ConvNextBlock(width, kernel) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.pitch = nn.Linear(width, 1)
        self.envelopes = nn.Linear(width, 2 * config.num_bands)
        self.source_filter = SourceFilter(config.num_bands)
        nn.init.normal_(self.embedding.weight, std=0.5)
        for head in (self.pitch, self.envelopes):
            nn.init.normal_(head.weight, std=0.01)
        nn.init.constant_(self.pitch.bias, config.mean_pitch)
        nn.init.constant_(self.envelopes.bias, config.mean_level)

    def controls(self, units: Tensor) -> Controls:
        """Return pitch and envelopes of T unit frames.

        Args:
            units: (B, T + 2 C) int64, with `config.context` frames more on either side, real ones
                or the first and the last one repeated.
        """
        context = self.config.context
        x = self.embedding(units)
        for block in self.unit_blocks:
            x = block(x)
        batch, num_frames, width = x.shape
        x = self.upsample(x).reshape(batch, num_frames * self.config.upsample, width)
        for block in self.blocks:
            x = block(x)
        cut = context * self.config.upsample
        x = self.norm(x[:, cut : x.shape[1] - cut])
        # Bounded smoothly: the exponential of a stray value would drown a batch.
        envelopes = LOUDEST - nn.functional.softplus(LOUDEST - self.envelopes(x))
        envelopes = envelopes.unflatten(2, (2, self.config.num_bands))
        return Controls(self.pitch(x)[..., 0], envelopes)

    def render(self, hertz: Tensor, envelopes: Tensor, noise: Tensor) -> Tensor:
        """Return the waveform (B, 160 T) of pitches (B, T), envelopes (B, T, 2, bands) and noise
        (B, 160 T)."""
        pulses, _ = pulse_train(hertz)
        sides = (OVERHANG, OVERHANG)
        pulses, noise = (nn.functional.pad(source, sides) for source in (pulses, noise))
        joined = self.source_filter(pulses, noise, envelopes)
        return joined[:, OVERHANG : joined.shape[1] - OVERHANG]


def save_vocoder(vocoder: UnitVocoder, folder: Path) -> Path:
    """Write a vocoder's sizes and weights to a folder; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu() for name, tensor in vocoder.state_dict().items()}
    partial = folder / (WEIGHTS_FILE + ".partial")
    save_tensors({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
    settings = folder / (CONFIG_FILE + ".partial")
    settings.write_text(json.dumps(to_dict(vocoder.config), indent=2) + "\n", encoding="utf-8")
    os.replace(partial, folder / WEIGHTS_FILE)
    os.replace(settings, folder / CONFIG_FILE)
    return folder


def load_vocoder(folder: Path) -> UnitVocoder:
    """Read what `save_vocoder` wrote.

    Raises:
        ModelError: The folder does not hold a vocoder, or a damaged one.
    """
    path, weights = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        vocoder = UnitVocoder(from_dict(VocoderConfig, content, where=str(path)))
        vocoder.load_state_dict(load_file(weights))
    except FileNotFoundError as error:
        raise ModelError(
            f"{error.filename or weights}: is missing; train the voice again"
        ) from None
    except ConfigError as error:  # names the file already
        raise ModelError(f"{error}; the voice is damaged") from error
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder}: the vocoder cannot be read: {error}") from error
    return vocoder.eval()
