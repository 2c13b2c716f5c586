"""What is proposed for transcription is what the sounds of all recordings need."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from speechjepa.data.utterance import Utterance
from speechjepa.errors import ConfigError, DataError
from speechjepa.inference.model import SpeechModel
from speechjepa.inference.select import (
    Heard,
    SelectOptions,
    choose,
    level_range,
    select,
    sounds_of,
)
from speechjepa.models.bundle import Bundle, build_encoder
from speechjepa.models.speech_encoder import SpeechEncoderConfig

RATE = 16000


def heard(name, seconds, units, speaker=None):
    utterance = Utterance(id=name, audio_path=Path(name), speaker=speaker)
    return Heard(
        utterance=utterance, seconds=seconds, range_db=30, sounds=Counter((u,) for u in units)
    )


def ids(choices):
    return [choice.heard.utterance.id for choice in choices]


def test_a_unit_that_lasts_counts_once_and_pairs_are_counted():
    assert sounds_of(np.array([3, 3, 3, 1, 1, 3])) == Counter(
        {(3,): 2, (1,): 1, (3, 1): 1, (1, 3): 1}
    )


def test_new_sounds_come_before_more_of_the_same():
    items = [heard("a", 2, [1, 2, 3]), heard("b", 2, [1, 2, 3]), heard("c", 2, [4, 5, 6])]
    chosen = choose(items, seconds=4)
    assert ids(chosen) == ["a", "c"]
    assert [choice.new_sounds for choice in chosen] == [3, 3]


def test_the_same_sounds_in_less_time_are_preferred():
    assert ids(choose([heard("slow", 4, [1, 2]), heard("fast", 1, [1, 2])], seconds=1)) == ["fast"]


def test_speakers_are_taken_in_their_proportion():
    items = [heard(f"{s}{i}", 1, [1, 2], speaker=s) for s in "ab" for i in range(9)]
    spoken = Counter(choice.heard.utterance.speaker for choice in choose(items, seconds=6))
    assert spoken == Counter(a=3, b=3)


def test_what_is_transcribed_already_counts_as_covered():
    items = [heard("a", 2, [1, 2]), heard("b", 2, [3, 4])]
    assert ids(choose(items, seconds=2)) == ["a"]
    chosen = choose(items, seconds=4, known=[heard("known", 9, [1, 2])])
    assert ids(chosen) == ["b", "a"]
    assert [choice.new_sounds for choice in chosen] == [2, 0]


def test_a_speaker_who_was_transcribed_gives_way_to_others():
    items = [heard(f"{s}{i}", 1, [1, 2], speaker=s) for s in "ab" for i in range(2)]
    known = [heard("known", 1, [1, 2], speaker="a")]
    assert ids(choose(items, seconds=1)) == ["a0"]
    assert ids(choose(items, seconds=1, known=known)) == ["b0"]


def test_lazy_search_finds_what_plain_greedy_search_finds():
    rng = np.random.default_rng(0)
    items = [
        heard(f"{i:02d}", float(rng.uniform(1, 5)), rng.integers(0, 30, 12)) for i in range(40)
    ]
    lazy = ids(choose(items, seconds=30))
    weights = {k: n**0.5 for k, n in sum((i.sounds for i in items), Counter()).items()}
    counts, plain, length, left = Counter(), [], 0.0, list(items)
    while length < 30:
        gains = [
            sum(
                weights[k] * np.log((1 + counts[k] + n) / (1 + counts[k]))
                for k, n in item.sounds.items()
            )
            / (item.seconds + 0.5)
            for item in left
        ]
        best = left.pop(int(np.argmax(gains)))
        plain.append(best.utterance.id)
        counts.update(best.sounds)
        length += best.seconds
    assert lazy == plain


def test_the_range_of_levels_is_in_decibels():
    time = np.arange(2 * RATE) / RATE
    loud = np.sin(2 * np.pi * 200 * time).astype(np.float32)
    loud[RATE:] *= 0.01
    assert level_range(loud, RATE) == pytest.approx(40, abs=0.5)
    assert level_range(np.zeros(RATE, np.float32), RATE) == 0


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = SpeechEncoderConfig(
        width=16, num_layers=3, num_heads=2, ffn_width=24, kernel_size=5, frame_rate=25
    )
    return SpeechModel(Bundle(encoder=build_encoder(config)))


@pytest.fixture
def utterances(tmp_path):
    rng = np.random.default_rng(0)
    found = []
    for index in range(12):
        tone = np.concatenate(
            [
                level * np.sin(2 * np.pi * rng.uniform(100, 3000) * np.arange(RATE // 5) / RATE)
                for level in rng.choice([0.5, 0.01], 10)
            ]
        )
        path = tmp_path / f"{index:02d}.wav"
        soundfile.write(path, tone, RATE)
        found.append(Utterance(id=path.stem, audio_path=path, speaker="ab"[index % 2]))
    return found


def test_the_order_of_the_corpus_does_not_matter(model, utterances):
    options = SelectOptions(minutes=0.1, num_units=20)
    first = select(model, utterances, options)
    again = select(model, utterances, options)
    assert ids(first.chosen) == ids(again.chosen)
    assert 6 <= first.seconds < 9
    assert 0 < first.coverage <= 1


def test_recordings_with_a_transcript_are_not_proposed(model, utterances):
    texts = ["yes", " ", *["yes"] * 5, *[None] * 5]
    labelled = [replace(u, text=text) for u, text in zip(utterances, texts, strict=True)]
    options = SelectOptions(minutes=0.15, num_units=20)
    found = select(model, labelled, options)
    assert found.left_out == {"transcribed already": [u.id for u in labelled if u.text == "yes"]}
    assert set(ids(found.chosen)) <= {u.id for u in labelled if u.text != "yes"}
    assert found.coverage > select(model, utterances, options).coverage
    with pytest.raises(DataError, match=r"only 0\.2 minutes .* transcribed already: 6"):
        select(model, labelled, replace(options, minutes=0.3))
    again = select(model, labelled, replace(options, minutes=0.3, include_transcribed=True))
    assert again.left_out == {}


def test_what_cannot_be_heard_is_left_out_with_the_reason(model, utterances, tmp_path):
    time = np.arange(3 * RATE) / RATE
    wrong = {
        "clipped": np.clip(9 * np.sin(2 * np.pi * 100 * time), -1, 1) * (time % 1 < 0.7),
        "flat": 0.1 * np.sin(2 * np.pi * 100 * time),
        "short": np.ones(800),
        "long": np.tile(np.sin(time), 6),
    }
    for name, wave in wrong.items():
        soundfile.write(tmp_path / f"{name}.wav", wave, RATE)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    names = [*wrong, "broken"]
    utterances += [Utterance(id=n, audio_path=tmp_path / f"{n}.wav") for n in names]
    found = select(model, utterances, SelectOptions(minutes=0.1, num_units=20))
    assert sorted(name for group in found.left_out.values() for name in group) == sorted(names)
    assert found.left_out["cannot be read"] == ["broken"]
    assert found.left_out["clipped"] == ["clipped"]
    assert found.left_out["longer than 15 s"] == ["long"]
    assert not set(names) & set(ids(found.chosen))


def test_asking_for_more_than_there_is_says_how_much_there_is(model, utterances):
    with pytest.raises(DataError, match=r"only 0\.4 minutes can be proposed"):
        select(model, utterances, SelectOptions(minutes=1))


@pytest.mark.parametrize("options", [{"minutes": 0}, {"minutes": 1, "min_seconds": 20}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError):
        SelectOptions(**options)
