"""Log-mel features, computed inside the model so that a bundle carries its own front end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from speechjepa.shapes import padding_mask

Normalization = Literal["utterance", "global"]

# Mean and standard deviation of natural-log mel energies of speech at normal level, used by
# normalization="global": constants, because a streaming front end cannot see the utterance's end.
GLOBAL_MEAN, GLOBAL_STD = -6.0, 4.0


class RunningStatistics(nn.Module):
    """Normalise log-mel frames by mean and variance of the frames so far, forgetting slowly.

    Speech and its short pauses count, long pauses do not: through them the statistics stay those
    of speech, where those of the noise would make it look like speech. What is known before
    anything was heard, the statistics of the training data, weighs as much as `PRIOR_SECONDS`.

    Args:
        num_mels: Mel channels F.
    """

    PRIOR_SECONDS = 1.0
    MEMORY_SECONDS = 8.0
    """Time constant of forgetting."""
    RANGE = 6.0
    """Speech is down to this far below the loudest level (nats of mean log energy; 26 dB)."""
    PEAK_DECAY = 0.02
    """How fast the loudest level is forgotten (nats per second)."""
    ANY_LEVEL_PEAK_DECAY = 1.0
    """The same where all that comes is speech: a click counts for seconds, another may whisper."""
    HANGOVER_SECONDS = 0.5
    """For so long after speech frames still count."""
    _BLOCK = 1000  # frames; their decay stays far from the limits of float32
    _LONG_AGO = 1e6  # frames
    _FAR_BELOW = 1e3  # nats

    mean: Tensor
    std: Tensor
    peak: Tensor

    def __init__(self, num_mels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((num_mels,), GLOBAL_MEAN))
        self.register_buffer("std", torch.full((num_mels,), GLOBAL_STD))
        self.register_buffer("peak", torch.tensor(GLOBAL_STD))  # above the mean

    @torch.no_grad()
    def fit(self, utterances: Sequence[Tensor]) -> None:
        """Take what is known beforehand from log-mel frames (T, F) of utterances."""
        frames = torch.cat(list(utterances))
        self.mean.copy_(frames.mean(dim=0))
        self.std.copy_(frames.std(dim=0))
        peaks = [(x - self.mean).mean(dim=1).max() for x in utterances if len(x)]
        self.peak.copy_(torch.stack(peaks).mean())

    def start(self, batch: int, *, any_level: bool = False) -> Tensor:
        """Return the state (B, 1, 2 F + 3) before anything was heard.

        The loudest level, the frames since speech, and three decaying sums over frames: how many,
        their values, the squares of their values.

        Args:
            batch: B.
            any_level: Whatever comes first counts; else what is within `RANGE` of the peaks of the
                training data, and speech far below that only after minutes.
        """
        num_mels = len(self.mean)
        state = self.mean.new_zeros(batch, 1, 2 * num_mels + 3)
        state[:, :, 0] = -self._FAR_BELOW if any_level else self.peak
        state[:, :, 1] = self._LONG_AGO
        state[:, :, 2] = weight = 100.0 * self.PRIOR_SECONDS
        state[:, :, 3 + num_mels :] = weight * self.std.square()
        return state

    def after_pause(self, state: Tensor) -> Tensor:
        """Return a state with what was heard weighing no more than `PRIOR_SECONDS`.

        After a pause another may speak, and is adapted to as fast as at the beginning.
        """
        weight = state[:, :, 2:3]
        factor = (100.0 * self.PRIOR_SECONDS / weight).clamp(max=1.0)
        return torch.cat([state[:, :, :2], state[:, :, 2:] * factor], 2)

    def forward(
        self, mel: Tensor, state: Tensor, *, any_level: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return the next frames mel (B, T, F) normalised, and the state after them.

        Args:
            mel: Log-mel frames.
            state: After the frames before; see `start`.
            any_level: A detector found that all of it is speech and what is around it, so the
                loudest level is forgotten fast.
        """
        normalized = []
        for block in mel.split(self._BLOCK, dim=1):
            if block.shape[1]:
                frames, state = self._block(block, state, any_level)
                normalized.append(frames)
        return torch.cat(normalized, 1) if normalized else mel, state

    def _block(self, mel: Tensor, state: Tensor, any_level: bool) -> tuple[Tensor, Tensor]:
        frames, num_mels = mel.shape[1:]
        x = mel - self.mean  # around the prior: its squares keep their precision
        level = x.mean(dim=2, keepdim=True)  # (B, T, 1)
        steps = torch.arange(1, frames + 1, device=mel.device, dtype=mel.dtype)[:, None]
        slope = (self.ANY_LEVEL_PEAK_DECAY if any_level else self.PEAK_DECAY) / 100 * steps
        peak = torch.maximum((level + slope).cummax(dim=1).values, state[:, :, :1]) - slope
        spoken = torch.where(level > peak - self.RANGE, steps, -state[:, :, 1:2])
        since = steps - spoken.cummax(dim=1).values  # frames
        counts = (since <= 100 * self.HANGOVER_SECONDS).to(mel.dtype)
        # S[t] = a^counts[t] S[t - 1] + counts[t] (1, x[t], x[t]^2), with all the powers taken out.
        powers = torch.exp(counts.cumsum(dim=1) / (100.0 * self.MEMORY_SECONDS))
        new = torch.cat([torch.ones_like(level), x, x.square()], 2) * (counts * powers)
        sums = (new.cumsum(dim=1) + state[:, :, 2:]) / powers
        weight, first, second = sums.split([1, num_mels, num_mels], dim=2)
        mean = first / weight
        variance = (second / weight - mean.square()).clamp(min=0.0)
        since = since[:, -1:].clamp(max=self._LONG_AGO)
        after = torch.cat([peak[:, -1:], since, sums[:, -1:]], 2)
        return (x - mean) * torch.rsqrt(variance + 1e-2), after


class UtterancePrior(nn.Module):
    """What is known of an utterance's statistics before it is heard, for those that are short.

    The mean of half a second is that of its few phones: normalised by it, they lose what they
    differ in. So the colour of the mean (what channels have above their common level) and the
    variances are the utterance's and those of training data, as if so many more seconds of the
    latter had been heard at its level.

    Args:
        num_mels: Mel channels F.
        seconds: Weight of the training data (seconds of audio).
    """

    colour: Tensor
    variance: Tensor

    def __init__(self, num_mels: int, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.register_buffer("colour", torch.zeros(num_mels))
        self.register_buffer("variance", torch.full((num_mels,), GLOBAL_STD**2))

    @property
    def is_measured(self) -> bool:
        """Whether it knows more than the constants that it begins with."""
        return bool(self.colour.any())

    @torch.no_grad()
    def fit(self, utterances: Sequence[Tensor]) -> None:
        """Take both from the speech in log-mel frames (T, F) of utterances; silent ones say
        nothing."""
        colours, variances, counts = [], [], []
        for frames in utterances:
            level = frames.mean(dim=1)
            speech = frames[level > level.max() - RunningStatistics.RANGE]
            variance = speech.var(dim=0, correction=0)
            if variance.any():
                colours.append(speech.mean(dim=0) - speech.mean())
                variances.append(variance)
                counts.append(float(len(speech)))
        if counts:
            shares = torch.tensor(counts, device=self.colour.device) / sum(counts)
            self.colour.copy_(shares @ torch.stack(colours))
            self.variance.copy_(shares @ torch.stack(variances))

    def forward(self, mean: Tensor, variance: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """Return statistics (B, 1, F) in place of an utterance's, of so many frames (B, 1, 1)."""
        own = count / (count + 100.0 * self.seconds)
        level = mean.mean(dim=2, keepdim=True)
        expected = level + own * (mean - level) + (1.0 - own) * self.colour
        spread = variance + (mean - expected).square()
        return expected, own * spread + (1.0 - own) * self.variance


class LogMel(nn.Module):
    """Turn waveforms into log-mel frames every 10 ms.

    Frame t covers samples [160 t - 120, 160 t + 280) at 16 kHz (25 ms), so S samples give
    S // 160 frames. Padding never leaks: samples past `lengths` count as zeros, statistics use
    valid frames only, and padded frames come out as zeros.

    Args:
        num_mels: Mel channels F between 20 Hz and half the sample rate.
        sample_rate: Hz.
        normalization: "utterance" gives every channel zero mean and unit variance over the
            utterance (without a prior); "global" applies one fixed shift and scale, which a stream
            can use too.
        prior_seconds: Weight of an `UtterancePrior` beside the utterance (seconds); 0 = none.
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self,
        num_mels: int = 80,
        sample_rate: int = 16000,
        normalization: Normalization = "utterance",
        prior_seconds: float = 0.0,
    ) -> None:
        super().__init__()
        self.hop = sample_rate // 100
        self.window_size = sample_rate // 40
        self.fft_size = 1 << (self.window_size - 1).bit_length()
        self.normalization = normalization
        self.num_mels = num_mels
        self.running: RunningStatistics | None = None
        self.prior: UtterancePrior | None = None
        filters = melscale_fbanks(
            self.fft_size // 2 + 1, 20.0, sample_rate / 2, num_mels, sample_rate, mel_scale="htk"
        )
        self.register_buffer("window", torch.hann_window(self.window_size), persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        if prior_seconds:
            self.set_prior(prior_seconds)

    def learn_to_stream(self) -> None:
        """Get statistics that a stream can use, where normalisation is over the utterance."""
        if self.normalization == "utterance":
            self.running = RunningStatistics(self.num_mels)

    def set_prior(self, seconds: float) -> None:
        """Get a prior of this weight, or change the weight of the one that is there."""
        if self.prior is None:
            self.prior = UtterancePrior(self.num_mels, seconds).to(self.window.device)
        self.prior.seconds = seconds

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Return the number of frames (B,) of utterances of `lengths` samples (B,)."""
        return torch.div(lengths, self.hop, rounding_mode="floor")

    @torch.no_grad()
    def forward(
        self, waveform: Tensor, lengths: Tensor, *, streaming: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Compute features.

        Args:
            waveform: (B, S) float32 in [-1, 1].
            lengths: (B,) samples.
            streaming: Normalise as a stream has to, by what was heard so far, where there are
                statistics for it.

        Returns:
            Log-mel features (B, T, F) float32 and their lengths (B,) in frames.
        """
        with torch.autocast(waveform.device.type, enabled=False):
            waveform = waveform.float()
            waveform = waveform.masked_fill(padding_mask(lengths, waveform.shape[1]), 0.0)
            frame_lengths = self.output_lengths(lengths)
            num_frames = waveform.shape[1] // self.hop
            margin = self.window_size - self.hop  # 240 samples: 120 before, 120 after
            missing = max(0, self.hop - waveform.shape[1])  # the FFT takes one frame or more
            padded = nn.functional.pad(waveform, (margin // 2, margin - margin // 2 + missing))
            # On a CPU a few seconds at a time: the spectra of a batch do not fit into its caches,
            # and take three times as long to write to memory as to compute.
            if padded.device.type == "cpu" and not torch.jit.is_tracing():
                rows = max(1, 10 * 100 * self.hop // padded.shape[1])
                mel = torch.cat([self.frames(part) for part in padded.split(rows)])
            else:
                mel = self.frames(padded)
            mel = mel[:, :num_frames]  # (B, T, F)
            padding = padding_mask(frame_lengths, num_frames)[:, :, None]
            if streaming and self.running is not None:
                state = self.running.start(len(mel))
                if self.training and torch.rand(()) < 0.5:  # as if the stream had gone on for long
                    heard = zip(mel.split(1), frame_lengths.tolist(), state.split(1), strict=True)
                    state = torch.cat([self.running(m[:, :n], s)[1] for m, n, s in heard])
                mel = self.running(mel, state)[0].masked_fill(padding, 0.0)
                return mel, frame_lengths
            return self._normalize(mel, frame_lengths, padding), frame_lengths

    def frames(self, padded: Tensor) -> Tensor:
        """Return log-mel frames (B, T, F), not normalised, of samples that have their margins."""
        power = power_spectra(padded, self.window, self.fft_size, self.hop)
        return torch.log(power @ self.filters + 1e-6)  # (B, T, F)

    def normalize_globally(self, mel: Tensor) -> Tensor:
        """Return log-mel frames shifted and scaled by the constants."""
        return (mel - GLOBAL_MEAN) / GLOBAL_STD

    def _normalize(self, mel: Tensor, lengths: Tensor, padding: Tensor) -> Tensor:
        if self.normalization == "global":
            return self.normalize_globally(mel).masked_fill(padding, 0.0)
        count = lengths.clamp(min=1)[:, None, None]
        mel = mel.masked_fill(padding, 0.0)
        mean = mel.sum(dim=1, keepdim=True) / count
        centred = (mel - mean).masked_fill(padding, 0.0)
        variance = centred.square().sum(dim=1, keepdim=True) / count
        if self.prior is not None:
            mean, variance = self.prior(mean, variance, count)
            centred = (mel - mean).masked_fill(padding, 0.0)
        return centred * torch.rsqrt(variance + 1e-2)


def power_spectra(samples: Tensor, window: Tensor, fft_size: int, hop: int) -> Tensor:
    """Return the power spectra (B, T, K) of windows (W,) of samples (B, S), one every `hop`."""
    if torch.jit.is_tracing():  # a recorded graph knows no Fourier transform of windows
        return _power_by_convolution(samples, window, fft_size, hop)
    frames = samples.unfold(1, len(window), hop)  # (B, T, W)
    spectrum = torch.fft.rfft(frames * window, n=fft_size)
    return spectrum.real.square() + spectrum.imag.square()


def _power_by_convolution(samples: Tensor, window: Tensor, fft_size: int, hop: int) -> Tensor:
    """Return the same, each bin of the spectrum a convolution."""
    bins = torch.arange(fft_size // 2 + 1, dtype=torch.float64)
    steps = torch.arange(len(window), dtype=torch.float64)
    angles = bins[:, None] * steps * (2 * math.pi / fft_size)
    waves = torch.cat([angles.cos(), angles.sin()]) * window.double()
    parts = nn.functional.conv1d(samples[:, None], waves.float()[:, None], stride=hop)
    return parts.square().unflatten(1, (2, -1)).sum(dim=1).transpose(1, 2)
