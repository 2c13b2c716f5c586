"""Voices: units back to speech, at once or chunk by chunk."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speechjepa.errors import ModelError
from speechjepa.inference.selection_voice import RecordedUnits, UnitSelector, load_recorded
from speechjepa.inference.unit_costs import UnitCosts
from speechjepa.inference.unit_pace import Pace
from speechjepa.models.vocoder import UnitVocoder, load_vocoder, save_vocoder
from speechjepa.nn.source_filter import HOP, OVERHANG, SAMPLE_RATE, pulse_train
from speechjepa.units.kmeans import Units, load_units
from speechjepa.units.sequences import deduplicate, repeat

FORMAT_VERSION = 1
SETTINGS_FILE = "voice.json"
UNITS_FOLDER = "units"
_LOOK_AHEAD = "{:.3f} s, and {} more units when durations are not given"
LOWEST, HIGHEST = 5.5, 9.0
"""Pitches that are spoken: 45 to 512 Hz (log2 of Hz)."""

Kind = Literal["selection", "vocoder"]
IntSequence = Tensor | Sequence[int] | NDArray[np.int64]


class VoiceStream(ABC):
    """Speech that is made while its units are still coming.

    Args:
        num_units: K, of the units that the voice knows.
    """

    def __init__(self, num_units: int) -> None:
        self._num_units = num_units
        self._timed: bool | None = None
        self._ended = False

    def feed(self, units: IntSequence, durations: IntSequence | None = None) -> NDArray[np.float32]:
        """Take more units; return the speech (S,) that they settle, perhaps none yet.

        Args:
            units: (L,) between 0 and K - 1. Repetitions of a unit count as one that lasts.
            durations: (L,) frames of each, 1 or more; None = the voice decides. A stream has all
                durations or none.

        Raises:
            ModelError: Units or durations are not such; or the stream was flushed.
        """
        if self._ended:
            raise ModelError("this stream was flushed; start another")
        sequence = self._checked("units", units, 0, self._num_units - 1)
        if not len(sequence):
            return np.zeros(0, np.float32)
        if self._timed is not None and self._timed != (durations is not None):
            raise ModelError("a stream must be given durations always or never")
        self._timed = durations is not None
        if durations is None:
            return self._take_untimed(sequence)
        lasting = self._checked("durations", durations, 1, 10_000)
        if len(lasting) != len(sequence):
            raise ModelError(
                f"`durations` must be as many as `units` ({len(sequence)}), "
                f"but is {len(lasting)} instead"
            )
        return self._take(sequence, lasting)

    def flush(self) -> NDArray[np.float32]:
        """End the stream; return the rest of the speech (S,)."""
        if self._ended:
            raise ModelError("this stream was flushed; start another")
        self._ended = True
        return self._finish()

    def _checked(self, name: str, values: IntSequence, low: int, high: int) -> Tensor:
        found = torch.as_tensor(values)
        if found.dim() == 1 and not len(found):
            return torch.zeros(0, dtype=torch.int64)
        if found.dim() != 1 or found.is_floating_point() or found.dtype == torch.bool:
            raise ModelError(
                f"`{name}` must be (L,) whole numbers, but is {tuple(found.shape)} {found.dtype}"
            )
        wrong = found[(found < low) | (found > high)]
        if len(wrong):
            one = int(wrong[0])
            raise ModelError(f"`{name}` must be {low} to {high}, but one is {one} instead")
        return found.to("cpu", torch.int64)

    @abstractmethod
    def _take(self, units: Tensor, durations: Tensor) -> NDArray[np.float32]: ...

    @abstractmethod
    def _take_untimed(self, units: Tensor) -> NDArray[np.float32]: ...

    @abstractmethod
    def _finish(self) -> NDArray[np.float32]: ...


class Voice(ABC):
    """One voice that speaks units.

    Args:
        units: The units that it speaks.
    """

    kind: Kind
    sample_rate = SAMPLE_RATE

    def __init__(self, units: Units) -> None:
        self.units = units

    @property
    @abstractmethod
    def look_ahead(self) -> str:
        """What a stream must have heard before it speaks, in words."""

    @abstractmethod
    def stream(self) -> VoiceStream:
        """Return a stream of speech, silent so far."""

    def speak(
        self, units: IntSequence, durations: IntSequence | None = None
    ) -> NDArray[np.float32]:
        """Return the speech (S,) at 16 kHz of a sequence of units; arguments as `VoiceStream.feed`.

        The same units give the same samples, however they are fed.
        """
        stream = self.stream()
        return np.concatenate([stream.feed(units, durations), stream.flush()])

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the voice with its units to a folder; return it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.units.save(folder / UNITS_FOLDER)
        self._save_content(folder)
        entry = {"format_version": FORMAT_VERSION, "kind": self.kind}
        partial = folder / (SETTINGS_FILE + ".partial")
        partial.write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, folder / SETTINGS_FILE)
        return folder

    @abstractmethod
    def _save_content(self, folder: Path) -> None: ...


class VocoderVoice(Voice):
    """A voice that was trained.

    Args:
        vocoder: What was trained.
        units: The units that it speaks.
    """

    kind: Kind = "vocoder"

    def __init__(self, vocoder: UnitVocoder, units: Units) -> None:
        super().__init__(units)
        config = vocoder.config
        if (config.num_units, config.frame_rate) != (units.num_units, units.frame_rate):
            raise ModelError(
                f"the vocoder speaks {config.num_units} units at {config.frame_rate} Hz, but these "
                f"are {units.num_units} at {units.frame_rate:g} Hz; train it again"
            )
        self.vocoder = vocoder.eval()

    @property
    def look_ahead(self) -> str:
        config = self.vocoder.config
        seconds = config.context / config.frame_rate + (2 * HOP + OVERHANG) / SAMPLE_RATE
        return _LOOK_AHEAD.format(seconds, self.vocoder.durations.CONTEXT)

    def stream(self) -> VoiceStream:
        """Return a stream of speech, silent so far."""
        return VocoderStream(self.vocoder)

    def _save_content(self, folder: Path) -> None:
        save_vocoder(self.vocoder, folder)


class VocoderStream(VoiceStream):
    """Speech of a vocoder: frames once those around them are known, samples once final."""

    def __init__(self, vocoder: UnitVocoder) -> None:
        super().__init__(vocoder.config.num_units)
        self._vocoder = vocoder
        self._noise_source = np.random.default_rng(0)
        self._single: list[int] = []  # without durations: units, four before the next to be timed
        self._left_over = 0.0  # of a frame, from rounding durations
        self._frames: list[int] = []  # from `context` before the next frame to be made
        self._phase: Tensor | None = None
        self._pulses = torch.zeros(1, OVERHANG)
        self._noise = torch.zeros(1, OVERHANG)
        self._envelopes = torch.zeros(1, 0, 2, vocoder.config.num_bands)
        self._tail = torch.zeros(2 * OVERHANG)
        self._too_early = OVERHANG  # samples before the first

    def _take(self, units: Tensor, durations: Tensor) -> NDArray[np.float32]:
        frames = repeat(units, durations).tolist()
        if not self._frames:
            self._frames = [frames[0]] * self._vocoder.config.context
        self._frames += frames
        return self._speak_frames()

    def _take_untimed(self, units: Tensor) -> NDArray[np.float32]:
        single = deduplicate(units)[0].tolist()
        around = self._vocoder.durations.CONTEXT
        if not self._single:
            self._single = [single[0]] * around
        elif single[0] == self._single[-1]:
            single = single[1:]
        self._single += single
        return self._time()

    def _finish(self) -> NDArray[np.float32]:
        pieces = []
        if self._single:
            self._single += [self._single[-1]] * self._vocoder.durations.CONTEXT
            pieces.append(self._time())
        if self._frames:
            self._frames += [self._frames[-1]] * self._vocoder.config.context
            pieces.append(self._speak_frames())
            after = torch.zeros(1, OVERHANG)
            self._pulses = torch.cat([self._pulses, after], dim=1)
            self._noise = torch.cat([self._noise, after], dim=1)
            pieces += [self._overlap(), self._tail[:OVERHANG].numpy()]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)

    @torch.no_grad()
    def _time(self) -> NDArray[np.float32]:
        """Give durations to the units that have enough neighbours by now."""
        around = self._vocoder.durations.CONTEXT
        ready = len(self._single) - 2 * around
        if ready <= 0:
            return np.zeros(0, np.float32)
        predicted = self._vocoder.durations(torch.tensor([self._single]))[0].exp()
        durations = []
        for frames in predicted.tolist():
            whole, self._left_over = whole_frames(frames, self._left_over)
            durations.append(whole)
        units = torch.tensor(self._single[around : around + ready])
        self._single = self._single[ready:]
        return self._take(units, torch.tensor(durations))

    @torch.no_grad()
    def _speak_frames(self) -> NDArray[np.float32]:
        """Make the control frames whose neighbours are known, and what they settle."""
        ready = len(self._frames) - 2 * self._vocoder.config.context
        if ready <= 0:
            return np.zeros(0, np.float32)
        controls = self._vocoder.controls(torch.tensor([self._frames]))
        self._frames = self._frames[ready:]
        hertz = torch.exp2(controls.pitch.clamp(LOWEST, HIGHEST))
        pulses, self._phase = pulse_train(hertz, self._phase)
        noise = self._noise_source.standard_normal(pulses.shape[1], np.float32)
        self._pulses = torch.cat([self._pulses, pulses], dim=1)
        self._noise = torch.cat([self._noise, torch.from_numpy(noise)[None]], dim=1)
        self._envelopes = torch.cat([self._envelopes, controls.envelopes], dim=1)
        return self._overlap()

    @torch.no_grad()
    def _overlap(self) -> NDArray[np.float32]:
        """Filter the frames whose windows are whole, and return the samples that none reaches."""
        ready = (self._pulses.shape[1] - 2 * OVERHANG) // HOP
        if ready <= 0:
            return np.zeros(0, np.float32)
        size = HOP * ready + 2 * OVERHANG
        joined = self._vocoder.source_filter(
            self._pulses[:, :size], self._noise[:, :size], self._envelopes[:, :ready]
        )[0]
        joined[: 2 * OVERHANG] += self._tail
        self._tail = joined[HOP * ready :].clone()
        self._pulses = self._pulses[:, HOP * ready :]
        self._noise = self._noise[:, HOP * ready :]
        self._envelopes = self._envelopes[:, ready:]
        settled = joined[: HOP * ready][self._too_early :]
        self._too_early = max(0, self._too_early - HOP * ready)
        return settled.clamp(-1.0, 1.0).numpy()


class SelectionVoice(Voice):
    """A voice that joins stretches of a speaker's own recordings.

    Args:
        recorded: The recordings.
        units: The units that it speaks.
    """

    kind: Kind = "selection"

    def __init__(self, recorded: RecordedUnits, units: Units) -> None:
        super().__init__(units)
        if recorded.units.max() >= units.num_units:
            raise ModelError(
                f"the recordings hold unit {recorded.units.max()}, but there are "
                f"{units.num_units}; make the voice again"
            )
        self.recorded = recorded
        self._pace = recorded.pace()
        self.costs = UnitCosts(recorded.units, units.centroids, recorded.per_step)

    @property
    def look_ahead(self) -> str:
        seconds = UnitSelector.LOOK_AHEAD * self.recorded.step_samples / SAMPLE_RATE
        return _LOOK_AHEAD.format(seconds, Pace.CONTEXT)

    def stream(self) -> VoiceStream:
        """Return a stream of speech, silent so far."""
        return SelectionStream(self.recorded, self.costs, self._pace)

    def _save_content(self, folder: Path) -> None:
        self.recorded.save(folder)


class SelectionStream(VoiceStream):
    """Speech joined from recordings: a frame is spoken once those after it are known."""

    def __init__(self, recorded: RecordedUnits, costs: UnitCosts, pace: Pace) -> None:
        super().__init__(costs.num_units)
        self._selector = UnitSelector(recorded, costs)
        self._pace = pace
        # Without durations: units, from `CONTEXT` before the next to be timed.
        self._single: list[int | None] = [None] * Pace.CONTEXT
        self._left_over = 0.0  # of a frame, from rounding durations

    def _take(self, units: Tensor, durations: Tensor) -> NDArray[np.float32]:
        pieces = [self._selector.add(unit) for unit in repeat(units, durations).tolist()]
        return np.concatenate([np.zeros(0, np.float32), *pieces])

    def _take_untimed(self, units: Tensor) -> NDArray[np.float32]:
        for unit in deduplicate(units)[0].tolist():
            if unit != self._single[-1]:
                self._single.append(unit)
        return self._time()

    def _time(self) -> NDArray[np.float32]:
        """Speak the units whose neighbours are known."""
        pieces = [np.zeros(0, np.float32)]
        while len(self._single) > 2 * Pace.CONTEXT:
            window = tuple(self._single[: 2 * Pace.CONTEXT + 1])
            unit = window[Pace.CONTEXT]
            assert unit is not None
            frames, self._left_over = whole_frames(self._pace.frames(window), self._left_over)
            pieces += [self._selector.add(unit) for _ in range(frames)]
            del self._single[0]
        return np.concatenate(pieces)

    def _finish(self) -> NDArray[np.float32]:
        self._single += [None] * Pace.CONTEXT
        return np.concatenate([self._time(), self._selector.finish()])


def whole_frames(wanted: float, left_over: float) -> tuple[int, float]:
    """Round a duration to 1 frame or more; return it and what is left over for the next.

    Part frames carry over, so that speech keeps its pace; a unit made long does not.
    """
    frames = max(1, round(wanted + left_over))
    return frames, min(0.5, max(-0.5, wanted + left_over - frames))


def load_voice(folder: str | os.PathLike[str]) -> Voice:
    """Read a voice that `Voice.save` wrote.

    Raises:
        ModelError: The folder does not hold one, or a damaged one.
    """
    folder = Path(folder)
    path = folder / SETTINGS_FILE
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{folder}: holds no {SETTINGS_FILE}; `speechjepa voice fit` makes a voice"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    version = entry.get("format_version") if isinstance(entry, dict) else None
    if version != FORMAT_VERSION:
        raise ModelError(
            f"{path}: `format_version` must be {FORMAT_VERSION}, but is {version!r} instead"
        )
    units = load_units(folder / UNITS_FOLDER)
    if entry.get("kind") == "vocoder":
        return VocoderVoice(load_vocoder(folder), units)
    if entry.get("kind") == "selection":
        return SelectionVoice(load_recorded(folder), units)
    raise ModelError(
        f"{path}: `kind` must be selection or vocoder, but is {entry.get('kind')!r} instead"
    )
