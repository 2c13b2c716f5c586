"""Front end of the native encoder: log-mel frames, then strided convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechjepa.audio.features import LogMel, Normalization
from speechjepa.nn.cpu import Dropout
from speechjepa.nn.pitch_input import PitchInput
from speechjepa.shapes import padding_mask


class LogMelFeatureEncoder(nn.Module):
    """Log-mel frames at 100 Hz, halved in rate by each strided convolution.

    A log-mel front end saves about a third of the compute of seven waveform convolutions
    (MelHuBERT, https://arxiv.org/abs/2211.09944).

    Args:
        width: Output channels D.
        frame_rate: 50 (one convolution) or 25 Hz (two).
        num_mels: Mel channels F.
        normalization: See `LogMel`.
        dropout: On the output.
        prior_seconds: See `LogMel`.
        pitch: Whether a `PitchInput` is added.
    """

    def __init__(
        self,
        width: int,
        frame_rate: int = 50,
        num_mels: int = 80,
        normalization: Normalization = "utterance",
        dropout: float = 0.0,
        prior_seconds: float = 0.0,
        pitch: bool = False,
    ) -> None:
        super().__init__()
        if frame_rate not in (25, 50):
            raise ValueError(f"`frame_rate` must be 25 or 50, but is {frame_rate} instead")
        self.log_mel = LogMel(num_mels, normalization=normalization, prior_seconds=prior_seconds)
        self.strides = 1 if frame_rate == 50 else 2
        channels = [num_mels] + [width] * self.strides
        # Kernel 4, stride 2, one frame of left context: an output frame sees input frames
        # [2t - 1, 2t + 3), one of them beyond its own two.
        self.convolutions = nn.ModuleList(
            nn.Conv1d(i, o, kernel_size=4, stride=2)
            for i, o in zip(channels[:-1], channels[1:], strict=True)
        )
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, width)
        self.dropout = Dropout(dropout)
        self.hop = self.log_mel.hop * 2**self.strides
        self.pitch = PitchInput(width, 2**self.strides) if pitch else None

    def learn_pitch(self) -> None:
        """Get a `PitchInput` that adds nothing yet, unless there is one."""
        if self.pitch is None:
            weight = self.projection.weight
            self.pitch = PitchInput(len(weight), 2**self.strides).to(weight.device)
            self.pitch.forget()

    @property
    def look_ahead(self) -> int:
        """Samples beyond its own `hop` that a frame sees: 280 at 50 Hz, 600 at 25 Hz.

        Half of what the mel windows overlap, and one mel frame (50 Hz) or three (25 Hz); with the
        pitch 576 at 50 Hz.
        """
        overlap = self.log_mel.window_size - self.log_mel.hop
        mel = overlap // 2 + (2**self.strides - 1) * self.log_mel.hop
        return mel if self.pitch is None else max(mel, self.pitch.look_ahead)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Return the number of frames (B,) of utterances of `lengths` samples (B,)."""
        lengths = self.log_mel.output_lengths(lengths)
        for _ in range(self.strides):
            lengths = torch.div(lengths, 2, rounding_mode="floor")
        return lengths

    def forward(
        self, waveform: Tensor, lengths: Tensor, *, streaming: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return features (B, T, D), T at least 1, of waveform (B, S), and their lengths (B,).

        `streaming` as in `LogMel.forward`.
        """
        mel, mel_lengths = self.log_mel(waveform, lengths, streaming=streaming)
        x, frame_lengths = self._convolve(mel, mel_lengths)
        if self.pitch is not None:
            x = x + self.pitch(waveform, lengths)
        return self.dropout(x), frame_lengths

    def _convolve(self, mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, T, D), T at least 1, of log-mel (B, T', F), and lengths (B,)."""
        x = mel.transpose(1, 2)  # (B, F, T')
        for convolution in self.convolutions:
            lengths = torch.div(lengths, 2, rounding_mode="floor")
            num_frames = max(1, x.shape[2] // 2)
            right = max(1 + x.shape[2] % 2, 3 - x.shape[2])  # at least one kernel
            x = convolution(nn.functional.pad(x, (1, right)))[:, :, :num_frames]
            x = nn.functional.gelu(x)
            x = x.masked_fill(padding_mask(lengths, num_frames)[:, None, :], 0.0)
        return self.projection(self.norm(x.transpose(1, 2))), lengths
