"""Where in a recording speech is: Silero's detector, or the level above the noise.

A detector takes samples as they come and gives one probability of speech per frame of 32 ms,
which does not depend on how the stream was cut. `SpeechFrames` makes decisions of them.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from speechjepa.errors import ModelError

RATE = 16000
FRAME = 512
"""Samples per frame; 32 ms at 16 kHz."""
FRAME_SECONDS = FRAME / RATE

DetectorName = Literal["silero", "energy", "none"]
VADS = ("auto", "silero", "energy", "none")
"""What `vad` may say."""

_CONTEXT = 64  # samples before a frame that Silero hears with it
_BLOCK_FRAMES = 1024  # computed at once
_PEAK, _MOST_GAIN = 0.5, 100.0  # what the level is brought to, by at most 40 dB
_HELD_FRAMES = 4  # in a row reach a peak that counts; a vowel's do, a click's do not
_ENTER, _LEAVE = (
    0.5,
    0.35,
)  # probabilities at which speech begins and ends, as Silero's own code has
_LEAST_FRAMES = 3  # that speech lasts
_POSSIBLE, _POSSIBLE_FRAMES, _BRIEF_SECONDS = 0.1, 2, 2.0  # a trace of it, in what is brief
_FLOOR_SECONDS = 10.0  # of audio in which the noise floor is looked for
_SMOOTH_FRAMES = 5  # that a level is averaged over, so that noise alone stays within 5 dB
_ABOVE_FLOOR, _FAINTEST = 9.0, -60.0  # dB above the floor, and dB of full scale, that speech has


class Detector(Protocol):
    """Tells speech from everything else."""

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the next samples (S,) at 16 kHz; return the probabilities (N,) so far due."""
        ...

    def finish(self) -> NDArray[np.float32]:
        """Return the probabilities that the end of the recording completes."""
        ...


def make_detector(name: Literal["silero", "energy"]) -> Detector:
    """Return a detector of this name for one recording."""
    return SileroDetector() if name == "silero" else EnergyDetector()


class SileroDetector:
    """Silero's network (https://github.com/snakers4/silero-vad), with the weights of its wheel.

    Its own loader sets the number of threads of the whole process, and its TorchScript takes one
    frame at a time. The same network here takes a thousand frames at once, 14 times as fast; only
    the LSTM between them runs in order.

    The network misses speech that is far below full scale, and takes faint noise beside it for
    speech, so it hears every frame made louder, as far as its own peak and the highest so far that
    four frames in a row reached allow: behind a knock that rings for a tenth of a second all is as
    faint to it as it is. Steady noise is no speech to it however loud.
    """

    def __init__(self) -> None:
        self._network = _silero()
        self._pending = np.zeros(_CONTEXT, np.float32)  # the context of the next frame, and samples
        self._state: tuple[Tensor, Tensor] | None = None
        self._recent = torch.zeros(_HELD_FRAMES - 1)  # peaks of the frames before
        self._held = torch.zeros(1)  # the highest peak so far that lasted

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take samples, as `Detector` says."""
        self._pending = np.concatenate([self._pending, samples])
        count = (len(self._pending) - _CONTEXT) // FRAME
        found = [
            self._compute(first, min(count, first + _BLOCK_FRAMES))
            for first in range(0, count, _BLOCK_FRAMES)
        ]
        self._pending = self._pending[count * FRAME :].copy()
        return np.concatenate(found) if found else np.zeros(0, np.float32)

    def finish(self) -> NDArray[np.float32]:
        """Return the last frame's probability, as `Detector` says."""
        left = len(self._pending) - _CONTEXT
        return self.push(np.zeros(FRAME - left, np.float32)) if left else np.zeros(0, np.float32)

    def _compute(self, first: int, end: int) -> NDArray[np.float32]:
        samples = torch.from_numpy(self._pending[first * FRAME : end * FRAME + _CONTEXT])
        with torch.inference_mode():
            frames = samples.unfold(0, _CONTEXT + FRAME, FRAME)  # (N, 576)
            peaks = torch.cat([self._recent, frames.abs().amax(dim=1)])
            lasting = peaks.unfold(0, _HELD_FRAMES, 1).amin(dim=1)
            held = torch.cat([self._held, lasting]).cummax(dim=0).values
            self._recent, self._held = peaks[len(frames) :], held[-1:]
            level = torch.maximum(held[1:], peaks[_HELD_FRAMES - 1 :])
            frames = frames * (_PEAK / level[:, None]).clamp(1.0, _MOST_GAIN)
            probabilities, self._state = self._network(frames, self._state)
        return probabilities.numpy()


class _Silero(nn.Module):
    """Spectrum, four convolutions over the four steps of a frame, an LSTM over frames."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.basis = weights["stft.forward_basis_buffer"]  # (258, 1, 256): real, then imaginary
        self.convolutions = [
            (weights[f"encoder.{i}.reparam_conv.weight"], weights[f"encoder.{i}.reparam_conv.bias"])
            for i in range(4)
        ]
        self.lstm = nn.LSTM(128, 128)
        self.lstm.load_state_dict(
            {
                f"{name}_l0": weights[f"decoder.rnn.{name}"]
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            }
        )
        self.head = weights["decoder.decoder.2.weight"][0, :, 0], weights["decoder.decoder.2.bias"]

    def forward(
        self, frames: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the probabilities (N,) of frames (N, 576), and the state after the last."""
        x = functional.pad(frames, (0, _CONTEXT), mode="reflect")[:, None]  # (N, 1, 640)
        real, imaginary = functional.conv1d(x, self.basis, stride=128).chunk(2, dim=1)
        x = (real.square() + imaginary.square()).sqrt()  # (N, 129, 4)
        for (weight, bias), stride in zip(self.convolutions, (1, 2, 2, 1), strict=True):
            x = functional.relu(functional.conv1d(x, weight, bias, stride=stride, padding=1))
        x, state = self.lstm(x.transpose(1, 2), state)  # (N, 1, 128)
        weight, bias = self.head
        return torch.sigmoid(functional.relu(x[:, 0]) @ weight + bias), state


@cache
def _silero() -> _Silero:
    # Found without importing the package, whose import sets the number of threads.
    spec = importlib.util.find_spec("silero_vad")
    folder = None if spec is None or spec.origin is None else Path(spec.origin).parent / "data"
    if folder is None or not (folder / "silero_vad.jit").exists():
        raise ModelError(
            "the weights of silero-vad are missing: install it (`pip install silero-vad`), or find "
            "speech by its level (`--vad energy`)."
        )
    script = torch.jit.load(str(folder / "silero_vad.jit"), map_location="cpu")
    prefix = "_model."
    weights = {
        name.removeprefix(prefix): value.detach().clone()
        for name, value in script.state_dict().items()
        if name.startswith(prefix)
    }
    return _Silero(weights).eval().requires_grad_(False)


class EnergyDetector:
    """Levels well above the lowest one of their ten seconds.

    Steady noise, hum and steady tones are no speech to it; music is.
    """

    def __init__(self) -> None:
        self._pending = np.zeros(0, np.float32)
        self._block = round(_FLOOR_SECONDS / FRAME_SECONDS) * FRAME

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take samples, as `Detector` says; they are judged ten seconds at a time."""
        self._pending = np.concatenate([self._pending, samples])
        found = []
        while len(self._pending) >= self._block:
            found.append(_level_probabilities(self._pending[: self._block]))
            self._pending = self._pending[self._block :]
        return np.concatenate(found) if found else np.zeros(0, np.float32)

    def finish(self) -> NDArray[np.float32]:
        """Return the probabilities of what is left, as `Detector` says."""
        left, self._pending = self._pending, np.zeros(0, np.float32)
        return _level_probabilities(left) if len(left) else np.zeros(0, np.float32)


def _level_probabilities(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    count = -(-len(samples) // FRAME)
    padded = np.zeros(count * FRAME)
    padded[: len(samples)] = samples
    power = np.square(padded.reshape(count, FRAME)).mean(axis=1)
    if len(samples) % FRAME:
        power[-1] *= FRAME / (len(samples) % FRAME)
    edges = np.pad(power, _SMOOTH_FRAMES // 2, mode="edge")
    smooth = np.convolve(edges, np.full(_SMOOTH_FRAMES, 1 / _SMOOTH_FRAMES), mode="valid")
    level = 10 * np.log10(smooth + 1e-12)  # dB of full scale
    threshold = max(_FAINTEST, level.min() + _ABOVE_FLOOR)
    return (1 / (1 + np.exp(threshold - level))).astype(np.float32)


class SpeechFrames:
    """Decide frame by frame: speech begins above one probability and ends below a lower one.

    What lasts less than a tenth of a second is none.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._run = 0  # frames of speech until now
        self._num_frames = 0
        self._num_possible = 0
        self._was_decided = False

    @property
    def was_heard(self) -> bool:
        """Whether there was any speech so far; in two seconds or less, a trace of it is enough.

        Words cut out of a recording without a breath around them are barely speech to a detector.
        """
        is_brief = self._num_frames * FRAME_SECONDS <= _BRIEF_SECONDS
        return self._was_decided or (is_brief and self._num_possible >= _POSSIBLE_FRAMES)

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Take the next samples (S,) at 16 kHz; return whether each frame so far due is speech."""
        return self._decide(self._detector.push(samples))

    def finish(self) -> NDArray[np.bool_]:
        """Return the decisions that the end of the recording completes."""
        decided = self._decide(self._detector.finish())
        left = self._run if self._run < _LEAST_FRAMES else 0
        return np.concatenate([decided, np.zeros(left, np.bool_)])

    def _decide(self, probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
        decided: list[bool] = []
        for probability in probabilities.tolist():
            if probability >= (_LEAVE if self._run else _ENTER):
                self._run += 1
                if self._run == _LEAST_FRAMES:
                    decided += [True] * _LEAST_FRAMES
                    self._was_decided = True
                elif self._run > _LEAST_FRAMES:
                    decided.append(True)
                continue
            if self._run < _LEAST_FRAMES:
                decided += [False] * self._run
            decided.append(False)
            self._run = 0
        self._num_frames += len(probabilities)
        self._num_possible += int((probabilities > _POSSIBLE).sum())
        return np.array(decided, np.bool_)
