"""Unit selection: which stretches of a speaker's recordings to join, and how."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from speechjepa.audio.features import LogMel
from speechjepa.audio.pitch import track_pitch
from speechjepa.errors import DataError, ModelError
from speechjepa.inference.unit_costs import UNIT, UnitCosts
from speechjepa.inference.unit_pace import Pace
from speechjepa.nn.tensor_files import save_tensors

AUDIO_FILE = "recordings.flac"
INDEX_FILE = "recordings.safetensors"
SAMPLE_RATE = 16000
LEAST_SECONDS = 60.0
"""Audio below which no voice is made (seconds)."""
STEP_SAMPLES = 640
"""Shortest stretch that may be taken (samples at 16 kHz): about half a phone."""
GAP = 800
"""Silence between recordings (samples)."""
FADE = 80
"""Samples on either side of a join over which one stretch fades into the next."""
SHIFT = 80
"""Samples by which the next stretch may be moved so that its periods meet those before."""
_NUM_MELS = 40


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordedUnits:
    """What a speaker said, in units: N frames, recording after recording.

    Stretches begin and end on steps of 40 ms, of one frame or more: M = N / frames per step.
    """

    audio: NDArray[np.int16]
    """(S,) all recordings at 16 kHz, with silence between them."""
    units: NDArray[np.int64]
    """(V, N): what was heard, and what would have been heard of other voices in other places."""
    starts: NDArray[np.int64]
    """(M,) first sample of each step."""
    recordings: NDArray[np.int64]
    """(M,) number of the recording that a step is of."""
    edges: NDArray[np.float32]
    """(M, 2, F) what is heard at the start and the end of each step: log-mel frames before and
    after, and pitch."""
    frame_samples: int
    """Samples per frame."""

    @classmethod
    def of(
        cls, recordings: Sequence[tuple[Tensor, NDArray[np.float32]]], frame_samples: int
    ) -> RecordedUnits:
        """Index recordings.

        Args:
            recordings: Units (V, T), frame by frame, and waveform (S,) at 16 kHz of each.
            frame_samples: Samples per frame of the units, a multiple of 160.

        Raises:
            DataError: There is less than a minute of audio.
        """
        audio, heard, rows = [np.zeros(GAP, np.int16)], [], []
        position, seconds = GAP, 0.0
        for number, (sequence, waveform) in enumerate(recordings):
            per_step = frames_per_step(frame_samples)
            num_steps = min(sequence.shape[1], len(waveform) // frame_samples) // per_step
            if num_steps == 0:
                continue
            size = per_step * frame_samples
            edges = _edges(waveform, np.arange(num_steps + 1) * size // 160)
            heard.append(sequence[:, : num_steps * per_step].numpy())
            starts = position + np.arange(num_steps) * size
            both = np.stack([edges[:-1], edges[1:]], axis=1)
            rows.append((starts, np.full(num_steps, number), both))
            samples = np.round(np.clip(waveform, -1, 1) * 32767).astype(np.int16)
            audio += [samples, np.zeros(GAP, np.int16)]
            position += len(samples) + GAP
            seconds += len(samples) / SAMPLE_RATE
        if seconds < LEAST_SECONDS:
            raise DataError(
                f"a voice needs {LEAST_SECONDS:g} s of speech or more to be joined from, minutes "
                f"to sound well, but there are {seconds:.1f} s"
            )
        columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
        return cls(
            audio=np.concatenate(audio),
            units=np.concatenate(heard, axis=1),
            starts=columns[0],
            recordings=columns[1],
            edges=columns[2].astype(np.float16).astype(np.float32),
            frame_samples=frame_samples,
        )

    @property
    def per_step(self) -> int:
        """Frames per step."""
        return frames_per_step(self.frame_samples)

    @property
    def step_samples(self) -> int:
        """Samples per step."""
        return self.per_step * self.frame_samples

    @property
    def goes_on(self) -> NDArray[np.bool_]:
        """(M,) whether the next step is of the same recording."""
        return np.append(self.recordings[1:] == self.recordings[:-1], False)

    def pace(self) -> Pace:
        """Return how long units last between others."""
        return Pace(self.units[0], np.repeat(self.recordings, self.per_step))

    def save(self, folder: Path) -> None:
        """Write the recordings and their index."""
        index = {
            "units": torch.from_numpy(self.units).to(torch.int32),
            "starts": torch.from_numpy(self.starts),
            "recordings": torch.from_numpy(self.recordings).to(torch.int32),
            "edges": torch.from_numpy(self.edges).half(),
            "frame_samples": torch.tensor([self.frame_samples]),
        }
        audio, table = (folder / (name + ".partial") for name in (AUDIO_FILE, INDEX_FILE))
        with open(audio, "wb") as handle:
            soundfile.write(handle, self.audio, SAMPLE_RATE, "PCM_16", format="FLAC")
        save_tensors({name: tensor.contiguous() for name, tensor in index.items()}, table)
        os.replace(audio, folder / AUDIO_FILE)
        os.replace(table, folder / INDEX_FILE)


def frames_per_step(frame_samples: int) -> int:
    """Return how many frames make a step of 40 ms, one at least."""
    return max(1, STEP_SAMPLES // frame_samples)


def load_recorded(folder: Path) -> RecordedUnits:
    """Read what `RecordedUnits.save` wrote.

    Raises:
        ModelError: It is not there, or damaged.
    """
    try:
        index = load_file(folder / INDEX_FILE)
        audio, _ = soundfile.read(folder / AUDIO_FILE, dtype="int16")
        values = {name: tensor.numpy() for name, tensor in index.items()}
        recorded = RecordedUnits(
            audio=audio,
            units=values["units"].astype(np.int64),
            starts=values["starts"],
            recordings=values["recordings"].astype(np.int64),
            edges=values["edges"].astype(np.float32),
            frame_samples=int(values["frame_samples"][0]),
        )
    except (OSError, KeyError, SafetensorError, soundfile.SoundFileError) as error:
        raise ModelError(f"{folder}: the recordings cannot be read: {error}") from error
    steps = (len(recorded.starts), len(recorded.recordings), recorded.units.shape[-1])
    if recorded.units.ndim != 2 or {n * recorded.per_step for n in steps[:2]} != {steps[2]}:
        raise ModelError(f"{folder / INDEX_FILE}: its parts do not fit; make the voice again")
    end = recorded.starts[-1] + recorded.step_samples
    if len(audio) < end:
        raise ModelError(
            f"{folder / AUDIO_FILE}: must hold {end} samples as {INDEX_FILE} says, but holds "
            f"{len(audio)} instead; make the voice again"
        )
    return recorded


def _edges(waveform: NDArray[np.float32], frames: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return (N, 2 * 40 + 1): the log-mel frames before and after places (N,), in units of 10 ms,
    each over its own deviation in speech, and the pitch there (octaves)."""
    mel = LogMel(_NUM_MELS, normalization="global")(
        torch.from_numpy(waveform)[None], torch.tensor([len(waveform)])
    )[0][0].numpy()
    hertz = track_pitch(waveform).hertz
    before = np.clip(frames - 1, 0, len(mel) - 1)
    after = np.clip(frames, 0, len(mel) - 1)
    pitch = np.log2(np.maximum(hertz[after], 50.0))[:, None]
    return np.concatenate([mel[before], mel[after], pitch], axis=1)


class UnitSelector:
    """Choose recorded steps for units, and join them.

    The least sum of target costs (the units around are others) and join costs (spectra and pitch
    on the two sides differ) by the Viterbi algorithm, after Hunt and Black, 1996
    (https://doi.org/10.1109/ICASSP.1996.541110). Steps that go on as they were recorded cost
    nothing to join, so stretches come out as long as they fit. Units cost what their centroids
    differ by, since voices rarely agree on the nearest one. A step is chosen for good once a
    dozen more are known: speech of any length needs a bounded memory, and comes out as it goes.

    Args:
        recorded: What may be joined.
        costs: Of the units in it.
    """

    BEAM = 60
    """Steps considered each time, besides those that go on."""
    SETTLED = 12
    """Steps after which a choice is for good."""
    AROUND = (0.25, 0.5, 0.8, 1.0, 0.8, 0.5, 0.25)
    """What the units of the steps before, at and after one weigh."""
    OUTSIDE = 3.0
    """How unlikely any unit is before the first and after the last recording (nats)."""
    REACH = len(AROUND) // 2
    LOOK_AHEAD = SETTLED + REACH
    """Steps that must be known before one is spoken."""
    JOIN, JOIN_SPECTRUM, JOIN_PITCH = 1.0, 1.0, 1.5
    """Costs of any join, of its distance in spectra (nepers), of each octave."""

    def __init__(self, recorded: RecordedUnits, costs: UnitCosts) -> None:
        self._recorded = recorded
        self._costs = costs
        self._goes_on = recorded.goes_on
        self._per_step = recorded.per_step
        weights = np.repeat(self.AROUND, self._per_step) / self._per_step
        self._weights = weights.astype(np.float32).tolist()
        # Units from `REACH` steps before the next to be judged; None = before or after all speech.
        self._window: list[int | None] = [None] * (self.REACH * self._per_step)
        self._num_frames = 0
        self._columns: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []  # steps, came from
        self._total = np.zeros(0, np.float32)
        self._joiner = _Joiner(recorded)

    def add(self, unit: int) -> NDArray[np.float32]:
        """Take the unit of the next frame; return the samples that it settles."""
        self._num_frames += 1
        return self._take(unit)

    def finish(self) -> NDArray[np.float32]:
        """Return the rest of the samples."""
        if not self._num_frames:
            return np.zeros(0, np.float32)
        missing = -self._num_frames % self._per_step  # of the last step
        pieces = [self._take(None) for _ in range(missing + self.REACH * self._per_step)]
        pieces += [self._settle() for _ in range(len(self._columns))]
        spoken = np.concatenate([*pieces, self._joiner.finish()])
        return spoken[: len(spoken) - missing * self._recorded.frame_samples]

    def _take(self, unit: int | None) -> NDArray[np.float32]:
        self._window.append(unit)
        if len(self._window) < len(self._weights):
            return np.zeros(0, np.float32)
        return self._judge()

    def _judge(self) -> NDArray[np.float32]:
        """Consider the steps that may stand for the units in the middle of the window."""
        cost = self._target_costs()
        chosen = np.argpartition(cost, min(self.BEAM, len(cost)) - 1)[: self.BEAM]
        if self._columns:
            before = self._columns[-1][0]
            alive = np.isfinite(self._total) & self._goes_on[before]
            chosen = np.union1d(chosen, before[alive] + 1)
            joined = self._total[:, None] + self._join_costs(before, chosen)
            came = joined.argmin(axis=0)
            self._total = joined[came, np.arange(len(chosen))] + cost[chosen]
        else:
            came = np.zeros(len(chosen), np.int64)
            self._total = cost[chosen]
        if len(chosen) > 2 * self.BEAM:  # those that go on must not grow without bounds
            kept = np.sort(np.argpartition(self._total, 2 * self.BEAM)[: 2 * self.BEAM])
            chosen, came, self._total = chosen[kept], came[kept], self._total[kept]
        self._columns.append((chosen, came))
        self._window = self._window[self._per_step :]
        return self._settle() if len(self._columns) > self.SETTLED else np.zeros(0, np.float32)

    def _target_costs(self) -> NDArray[np.float32]:
        """Return (M,) how unlikely the units of the window are around every recorded step."""
        cost = np.zeros(len(self._recorded.starts), np.float32)
        for place, (unit, weight) in enumerate(zip(self._window, self._weights, strict=True)):
            if unit is None:
                continue
            steps, part = divmod(place, self._per_step)
            away, shift = self._costs.of(unit)[part], steps - self.REACH
            first, end = max(0, -shift), len(cost) - max(0, shift)
            cost[first:end] += weight * away[first + shift : end + shift]
            cost[:first] += weight * UNIT * self.OUTSIDE
            cost[end:] += weight * UNIT * self.OUTSIDE
        return cost

    def _join_costs(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return (N, M) costs of speaking steps (M,) after steps (N,)."""
        ends, starts = self._recorded.edges[left, 1], self._recorded.edges[right, 0]
        spectra = [ends[:, :-1], starts[:, :-1]]
        # Root mean square of the differences, by a product of matrices.
        square = np.square(spectra[0]).sum(1)[:, None] + np.square(spectra[1]).sum(1)[None, :]
        square = square - 2 * spectra[0] @ spectra[1].T
        spectrum = np.sqrt(np.maximum(square, 0.0) / spectra[0].shape[1])
        pitch = np.abs(ends[:, None, -1] - starts[None, :, -1])
        cost = self.JOIN + self.JOIN_SPECTRUM * spectrum + self.JOIN_PITCH * pitch
        goes_on = (left[:, None] + 1 == right[None, :]) & self._goes_on[left][:, None]
        return np.where(goes_on, 0.0, cost).astype(np.float32)

    def _settle(self) -> NDArray[np.float32]:
        """Choose the first step in wait for good, and join it."""
        place = np.arange(len(self._total))
        for _, came in reversed(self._columns[1:]):
            place = came[place]
        first = int(place[self._total.argmin()])
        # What does not descend from the choice can no longer be reached.
        self._total = np.where(place == first, self._total, np.inf) - self._total.min()
        step = int(self._columns[0][0][first])
        self._columns = self._columns[1:]
        return self._joiner.add(step)


class _Joiner:
    """Copy steps one after the other; where one does not go on from the last, fade into it."""

    def __init__(self, recorded: RecordedUnits) -> None:
        self._recorded = recorded
        self._audio = recorded.audio
        self._last: int | None = None  # where the last step starts
        self._position = 0  # in the audio, of the next sample to be copied
        ramp = (np.arange(2 * FADE) + 0.5) / (2 * FADE)
        self._rise = (0.5 - 0.5 * np.cos(np.pi * ramp)).astype(np.float32)

    def add(self, step: int) -> NDArray[np.float32]:
        """Return the samples up to just before the end of a step."""
        start = int(self._recorded.starts[step])
        pieces = []
        if self._last is None:
            self._position = start
        elif start != self._last + self._recorded.step_samples:
            pieces.append(self._fade_into(start))
        self._last = start
        end = start + self._recorded.step_samples - FADE
        pieces.append(self._copy(self._position, end))
        self._position = end
        return np.concatenate(pieces)

    def finish(self) -> NDArray[np.float32]:
        """Return what is left of the last step."""
        if self._last is None:
            return np.zeros(0, np.float32)
        return self._copy(self._position, self._position + FADE)

    def _fade_into(self, start: int) -> NDArray[np.float32]:
        """Return the samples around a join, and go on after them in the new stretch."""
        old = self._copy(self._position, self._position + 2 * FADE)
        around = self._copy(start - FADE - SHIFT, start + FADE + SHIFT)
        views = np.lib.stride_tricks.sliding_window_view(around, 2 * FADE)
        norms = np.sqrt(np.square(views).sum(axis=1)) + 1e-3
        shift = int((views @ old / norms).argmax())
        self._position = start + FADE + shift - SHIFT
        return old + self._rise * (views[shift] - old)

    def _copy(self, first: int, end: int) -> NDArray[np.float32]:
        return self._audio[first : max(first, end)].astype(np.float32) / np.float32(32767)
