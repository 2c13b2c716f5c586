"""Self-training: what is recognised, how sure it is, and what the next model learns from."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from speechjepa.data.utterance import Utterance
from speechjepa.errors import ConfigError, DataError
from speechjepa.inference.pseudo_labels import (
    PseudoLabelled,
    SelfTrainingConfig,
    confidence,
    pseudo_label,
    training_set,
)
from tests.tone_model import ToneModel, synthesize, write


def utterance(name, seconds=10.0, text=None):
    return Utterance(id=name, audio_path=Path(f"{name}.wav"), duration=seconds, text=text)


def recognised(*names):
    return [PseudoLabelled(utterance=utterance(n, text="ab"), confidence=-0.1) for n in names]


def test_confidence_is_the_mean_log_probability_of_what_is_not_blank() -> None:
    # Three frames: blank at probability 0.9, then symbols at 0.8 and 0.5; the blank does not count.
    logits = np.log(np.array([[0.9, 0.06, 0.04], [0.1, 0.8, 0.1], [0.3, 0.2, 0.5]], np.float32))
    assert confidence(logits, 0) == pytest.approx((math.log(0.8) + math.log(0.5)) / 2)


def test_silence_has_no_confidence_at_all() -> None:
    assert confidence(np.array([[5.0, 0.0], [5.0, 0.0]], np.float32), 0) == -math.inf


def test_true_labels_are_repeated_until_they_are_their_share() -> None:
    # 30 s recognised and a share of a quarter: 10 s of labels, which is what there is, once;
    # a share of a half: 30 s, three times. Ids stay unique.
    labelled, heard = [utterance("true", text="x")], recognised("a", "b", "c")
    ids = {
        share: [
            u.id
            for u in training_set(labelled, heard, SelfTrainingConfig(keep=1.0, label_share=share))
        ]
        for share in (0.25, 0.5)
    }
    assert ids[0.25] == ["true", "a", "b", "c"]
    assert ids[0.5] == ["true", "true#1", "true#2", "a", "b", "c"]


def test_the_surest_are_kept() -> None:
    kept = training_set(
        [utterance("true", text="x")], recognised(*"abcd"), SelfTrainingConfig(keep=0.5)
    )
    assert [u.id for u in kept if u.text == "ab"] == ["a", "b"]


def test_nothing_recognised_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(DataError, match="leave `self_training` out"):
        training_set([utterance("true", text="x")], [], SelfTrainingConfig())


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"keep": 0.0}, {"keep": 1.1}, {"label_share": 1}])
def test_impossible_settings_are_refused(wrong) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SelfTrainingConfig(**wrong)


def test_what_is_heard_becomes_the_transcript_and_silence_is_left_out(tmp_path) -> None:
    said = [
        Utterance(
            id=name,
            audio_path=write(tmp_path / f"{name}.wav", synthesize(text)),
            duration=len(synthesize(text)) / 16000,
            text="what the corpus says is not looked at",
        )
        for name, text in {"clear": "abcdef", "silent": "______"}.items()
    ]
    found = pseudo_label(ToneModel(), said)
    assert [(item.utterance.id, item.utterance.text) for item in found] == [("clear", "abcdef")]
    assert -0.1 < found[0].confidence <= 0.0


def test_a_single_short_word_counts_and_a_click_does_not(tmp_path) -> None:
    waves = {"word": synthesize("ab"), "click": synthesize("a")[: int(0.05 * 16000)]}
    said = [
        Utterance(id=name, audio_path=write(tmp_path / f"{name}.wav", w), duration=len(w) / 16000)
        for name, w in waves.items()
    ]
    assert 0.1 < len(waves["word"]) / 16000 < 0.5
    assert [item.utterance.id for item in pseudo_label(ToneModel(), said)] == ["word"]


def test_a_long_recording_becomes_the_utterances_between_its_pauses(tmp_path) -> None:
    # "ab cd" is 5 symbols of 6 frames of 0.02 s, its last 2 silent: 0.56 s; "_" is 0.1 s.
    said = synthesize("_" * 100 + "ab cd" + "_" * 120 + "ef gh" + "_" * 90)
    path = write(tmp_path / "story.wav", said)
    model = ToneModel()
    # As a folder gives it: nobody has said how long it is.
    found = pseudo_label(model, [Utterance(id="story", audio_path=path)])
    found.sort(key=lambda item: item.utterance.start)
    assert [item.utterance.text for item in found] == ["ab cd", "ef gh"]
    for item, begins, ends in zip(found, (10.0, 22.6), (10.56, 23.16), strict=True):
        heard = item.utterance
        assert heard.start == pytest.approx(begins - 0.2, abs=0.021)  # with the margin of a segment
        assert heard.start + heard.duration == pytest.approx(ends + 0.2, abs=0.021)
        assert heard.id == f"story@{heard.start * 1000:.0f}-{ends * 1000 + 200:.0f}"
    assert max(model.window_lengths) <= 30 * 16000


def test_a_piece_of_a_file_is_cut_where_it_lies_in_it(tmp_path) -> None:
    path = write(tmp_path / "story.wav", synthesize("cd" + "_" * 200 + "ab" + "_" * 200 + "ef"))
    gap = Utterance(id="story@5000-30000", audio_path=path, start=5.0, duration=25.0)
    (found,) = pseudo_label(ToneModel(), [gap])
    assert found.utterance.text == "ab"
    assert found.utterance.start == pytest.approx(20.24 - 0.2, abs=0.021)


def test_what_comes_before_the_damage_of_a_long_recording_is_learnt_from(tmp_path, caplog) -> None:
    said = synthesize("ab" + "_" * 1600 + "cd" + "_" * 400)
    path = write(tmp_path / "story.flac", said)
    path.write_bytes(path.read_bytes()[:-2000])
    missing = Utterance(id="missing", audio_path=tmp_path / "none.wav")
    found = pseudo_label(ToneModel(), [missing, Utterance(id="story", audio_path=path)])
    assert "ab" in [item.utterance.text for item in found]
    assert "2 recordings cannot be read to the end" in caplog.text and "none.wav" in caplog.text


def test_labels_of_a_folder_have_their_share_too(tmp_path) -> None:
    # A folder does not say how long its files are: 2 s of labels beside 6 s, half of an epoch.
    path = write(tmp_path / "true.wav", np.zeros(32000, np.float32))
    true = Utterance(id="true", audio_path=path, text="x")
    gone = Utterance(id="gone", audio_path=tmp_path / "gone.wav", text="x")
    heard = [PseudoLabelled(utterance=utterance("a", 6.0, "ab"), confidence=-0.1)]
    config = SelfTrainingConfig(keep=1.0, label_share=0.5)
    ids = [u.id for u in training_set([true, gone], heard, config)]
    assert ids == ["true", "gone", "true#1", "gone#1", "true#2", "gone#2", "a"]


def test_a_stretch_of_a_gap_is_named_after_the_recording(tmp_path) -> None:
    path = write(tmp_path / "story.wav", synthesize("_" * 100 + "ab" + "_" * 200))
    gap = Utterance(id="far/story@5000-end", audio_path=path, start=5.0)
    (found,) = pseudo_label(ToneModel(), [gap])
    name, _, place = found.utterance.id.partition("@")
    assert name == "far/story" and re.fullmatch(r"\d+-\d+", place)
    assert int(place.partition("-")[0]) == pytest.approx(9800, abs=30)
