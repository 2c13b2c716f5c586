"""The log-mel front end on a stream: samples in, the same features out as from the whole."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from speechjepa.nn.feature_encoder import LogMelFeatureEncoder
from speechjepa.nn.pitch_input import PitchStream


class FeatureStream:
    """Front end of one stream; remembers what windows and kernels overlap, and nothing else.

    Args:
        feature_encoder: In evaluation mode.
        statistics: State of the running statistics to go on from; None = as before any speech.
        any_level: See `RunningStatistics.forward`.
    """

    def __init__(
        self,
        feature_encoder: LogMelFeatureEncoder,
        statistics: Tensor | None = None,
        *,
        any_level: bool = False,
    ) -> None:
        self.feature_encoder = feature_encoder
        self._any_level = any_level
        log_mel = feature_encoder.log_mel
        weight = feature_encoder.projection.weight
        margin = log_mel.window_size - log_mel.hop
        self._before = margin // 2
        self._samples = weight.new_zeros(self._before)
        self._num_samples = self._num_mels = 0
        self.statistics = statistics
        if log_mel.running is not None and statistics is None:
            self.statistics = log_mel.running.start(1, any_level=any_level)
        self._convolutions = cast(list[nn.Conv1d], list(feature_encoder.convolutions))
        self._inputs = [weight.new_zeros(1, c.in_channels, 1) for c in self._convolutions]
        pitch = feature_encoder.pitch
        self._pitch = None if pitch is None else PitchStream(pitch)
        # What one of the two has completed, and the other not yet: (1, T, D) each.
        self._waiting = [weight.new_zeros(1, 0, len(weight)) for _ in range(2)]

    @torch.no_grad()
    def push(self, samples: Tensor, *, last: bool = False) -> Tensor:
        """Take the next samples (S,) and return the features (1, T, D) that they complete.

        Args:
            samples: At the encoder's sample rate.
            last: Nothing follows them: complete what can be completed without.
        """
        x = self._log_mel(samples, last).transpose(1, 2)  # (1, F, T')
        for number in range(len(self._convolutions)):
            x = nn.functional.gelu(self._convolve(x, number, last))
        x = self.feature_encoder.norm(x.transpose(1, 2))  # (1, T, D)
        x = self.feature_encoder.projection(x)
        if self._pitch is None:
            return x
        both = [x, self._pitch.push(samples, last=last)]
        both = [torch.cat(parts, 1) for parts in zip(self._waiting, both, strict=True)]
        count = min(part.shape[1] for part in both)
        self._waiting = [part[:, count:].clone() for part in both]
        return both[0][:, :count] + both[1][:, :count]

    def _log_mel(self, samples: Tensor, last: bool) -> Tensor:
        """Return the next normalised log-mel frames (1, T', F)."""
        log_mel = self.feature_encoder.log_mel
        self._num_samples += len(samples)
        self._samples = torch.cat([self._samples, samples.to(self._samples)])
        if last:
            # The frames that the whole would have, their windows filled up with zeros.
            count = self._num_samples // log_mel.hop - self._num_mels
            size = (count - 1) * log_mel.hop + log_mel.window_size
            missing = max(0, size - len(self._samples))
            self._samples = nn.functional.pad(self._samples, (0, missing))
        else:
            count = max(0, (len(self._samples) - log_mel.window_size) // log_mel.hop + 1)
        if count <= 0:
            return self._samples.new_zeros(1, 0, log_mel.num_mels)
        used = self._samples[: (count - 1) * log_mel.hop + log_mel.window_size]
        self._samples = self._samples[count * log_mel.hop :].clone()
        self._num_mels += count
        mel = log_mel.frames(used[None])
        if self.statistics is None or log_mel.running is None:
            return log_mel.normalize_globally(mel)
        mel, self.statistics = log_mel.running(mel, self.statistics, any_level=self._any_level)
        return mel

    def _convolve(self, x: Tensor, number: int, last: bool) -> Tensor:
        """Return the next outputs (1, D, T) of a convolution of kernel 4 and stride 2."""
        convolution = self._convolutions[number]
        x = torch.cat([self._inputs[number], x], 2)
        # An output frame looks one input frame beyond its own two; the end is followed by a zero.
        count = (x.shape[2] - 1) // 2 if last else (x.shape[2] - 2) // 2
        if last:
            x = nn.functional.pad(x, (0, 1))
        count = max(0, count)
        self._inputs[number] = x[:, :, 2 * count :].clone()
        if count == 0:
            return x.new_zeros(1, convolution.out_channels, 0)
        return convolution(x[:, :, : 2 * count + 2])
