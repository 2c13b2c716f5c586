"""Make a voice from recordings of one speaker: read, level, write in units, then join or train."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from speechjepa.audio.level import set_level
from speechjepa.data.synthetic.acoustics import record_elsewhere
from speechjepa.data.utterance import Utterance
from speechjepa.errors import AudioError, ConfigError, DataError
from speechjepa.inference.model import SpeechModel
from speechjepa.inference.recognise import Skipped, read_utterance, skip
from speechjepa.inference.selection_voice import RecordedUnits
from speechjepa.inference.units import check_encoder, encode_units
from speechjepa.inference.voice import Kind, SelectionVoice, VocoderVoice, Voice
from speechjepa.models.vocoder import CONTROL_RATE, VocoderConfig
from speechjepa.nn.source_filter import SAMPLE_RATE
from speechjepa.training.vocoder import VocoderTraining, train_vocoder
from speechjepa.units.kmeans import Units

Spoken = tuple[Tensor, NDArray[np.float32]]
"""Units (V, T), frame by frame, and waveform (S,) of a recording. The first row is what was heard;
the others are what would have been heard of other voices in other places."""
VERSIONS = 3
"""V"""
WIDEST = 0.2
"""Largest change of the frequencies for another voice (natural logarithm)."""


def fit_voice(
    model: SpeechModel,
    units: Units,
    utterances: Sequence[Utterance],
    kind: Kind,
    folder: Path,
    *,
    training: VocoderTraining | None = None,
    progress: Callable[[int, float], None] = lambda files, seconds: None,
) -> tuple[Voice, list[Skipped]]:
    """Make a voice of one speaker's recordings, and write it to a folder.

    Args:
        model: The encoder that the units were fitted with.
        units: What the voice is to speak.
        utterances: By one speaker, with or without text.
        kind: "selection" joins stretches of the recordings; "vocoder" is trained on them.
        folder: Where; an interrupted training there is gone on with.
        training: Of a vocoder; None = as it is by default.
        progress: Told how many recordings were heard, and their seconds.

    Returns:
        The voice, and the recordings that were left out.

    Raises:
        ConfigError: The rate of the units does not suit a voice.
        DataError: There is too little speech.
        ModelError: The units were made with another encoder.
    """
    check_encoder(model, units)
    if model.sample_rate != SAMPLE_RATE or CONTROL_RATE % units.frame_rate:
        raise ConfigError(
            f"a voice takes units at a divisor of {CONTROL_RATE} Hz from speech at {SAMPLE_RATE} "
            f"Hz, but these are at {units.frame_rate:g} Hz from {model.sample_rate} Hz"
        )
    recordings, skipped = hear(model, units, utterances, progress=progress)
    if not recordings:
        first = f": {skipped[0].audio_path}: {skipped[0].reason}" if skipped else ""
        raise DataError(f"no recording could be read of {len(utterances)}{first}")
    voice: Voice
    if kind == "selection":
        frame_samples = round(SAMPLE_RATE / units.frame_rate)
        voice = SelectionVoice(RecordedUnits.of(recordings, frame_samples), units)
    else:
        sizes = VocoderConfig(num_units=units.num_units, frame_rate=int(units.frame_rate))
        vocoder = train_vocoder(recordings, sizes, training or VocoderTraining(), folder)
        voice = VocoderVoice(vocoder, units)
    voice.save(folder)
    return voice, skipped


def hear(
    model: SpeechModel,
    units: Units,
    utterances: Sequence[Utterance],
    *,
    progress: Callable[[int, float], None] = lambda files, seconds: None,
) -> tuple[list[Spoken], list[Skipped]]:
    """Return units and levelled waveforms of recordings, and what could not be read."""
    recordings: list[Spoken] = []
    skipped: list[Skipped] = []
    for utterance in utterances:
        try:
            waveform = set_level(read_utterance(utterance, model.sample_rate))
        except AudioError as error:
            skipped.append(skip(utterance, error))
            continue
        heard = encode_units(model, units, torch.from_numpy(waveform))
        rows = [heard]
        for version in range(1, VERSIONS):
            draw = np.random.default_rng([version, len(recordings)])
            rows.append(_as_another(model, units, waveform, len(heard), draw))
        recordings.append((torch.stack(rows), waveform))
        progress(1, len(waveform) / model.sample_rate)
    return recordings, skipped


def _as_another(
    model: SpeechModel,
    units: Units,
    waveform: NDArray[np.float32],
    num_frames: int,
    draw: np.random.Generator,
) -> Tensor:
    """Return the units (T,) of speech as another voice elsewhere might have said it.

    A voice is to speak the units of anybody; made of one speaker's alone, it would not know those
    that others are heard as. Playing faster or slower moves all frequencies, as a shorter or a
    longer vocal tract does; frames are then counted at the old pace.
    """
    factor = float(np.exp(draw.uniform(-WIDEST, WIDEST)))
    other = soxr.resample(waveform, model.sample_rate * factor, model.sample_rate)
    other = record_elsewhere(other.astype(np.float32), draw, model.sample_rate)
    found = encode_units(model, units, torch.from_numpy(other))
    if not len(found):
        return torch.zeros(num_frames, dtype=torch.int64)
    places = ((torch.arange(num_frames) + 0.5) / factor).long()
    return found[places.clamp(max=len(found) - 1)]


def of_speaker(utterances: Sequence[Utterance], speaker: str | None) -> list[Utterance]:
    """Return one speaker's utterances; None = all, if no two are known to differ.

    Raises:
        DataError: There is no such speaker; or there are several, and none was asked for.
    """
    count = Counter(u.speaker for u in utterances if u.speaker is not None)
    listed = ", ".join(f"{name} ({number})" for name, number in count.most_common(10))
    if speaker is None:
        if len(count) > 1:
            raise DataError(
                f"a voice is one speaker's, but there are {len(count)}: {listed}; "
                "choose one with --speaker"
            )
        return list(utterances)
    if speaker not in count:
        raise DataError(f"there is no speaker {speaker!r}; there are: {listed or 'none named'}")
    return [utterance for utterance in utterances if utterance.speaker == speaker]
