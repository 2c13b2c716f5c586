"""What comes next in speech: a density of every 40 ms, from what was heard before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from speechjepa.audio.features import LogMel
from speechjepa.errors import ConfigError, DataError
from speechjepa.models.encoder import Encoder
from speechjepa.shapes import padding_mask

NUM_MELS = 80
STACK = 4
"""Log-mel frames of 10 ms in one that is predicted: no sample is in two of them but for the
overlap of the windows, so that what is next is not known from what was."""
LEVEL = 0.05
"""Root mean square that every waveform is brought to, as a whole: a piece of a long recording, too.
So what is loud makes what comes before it quieter."""
MIN_LOG_VARIANCE, MAX_LOG_VARIANCE = -6.0, 4.0


@dataclass(frozen=True, kw_only=True)
class FutureConfig:
    """Sizes of a `FuturePredictor`."""

    width: int = 192
    """Channels of the recurrent layers."""
    num_layers: int = 2
    """Recurrent layers."""
    num_channels: int = 64
    """Principal components of a frame that are predicted, of 320 log-mel values."""

    def __post_init__(self) -> None:
        if min(self.width, self.num_layers, self.num_channels) < 1:
            raise ConfigError("every size of `future` must be more than 0")
        if self.num_channels > NUM_MELS * STACK:
            raise ConfigError(
                f"`num_channels` must be at most {NUM_MELS * STACK}, the values of a frame, but is "
                f"{self.num_channels} instead"
            )


class FuturePredictor(nn.Module):
    """Predict each frame of 40 ms, whitened log-mel, as a Gaussian with a variance of its own.

    Targets are whitened once and for all, so nothing can collapse, and what is hidden is always the
    future: the hidden spans of a JEPA are known from both sides, which tells little of the
    direction that speech runs in. The variance, too, is predicted: an error where anything might
    have come counts less than one where one thing was expected. Recurrent, after autoregressive
    predictive coding (https://arxiv.org/abs/1904.03240), which has neither. Waveforms (S,) of fewer
    samples than `hop` have no frame.

    Args:
        config: Sizes.
    """

    mean: Tensor
    whitening: Tensor
    usual: Tensor

    def __init__(self, config: FutureConfig) -> None:
        super().__init__()
        self.config = config
        size, channels = NUM_MELS * STACK, config.num_channels
        self.log_mel = LogMel(NUM_MELS, normalization="global")
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("whitening", torch.eye(size)[:, :channels].contiguous())
        self.register_buffer("usual", torch.tensor([0.0, 1.0]))
        self.memory = nn.GRU(channels, config.width, config.num_layers, batch_first=True)
        self.output = nn.Sequential(
            nn.Linear(config.width, config.width),
            nn.GELU(),
            nn.Linear(config.width, 2 * channels),
        )

    @property
    def sample_rate(self) -> int:
        """Samples per second of the waveforms it takes (Hz)."""
        return 100 * self.log_mel.hop

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return STACK * self.log_mel.hop

    def frames(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return whitened frames (B, T, C), T at least 1, of waveforms (B, S), and lengths (B,)."""
        stacked, lengths = self._stacked(waveform, lengths)
        with torch.autocast(stacked.device.type, enabled=False):
            whitened = (stacked - self.mean) @ self.whitening
        padding = padding_mask(lengths, stacked.shape[1])
        return whitened.masked_fill(padding[:, :, None], 0.0), lengths

    def predict(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict every frame from those before it; the first from nothing.

        Args:
            frames: (B, T, C).

        Returns:
            Means and log-variances (B, T, C), and what is remembered of the past (B, T, width).
        """
        past = functional.pad(frames[:, :-1], (0, 0, 1, 0))
        memory, _ = self.memory(past)
        means, log_variances = self.output(memory).float().chunk(2, dim=-1)
        return means, log_variances.clamp(MIN_LOG_VARIANCE, MAX_LOG_VARIANCE), memory

    def energy(self, waveform: Tensor) -> Tensor:
        """Return (T,) how unexpected each frame of a waveform (S,) is; T may be 0.

        In standard deviations of what the recordings that it was fitted to have, over their mean.
        """
        lengths = torch.tensor([len(waveform)], device=waveform.device)
        frames, counts = self.frames(waveform[None], lengths)
        means, log_variances, _ = self.predict(frames)
        energies = gaussian_energy(frames, means, log_variances)[0, : int(counts[0])]
        return (energies - self.usual[0]) / self.usual[1]

    @torch.no_grad()
    def fit(self, waveforms: Sequence[Tensor]) -> None:
        """Take mean and whitening from utterances (S,).

        Raises:
            DataError: They are silent, or hold fewer frames than there are channels.
        """
        stacked = torch.cat([self._stack_one(waveform) for waveform in waveforms]).double()
        mean = stacked.mean(dim=0)
        covariance = (stacked - mean).T @ (stacked - mean) / len(stacked)
        variances, directions = torch.linalg.eigh(covariance)  # ascending
        if len(stacked) < self.config.num_channels or float(variances[-1]) < 1e-6:
            raise DataError(
                "what comes next can be learnt from speech alone, and from seconds of it or more; "
                f"these recordings are silent, or too short: "
                f"{len(stacked) * self.hop / self.sample_rate:.2f} s"
            )
        kept = variances[-self.config.num_channels :].clamp(min=1e-4 * float(variances[-1]))
        whitening = directions[:, -self.config.num_channels :] * kept.rsqrt()
        self.mean.copy_(mean)
        self.whitening.copy_(whitening)

    @torch.no_grad()
    def fit_scale(self, waveforms: Sequence[Tensor]) -> None:
        """Take from utterances (S,) what is usual: `energy` is on that scale from then on."""
        self.usual.copy_(torch.tensor([0.0, 1.0]))
        energies = torch.cat([self.energy(waveform) for waveform in waveforms])
        spread = energies.std(correction=0).clamp(min=1e-3)
        self.usual.copy_(torch.stack([energies.mean(), spread]))

    def _stacked(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return stacked log-mel frames (B, T, 320), T at least 1, and their numbers (B,)."""
        waveform = waveform.float().masked_fill(padding_mask(lengths, waveform.shape[1]), 0.0)
        power = waveform.square().sum(dim=1, keepdim=True) / lengths.clamp(min=1)[:, None]
        mel, mel_lengths = self.log_mel(waveform * (LEVEL / (power.sqrt() + 1e-6)), lengths)
        mel = functional.pad(mel, (0, 0, 0, max(0, STACK - mel.shape[1])))
        count = mel.shape[1] // STACK
        return mel[:, : count * STACK].unflatten(1, (count, STACK)).flatten(2), mel_lengths // STACK

    def _stack_one(self, waveform: Tensor) -> Tensor:
        """Return the stacked log-mel frames (T, 320) of a waveform (S,)."""
        stacked, counts = self._stacked(waveform[None], torch.tensor([len(waveform)]))
        return stacked[0, : int(counts[0])]


def gaussian_energy(frames: Tensor, means: Tensor, log_variances: Tensor) -> Tensor:
    """Return (B, T) the negative log density of frames (B, T, C), less its constant (nats)."""
    squares = (frames - means).square() * (-log_variances).exp()
    return 0.5 * (squares + log_variances).sum(dim=-1)


class FutureModel(nn.Module):
    """A predictor of the future beside the encoder that a bundle has to have.

    Args:
        encoder: Stays as it is.
        config: Sizes of the predictor.
    """

    def __init__(self, encoder: Encoder, config: FutureConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.predictor = FuturePredictor(config)
