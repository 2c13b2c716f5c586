"""Voices: what they say, chunk by chunk as at once, on disk and from the command line."""

from __future__ import annotations

import json
import re
from functools import lru_cache

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from speechjepa.cli.main import main
from speechjepa.errors import DataError, ModelError
from speechjepa.inference import selection_voice, unit_costs
from speechjepa.inference.selection_voice import GAP, RecordedUnits, UnitSelector
from speechjepa.inference.unit_costs import UnitCosts
from speechjepa.inference.unit_pace import Pace
from speechjepa.inference.voice import SelectionVoice, VocoderVoice, load_voice
from speechjepa.models.vocoder import UnitVocoder, VocoderConfig
from speechjepa.units.kmeans import Units

FRAME = 640
NUM_UNITS = 5
PITCHES = (0.0, 210.0, 340.0, 520.0, 790.0)
"""What each unit sounds like (Hz); unit 0 is silence."""


def _units(rate: int = 25) -> Units:
    zeros, ones = torch.zeros(NUM_UNITS), torch.ones(NUM_UNITS)
    return Units(centroids=torch.eye(NUM_UNITS), mean=zeros, scale=ones, frame_rate=rate)


def _say(frames) -> np.ndarray:
    """Return tones for units, frame by frame."""
    hertz = np.repeat([PITCHES[unit] for unit in frames], FRAME)
    return (0.3 * np.sin(2 * np.pi * np.cumsum(hertz) / 16000)).astype(np.float32)


def _recordings(seed: int = 0, count: int = 14):
    """Return a minute or more of units, each two to four frames long, and their sound."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        order = draw.integers(0, NUM_UNITS, 50)
        order = order[np.flatnonzero(np.diff(order, prepend=-1))]
        frames = np.repeat(order, draw.integers(2, 5, len(order)))
        found.append((torch.from_numpy(frames)[None], _say(frames)))
    return found


@lru_cache
def _recorded() -> RecordedUnits:
    return RecordedUnits.of(_recordings(), FRAME)


def _selection() -> SelectionVoice:
    return SelectionVoice(_recorded(), _units())


def _vocoder(rate: int = 25) -> VocoderVoice:
    torch.manual_seed(0)
    sizes = VocoderConfig(
        num_units=NUM_UNITS, frame_rate=rate, width=16, unit_layers=2, num_bands=20
    )
    vocoder = UnitVocoder(sizes)
    for parameter in vocoder.parameters():  # else every unit sounds the same
        parameter.data += 0.05 * torch.randn_like(parameter)
    return VocoderVoice(vocoder, _units(rate))


@lru_cache
def _finely_recorded() -> RecordedUnits:
    fine = [(units.repeat_interleave(4, dim=1), wave) for units, wave in _recordings()]
    return RecordedUnits.of(fine, FRAME // 4)


VOICES = {
    "selection": _selection,
    "vocoder": _vocoder,
    "selection at 100 Hz": lambda: SelectionVoice(_finely_recorded(), _units(rate=100)),
    "vocoder at 100 Hz": lambda: _vocoder(rate=100),
}


@pytest.fixture(params=VOICES)
def voice(request):
    return VOICES[request.param]()


def test_how_long_a_stream_waits_is_said_in_words(voice) -> None:
    form = r"0\.\d{3} s, and \d more units when durations are not given"
    assert re.fullmatch(form, voice.look_ahead)


def _feed(voice, units, durations, sizes):
    stream = voice.stream()
    pieces, first = [], 0
    for size in [*sizes, len(units)]:
        part = slice(first, first + size)
        pieces.append(stream.feed(units[part], None if durations is None else durations[part]))
        first += size
    return np.concatenate([*pieces, stream.flush()])


UNITS = [0, 3, 1, 4, 2, 1, 3, 0, 2, 4, 1, 0, 3, 2, 1, 4, 3, 0]
DURATIONS = [5, 2, 3, 1, 2, 4, 2, 3, 2, 2, 1, 3, 2, 3, 2, 2, 1, 4]


@pytest.mark.parametrize("durations", [None, DURATIONS])
@pytest.mark.parametrize("sizes", [[1] * 17, [7, 2, 5], [18]])
def test_a_stream_says_what_is_said_at_once(voice, durations, sizes) -> None:
    whole = voice.speak(UNITS, durations)
    parts = _feed(voice, UNITS, durations, sizes)
    assert whole.dtype == np.float32 and len(whole) > 2000
    assert whole.shape == parts.shape
    np.testing.assert_allclose(parts, whole, atol=2e-4)  # phases add up rounding


def test_a_stream_speaks_before_it_has_heard_everything(voice) -> None:
    stream = voice.stream()
    units, durations = UNITS * 4, DURATIONS * 4
    spoken = [len(stream.feed([u], [d])) for u, d in zip(units, durations, strict=True)]
    waiting = sum(durations) * 16000 / voice.units.frame_rate - sum(spoken)
    assert sum(spoken) > 0
    assert waiting < 2 * 16000  # and never keeps more than a bounded look-ahead
    assert stream.flush().size > 0
    with pytest.raises(ModelError, match="was flushed"):
        stream.feed([1])


def test_given_durations_are_kept_by_the_vocoder() -> None:
    assert len(_vocoder().speak(UNITS, DURATIONS)) == sum(DURATIONS) * FRAME


def test_repeated_units_are_one_that_lasts(voice) -> None:
    once = voice.speak([0, 1, 2, 0], [4, 4, 4, 4])
    np.testing.assert_allclose(voice.speak([0, 0, 1, 2, 2, 0], [2, 2, 4, 1, 3, 4]), once, atol=2e-5)
    free = voice.speak([0, 1, 2, 0])
    np.testing.assert_allclose(voice.speak([0, 0, 1, 1, 2, 0]), free, atol=2e-5)


def test_nothing_is_silence(voice) -> None:
    assert voice.speak([]).shape == (0,)


def test_what_is_no_unit_is_refused(voice) -> None:
    for units, durations, message in (
        ([0, 5], None, "0 to 4, but one is 5"),
        ([-1], None, "0 to 4, but one is -1"),
        ([0.5], None, "whole numbers"),
        ([1, 2], [1], r"as many as `units` \(2\), but is 1"),
        ([1], [0], "`durations` must be 1 to 10000, but one is 0"),
    ):
        with pytest.raises(ModelError, match=message):
            voice.speak(units, durations)
    stream = voice.stream()
    stream.feed([1, 2])
    with pytest.raises(ModelError, match="always or never"):
        stream.feed([1], [2])


def test_a_voice_comes_back_from_disk(voice, tmp_path) -> None:
    again = load_voice(voice.save(tmp_path / "voice"))
    assert again.kind == voice.kind
    expected = voice.speak(UNITS, DURATIONS)
    np.testing.assert_allclose(again.speak(UNITS, DURATIONS), expected, atol=2e-5)


def test_a_damaged_voice_is_named(voice, tmp_path) -> None:
    with pytest.raises(ModelError, match=r"holds no voice.json; `speechjepa voice fit`"):
        load_voice(tmp_path)
    folder = voice.save(tmp_path)
    content = {"selection": "recordings.flac", "vocoder": "vocoder.safetensors"}[voice.kind]
    (folder / content).write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be read"):
        load_voice(folder)
    (folder / "voice.json").write_text(json.dumps({"format_version": 1, "kind": "choir"}))
    with pytest.raises(ModelError, match="selection or vocoder, but is 'choir'"):
        load_voice(folder)


@pytest.mark.parametrize("name", ["units", "recordings"])
def test_an_index_whose_parts_do_not_fit_is_refused(name, tmp_path) -> None:
    folder = _selection().save(tmp_path)
    path = folder / selection_voice.INDEX_FILE
    parts = load_file(path)
    save_file(parts | {name: parts[name][..., :-1].contiguous()}, path)
    with pytest.raises(ModelError, match="parts do not fit; make the voice again"):
        load_voice(folder)


def test_a_recorded_sequence_is_found_whole() -> None:
    recordings = _recordings()
    voice = _selection()
    frames, waveform = recordings[3]
    units, durations = torch.unique_consecutive(frames[0], return_counts=True)
    spoken = voice.speak(units, durations)
    assert spoken.shape == waveform.shape
    np.testing.assert_allclose(spoken, waveform, atol=2e-4)


def test_joined_stretches_sound_as_their_units_and_do_not_click() -> None:
    voice = _selection()
    frames = np.repeat(UNITS, 3)
    spoken = voice.speak(UNITS, [3] * len(UNITS))
    assert abs(len(spoken) - FRAME * len(frames)) < 80 * len(UNITS)  # joins move by 5 ms at most
    # A tone of 790 Hz and amplitude 0.3 changes by 0.093 from sample to sample; a click by more.
    assert np.abs(np.diff(spoken)).max() < 0.12
    voiced = _selection().speak([1, 4, 1], [4, 4, 4])
    spectrum = np.abs(np.fft.rfft(voiced * np.hanning(len(voiced))))
    loudest = np.argsort(spectrum)[::-1][:6] * 16000 / len(voiced)
    assert {min(PITCHES, key=lambda p: abs(p - hertz)) for hertz in loudest} <= {210.0, 790.0}


def test_for_a_unit_that_was_never_said_the_nearest_is_likeliest() -> None:
    centroids = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0], [3.9]])
    recorded = _recorded()
    cost = UnitCosts(recorded.units, centroids, recorded.per_step).of(5)[0]
    assert set(_recorded().units[0, cost == cost.min()].tolist()) == {4}


def test_costs_of_units_are_found_once_for_all_that_a_voice_says() -> None:
    voice = _selection()
    first, second = voice.stream(), voice.stream()
    assert first._selector._costs is second._selector._costs is voice.costs
    assert voice.costs.of(1) is voice.costs.of(1)


def test_the_cheapest_path_is_chosen_for_good_only_when_enough_is_known() -> None:
    recorded = _recorded()
    costs = UnitCosts(recorded.units, torch.eye(NUM_UNITS), recorded.per_step)
    selector = UnitSelector(recorded, costs)
    waits = [len(selector.add(unit)) == 0 for unit in UNITS]
    assert waits.index(False) == UnitSelector.LOOK_AHEAD


def test_too_little_audio_makes_no_voice() -> None:
    with pytest.raises(DataError, match=r"60 s of speech or more .* there are 1\d\.\d s"):
        RecordedUnits.of(_recordings(count=2), FRAME)


def test_recordings_lie_apart() -> None:
    recorded = _recorded()
    assert not recorded.audio[:GAP].any()
    for frame in np.flatnonzero(np.diff(recorded.recordings)):
        assert recorded.starts[frame + 1] - recorded.starts[frame] == FRAME + GAP


def test_units_that_voices_confuse_are_likely_for_each_other() -> None:
    # Unit 3 is heard of other voices as 4 every time, 1 always as itself.
    units = np.array([[3, 1] * 500, [4, 1] * 500])
    surprise = unit_costs._surprise(units, torch.eye(NUM_UNITS))
    np.testing.assert_allclose(np.exp(-surprise).sum(axis=0), 1.0, rtol=1e-5)
    assert surprise[4, 3] < 0.1 and surprise[3, 4] < 0.1 and surprise[1, 1] < 0.1
    assert surprise[3, 1] > 3
    # Nothing was heard of 0 and 2, which lie as far from 1 as 3 does: themselves are likeliest.
    assert surprise[0].argmin() == 0 and surprise[2].argmin() == 2


def test_a_unit_lasts_as_long_as_it_did_between_the_same_neighbours() -> None:
    first, second = [0, 0, 1, 0, 2, 2, 2], [1, 1, 0, 0, 0, 0, 1]
    owners = np.repeat([0, 1], [len(first), len(second)])
    pace = Pace(np.array(first + second), owners)
    outside = (None,)

    def lasts(*window: int | None) -> float:
        around = (2 * Pace.CONTEXT + 1 - len(window)) // 2
        return pace.frames((7,) * around + window + (7,) * around)

    assert pace.frames((None, None, None, 0, 1, 0, 2)) == 2.0  # as it begins the first recording
    assert lasts(1, 0, 2) == 1.0 and lasts(1, 0, 1) == 4.0
    # Between others, the mean of all: 2, 1 and 4 frames.
    assert lasts(0) == pytest.approx(7 / 3)
    # Recordings do not go on into each other: 2 was never said before 1.
    assert lasts(0, 2, 1) == lasts(2) == 3.0
    assert lasts(*outside, 1, 0) == 2.0
    assert lasts(5) == 1.0  # never said


def test_units_are_spoken_in_the_rhythm_of_the_recording() -> None:
    recorded = _recorded()
    said = recorded.units[0][recorded.recordings == 2]
    voice = SelectionVoice(recorded, _units())
    assert len(voice.speak(said)) == pytest.approx(len(said) * FRAME, abs=FRAME)


def test_the_command_makes_a_voice_and_lets_it_speak(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(selection_voice, "LEAST_SECONDS", 10.0)
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    for index, (_, waveform) in enumerate(_recordings(count=4)):
        soundfile.write(recordings / f"{index:02}.wav", waveform, 16000)
    (recordings / "broken.wav").write_bytes(b"no audio")
    units, voice, out = (str(tmp_path / name) for name in ("units", "voice", "out"))
    assert main(["units", "fit", str(recordings), "--num_units", "6", "-o", units]) == 0
    fitting = ["voice", "fit", str(recordings), "--units", units, "-o", voice]
    assert main(fitting) == 0
    assert "broken.wav" in capsys.readouterr().err
    assert main(fitting) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    one = str(recordings / "03.wav")
    assert main(["voice", "speak", one, "--voice", voice, "-o", out]) == 0
    spoken, _ = soundfile.read(tmp_path / "out" / "03.wav")
    said, _ = soundfile.read(one)
    capsys.readouterr()
    assert main(["voice", "speak", one, "--voice", voice, "-o", out]) == 0
    out_lines, told = capsys.readouterr()
    assert (out_lines, told.count("03.wav")) == ("", 1) and "left alone" in told
    assert abs(len(spoken) - len(said)) < 0.1 * len(said)
    assert main(["units", "apply", one, "--units", units, "-o", out]) == 0
    written = tmp_path / "out" / "03.json"
    assert main(["voice", "speak", str(written), "--voice", voice, "-o", str(tmp_path / "b")]) == 0
    entry = json.loads(written.read_text())
    written.write_text(json.dumps({**entry, "units_checksum": "0" * 64}))
    again = ["voice", "speak", str(written), one, "--voice", voice, "-o", str(tmp_path / "c")]
    assert main(again) == 1
    assert "holds units 000000000000, but this voice speaks" in capsys.readouterr().err
    assert (tmp_path / "c" / "03.wav").exists()
    before = (recordings / "03.wav").read_bytes()
    into = ["voice", "speak", one, "--voice", voice, "-o", str(recordings), "--overwrite"]
    assert main(into) == 1
    assert "is what is read here" in capsys.readouterr().err
    assert (recordings / "03.wav").read_bytes() == before
