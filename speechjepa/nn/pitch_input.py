"""The pitch of the voice, as an input of the native encoder beside log-mel frames."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, conv1d, gelu, pad

from speechjepa.audio.features import power_spectra
from speechjepa.shapes import padding_mask

_HOP, _DECIMATION = 160, 4
"""Samples from a reading to the next, and of 16 kHz for each that is correlated."""
_BEFORE, _AFTER = 3, 1
"""Readings before and after its own that the average of five takes."""
_TAPS = 33
"""Of the low-pass before decimation: 6 dB down at 0.5 kHz, nothing passes from 1 kHz on."""


class PitchInput(nn.Module):
    """Add to the features of a frame how high the voice is and where it goes.

    The harmonics of a low voice are closer than a window of 25 ms can part, so log-mel frames say
    little of its pitch, and languages that write tones need it (docs/LOG.md, 2026-11-30). Every
    10 ms are read: octaves above `MIDDLE`, octaves above the mean of the last `MEMORY_SECONDS`, the
    rise over 20 ms, each as far as the frame is voiced, and how much it is. The pitch is the lag
    with the highest autocorrelation (window and correction: Boersma, "Accurate short-term analysis
    of the fundamental frequency", 1993), averaged over five frames; no path is searched as in
    `audio.pitch`, so that a stream, which cannot wait for the end of one, has the same readings.
    Only what is below some 500 Hz is heard, and what has no peak between the lags, as hum and
    offsets, is not voiced.

    Args:
        width: Channels D of the features.
        stride: Readings per frame, 2 (50 Hz) or 4 (25 Hz).
    """

    LOWEST, HIGHEST, STEPS = 60.0, 480.0, 36
    """Pitches that are told apart (Hz), and candidates per octave; readings are finer."""
    MIDDLE = 150.0
    MEMORY_SECONDS = 3.0
    _RATE = 16000 // _DECIMATION
    """Samples per second of what is correlated."""
    _WINDOW, _FFT = 240, 512
    """Of 60 ms: three and a half periods of the lowest pitch."""
    _BELOW = 45.0
    """What the spectrum has below (Hz) is left out; windows spread an offset beyond it."""
    _FLOOR = 1e-10
    """Power of the noise in which nothing correlates: the rounding of 16 bits."""
    _TILT = 0.02
    """Taken from a candidate per octave below the highest: two periods correlate as well as one."""
    _VOICED, _SHARPNESS = 0.55, 12.0
    """Correlation at which a frame is half voiced, and how fast that changes."""
    _NUM_READINGS, _HIDDEN = 4, 32

    taps: Tensor
    window: Tensor
    reader: Tensor
    tilt: Tensor

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.convolution = nn.Conv1d(self._NUM_READINGS, self._HIDDEN, 2 * stride, stride=stride)
        self.projection = nn.Linear(self._HIDDEN, width)
        self.memory = round(100 * self.MEMORY_SECONDS)
        taps = torch.hann_window(_TAPS, periodic=False)
        window = torch.hann_window(self._WINDOW, periodic=False)
        octaves = torch.arange(int(math.log2(self.HIGHEST / self.LOWEST) * self.STEPS) + 1)
        octaves = octaves / self.STEPS
        constants = {"taps": (taps / taps.sum())[None, None], "window": window}
        constants |= {"reader": self._make_reader(window, octaves), "tilt": self._TILT * octaves}
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def _make_reader(self, window: Tensor, octaves: Tensor) -> Tensor:
        """Return what turns a power spectrum (K,) into the autocorrelation at the period of each
        candidate, so many octaves below the highest, corrected for the window, and, last, into its
        energy: (K, N + 1)."""
        own = torch.fft.rfft(window.double(), self._FFT).abs().square()
        lags = self._RATE / self.HIGHEST * 2.0 ** octaves.double()
        bins = torch.arange(self._FFT // 2 + 1, dtype=torch.float64)
        both_sides = torch.full_like(bins, 2.0 / self._FFT)
        both_sides[0] = both_sides[-1] = 1.0 / self._FFT
        waves = torch.cos(bins[:, None] * lags * (2 * math.pi / self._FFT)) * both_sides[:, None]
        heard = (bins * self._RATE / self._FFT >= self._BELOW).double()
        shape = (own @ waves) / (own @ both_sides)  # autocorrelation of the window
        return (torch.cat([waves / shape, both_sides[:, None]], 1) * heard[:, None]).float()

    @property
    def look_ahead(self) -> int:
        """Samples beyond the end of its readings that an output sees."""
        return self.margin + _HOP * _AFTER

    @property
    def margin(self) -> int:
        """Samples before, and samples after, the 10 ms of a reading that count in it."""
        return (_DECIMATION * self._WINDOW - _HOP) // 2 + _TAPS // 2

    def forget(self) -> None:
        """Add nothing, until training has found what to add."""
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return what is added to features (B, T, D) of waveform (B, S).

        T is that of the front end: at least 1, padded frames among it, which mean nothing.

        Args:
            waveform: float32, 16 kHz; samples past `lengths` (B,) count as zeros.
            lengths: Samples of each utterance.
        """
        with torch.no_grad(), torch.autocast(waveform.device.type, enabled=False):
            waveform = waveform.float().masked_fill(padding_mask(lengths, waveform.shape[1]), 0.0)
            num_readings = max(1, waveform.shape[1] // _HOP)
            padded = pad(waveform, (self.margin, self.margin + _HOP))
            padding = padding_mask(torch.div(lengths, _HOP, rounding_mode="floor"), num_readings)
            score = self.score(padded)[:, :num_readings].masked_fill(padding[:, :, None], 0.0)
            found = torch.stack(self.find(pad(score, (0, 0, _BEFORE, _AFTER))), 1)  # (B, 2, T')
            readings = self.describe(pad(found, (self.memory - 1, 0)))
        missing = max(0, self.stride - num_readings)
        return self.embed(pad(readings, (self.stride, missing)))

    def score(self, padded: Tensor) -> Tensor:
        """Return how well each candidate (B, T', N) fits samples that have their margins."""
        samples = conv1d(padded[:, None], self.taps, stride=_DECIMATION)[:, 0]
        power = power_spectra(samples, self.window, self._FFT, _HOP // _DECIMATION)
        correlation, energy = (power @ self.reader).split([len(self.tilt), 1], dim=2)
        return correlation / (energy + self._FLOOR * self.window.square().sum()) - self.tilt

    def find(self, score: Tensor) -> tuple[Tensor, Tensor]:
        """Return octaves above `MIDDLE` and how voiced it is, (B, T') each.

        Args:
            score: (B, T' + `_BEFORE` + `_AFTER`, N).
        """
        mean = avg_pool1d(score.transpose(1, 2), _BEFORE + 1 + _AFTER, stride=1)  # (B, N, T')
        # Peaks alone: hum and offsets correlate best at the ends, where nothing turns.
        inner = mean[:, 1:-1]
        is_slope = (mean[:, :-2] > inner) | (mean[:, 2:] > inner)
        best = inner.masked_fill(is_slope, -1.0).argmax(dim=1, keepdim=True) + 1
        low, top, high = (mean.gather(1, best + step)[:, 0] for step in (-1, 0, 1))
        is_peak = (low <= top) & (high <= top)
        bend = (low - 2 * top + high).clamp(max=-1e-6)  # a parabola through the three
        step = best[:, 0] + (0.5 * (low - high) / bend).clamp(-0.5, 0.5)
        octaves = math.log2(self.HIGHEST / self.MIDDLE) - step / self.STEPS
        return octaves, torch.sigmoid(self._SHARPNESS * (top - self._VOICED)) * is_peak

    def describe(self, found: Tensor) -> Tensor:
        """Return readings (B, 4, T').

        Args:
            found: (B, 2, T' + `memory` - 1) octaves, and how voiced it is, 0 where nothing was.
        """
        octaves, voiced = found.unbind(1)
        weight = voiced.square()
        sums = avg_pool1d(torch.stack([octaves * weight, weight], 1), self.memory, stride=1)
        mean = sums[:, 0] / sums[:, 1].clamp(min=1e-6)
        before = voiced[:, self.memory - 3 : -2]
        rise = octaves[:, self.memory - 1 :] - octaves[:, self.memory - 3 : -2]
        octaves, voiced = octaves[:, self.memory - 1 :], voiced[:, self.memory - 1 :]
        return torch.stack(  # each is about as large as the others
            [
                2.0 * octaves * voiced,
                4.0 * (octaves - mean).clamp(-1.0, 1.0) * voiced,
                10.0 * rise.clamp(-0.1, 0.1) * voiced * before,
                voiced,
            ],
            dim=1,
        )

    def embed(self, readings: Tensor) -> Tensor:
        """Return what is added to features (B, T, D).

        Args:
            readings: (B, 4, stride * (T + 1)), those of the frame before first.
        """
        return self.projection(gelu(self.convolution(readings)).transpose(1, 2))


class PitchStream:
    """A `PitchInput` on a stream: samples in, the same out as from the whole."""

    def __init__(self, pitch: PitchInput) -> None:
        self.pitch = pitch
        zeros = pitch.projection.weight.new_zeros
        self._samples = zeros(1, pitch.margin)
        self._scores = zeros(1, _BEFORE, len(pitch.tilt))
        self._found = zeros(1, 2, pitch.memory - 1)
        self._readings = zeros(1, pitch.convolution.in_channels, pitch.stride)

    @torch.no_grad()
    def push(self, samples: Tensor, *, last: bool = False) -> Tensor:
        """Take the next samples (S,) and return what they complete, (1, T, D).

        Args:
            samples: At 16 kHz.
            last: Nothing follows them.
        """
        pitch = self.pitch
        self._samples = torch.cat([self._samples, samples.to(self._samples)[None]], 1)
        if last:
            self._samples = pad(self._samples, (0, pitch.margin))
        count = (self._samples.shape[1] - 2 * pitch.margin) // _HOP
        if count > 0:
            used = self._samples[:, : count * _HOP + 2 * pitch.margin]
            self._scores = torch.cat([self._scores, pitch.score(used)], 1)
            self._samples = self._samples[:, count * _HOP :].clone()
        scores = pad(self._scores, (0, 0, 0, _AFTER)) if last else self._scores
        if scores.shape[1] > _BEFORE + _AFTER:
            self._scores = scores[:, -(_BEFORE + _AFTER) :].clone()
            found = torch.stack(pitch.find(scores), 1)
            self._found = torch.cat([self._found, found], 2)
            self._readings = torch.cat([self._readings, pitch.describe(self._found)], 2)
            self._found = self._found[:, :, 1 - pitch.memory :].clone()
        frames = self._readings.shape[2] // pitch.stride - 1
        if frames <= 0:
            return self._samples.new_zeros(1, 0, pitch.projection.out_features)
        new = pitch.embed(self._readings[:, :, : pitch.stride * (frames + 1)])
        self._readings = self._readings[:, :, pitch.stride * frames :].clone()
        return new
