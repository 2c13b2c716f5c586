import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechjepa.errors import AudioError, ConfigError, ModelError
from speechjepa.inference.align import EDGE_SECONDS
from speechjepa.inference.encoding import stitch_logits
from speechjepa.inference.search import Hypothesis
from speechjepa.inference.segment import SegmentConfig, Segmenter
from speechjepa.inference.spoken_language import resolve_language
from speechjepa.inference.transcribe import (
    TranscribeConfig,
    iter_segments,
    transcribe,
)
from tests.tone_model import HOP, RATE, VOCABULARY, ToneModel, synthesize, write

SHORT_WINDOWS = {"window_seconds": 2.0, "overlap_seconds": 0.8}

words = st.text("abcdefgh", min_size=1, max_size=6)
pauses = st.sampled_from(["", "", "", "_____", "______________"])
speech = st.lists(st.tuples(pauses, words), min_size=1, max_size=25)


def say(parts):
    return " ".join(pause + word for pause, word in parts), " ".join(word for _, word in parts)


def segments_of(model, waveform, **options):
    return list(iter_segments(model, [waveform], TranscribeConfig(**options)))


def text_of(segments):
    return " ".join(segment["text"] for segment in segments)


@settings(max_examples=60, deadline=None)
@given(speech, st.integers(0, 3 * HOP), st.integers(0, 3 * HOP), st.sampled_from([1, 2]))
def test_no_word_is_lost_or_doubled_at_a_seam(parts, silence_before, silence_after, per_hop):
    script, said = say(parts)
    waveform = np.pad(synthesize(script), (silence_before, silence_after))
    stitched = segments_of(
        ToneModel(frames_per_hop=per_hop), waveform, word_timestamps=True, **SHORT_WINDOWS
    )
    assert text_of(stitched) == said
    one_pass = segments_of(ToneModel(frames_per_hop=per_hop), waveform, word_timestamps=True)
    assert stitched == one_pass


@settings(max_examples=40, deadline=None)
@given(speech, st.integers(0, 3 * HOP), st.integers(1, 5))
def test_stitched_logits_equal_one_pass_although_edges_are_confused(parts, silence, batch_size):
    waveform = np.pad(synthesize(say(parts)[0]), (silence, 0))
    model = ToneModel(confused_frames=15)
    config = TranscribeConfig(batch_size=batch_size, **SHORT_WINDOWS)
    stitched = torch.cat(list(stitch_logits(model, [waveform], config)))
    one_pass = torch.cat(list(stitch_logits(model, [waveform], TranscribeConfig())))
    torch.testing.assert_close(stitched, one_pass, rtol=0, atol=0)


def test_too_little_overlap_would_be_seen():
    waveform = synthesize("abcd efgh " * 10)
    config = TranscribeConfig(window_seconds=2.0, overlap_seconds=0.4)
    stitched = torch.cat(list(stitch_logits(ToneModel(confused_frames=15), [waveform], config)))
    assert (stitched.argmax(dim=-1) == VOCABULARY.symbols.index("?")).sum() > 30


def test_a_file_that_fits_is_one_pass(tmp_path):
    path = write(tmp_path / "a.wav", synthesize("abc def"))
    model = ToneModel()
    transcribe(model, path)
    assert model.window_lengths == [len(synthesize("abc def"))]


def test_the_result_has_whispers_shape(tmp_path):
    path = write(tmp_path / "a.flac", synthesize("_____abc def" + "_" * 20 + "gh"))
    result = transcribe(ToneModel(), path, word_timestamps=True)
    assert result["text"] == "abc def gh"
    assert result["language"] == "xx"
    assert result["duration"] == pytest.approx(len(synthesize("abcdefgh ")) / RATE + 2.5)
    first, second = result["segments"]
    assert (first["id"], first["text"], second["id"], second["text"]) == (0, "abc def", 1, "gh")
    assert [word["word"] for word in first["words"]] == ["abc", "def"]
    assert first["start"] == first["words"][0]["start"] == 0.5 - EDGE_SECONDS
    assert second["end"] == pytest.approx(result["duration"] - 0.04 + EDGE_SECONDS)
    assert all(0.9 < word["score"] <= 1 for word in first["words"])


def test_characters_are_given_only_when_asked_for(tmp_path):
    path = write(tmp_path / "a.wav", synthesize("ab c"))
    first, _ = transcribe(ToneModel(), path, character_timestamps=True)["segments"][0]["words"]
    assert [one["character"] for one in first["characters"]] == ["a", "b"]
    assert first["characters"][0]["end"] == first["characters"][1]["start"] == 0.12
    (segment,) = transcribe(ToneModel(), path, word_timestamps=True)["segments"]
    assert all("characters" not in word for word in segment["words"])


def test_words_are_given_only_when_asked_for(tmp_path):
    path = write(tmp_path / "a.wav", synthesize("abc"))
    assert "words" not in transcribe(ToneModel(), path)["segments"][0]


def test_a_file_at_another_rate_gives_the_same_text(tmp_path):
    path = write(tmp_path / "a.wav", synthesize("abc def gh", rate=48000), 48000)
    assert transcribe(ToneModel(), path)["text"] == "abc def gh"


@settings(max_examples=30, deadline=None)
@given(speech, st.integers(0, 5 * HOP))
def test_times_rise_and_stay_inside_the_file(parts, cut):
    waveform = synthesize(say(parts)[0])
    waveform = waveform[: max(1, len(waveform) - cut)]
    duration = len(waveform) / RATE
    times = [
        time
        for segment in segments_of(ToneModel(), waveform, word_timestamps=True, **SHORT_WINDOWS)
        for word in segment["words"]
        for time in (word["start"], word["end"])
    ]
    assert times == sorted(times)
    assert all(0 <= time <= duration for time in times)


@pytest.mark.parametrize("num_samples", [1, 100, HOP - 1, HOP, 5 * RATE])
def test_silence_of_any_length_has_no_text(num_samples):
    assert segments_of(ToneModel(), np.zeros(num_samples, np.float32)) == []


def test_progress_reaches_the_end_of_the_file(tmp_path):
    path = write(tmp_path / "a.wav", synthesize("abc def " * 20))
    heard = []
    result = transcribe(ToneModel(), path, on_progress=heard.append, **SHORT_WINDOWS)
    assert heard == sorted(heard)
    assert len(heard) > 5
    assert heard[-1] == result["duration"]


def test_segments_come_before_the_stream_ends():
    num_blocks = 0

    def blocks():
        nonlocal num_blocks
        while True:
            num_blocks += 1
            yield synthesize("abc def" + "_" * 15)

    stream = iter_segments(ToneModel(), blocks(), TranscribeConfig(**SHORT_WINDOWS))
    assert [next(stream)["text"] for _ in range(3)] == ["abc def"] * 3
    assert num_blocks < 8


class FixedSearch:
    """A beam search that always believes the same."""

    def decode(self, logits, lengths):
        return [Hypothesis(text="hh", score=0.0) for _ in lengths]


@pytest.mark.parametrize(
    ("decoder", "expected"), [("auto", "hh"), ("beam", "hh"), ("greedy", "ab")]
)
def test_the_language_model_is_used_where_there_is_one(decoder, expected):
    model = ToneModel()
    model.beam_search = FixedSearch()
    assert text_of(segments_of(model, synthesize("ab"), decoder=decoder)) == expected


def test_a_text_that_does_not_fit_its_frames_still_has_times():
    class Longwinded(FixedSearch):
        def decode(self, logits, lengths):
            return [Hypothesis(text="a" * 1000, score=0.0)]

    model = ToneModel()
    model.beam_search = Longwinded()
    (segment,) = segments_of(model, synthesize("_____ab"), word_timestamps=True)
    assert segment["words"] == []
    assert 0 <= segment["start"] < segment["end"] <= len(synthesize("_____ab")) / RATE
    assert 0 <= segment["score"] <= 1


def test_beam_search_without_a_language_model_is_refused():
    with pytest.raises(ModelError, match="no language model"):
        segments_of(ToneModel(), synthesize("ab"), decoder="beam")


@pytest.mark.parametrize(
    "option",
    [
        {"decoder": "best"},
        {"batch_size": 0},
        {"window_seconds": float("inf")},
        {"overlap_seconds": float("nan")},
    ],
)
def test_settings_out_of_range_are_refused(option):
    with pytest.raises(ConfigError):
        TranscribeConfig(**option)


def test_a_missing_file_is_an_audio_error(tmp_path):
    with pytest.raises(AudioError):
        transcribe(ToneModel(), tmp_path / "none.wav")


@pytest.mark.parametrize(
    ("language", "known", "expected"),
    [
        (None, ["sw"], "sw"),
        (None, ["sw", "en"], None),
        ("SW", ["sw", "en"], "sw"),
        ("sw-KE", ["sw", "en"], "sw"),
        ("azj", ["azj-script_latin"], "azj-script_latin"),
        ("x-mine", [], "x-mine"),
        ("Swahili", [], "sw"),
        ("fr", [], "fr"),
    ],
)
def test_language_codes_are_matched(language, known, expected):
    assert resolve_language(language, known) == expected


@pytest.mark.parametrize("language", ["xyzzy", "zz", "no such tongue"])
def test_what_is_no_language_is_refused_by_a_model_that_names_none(language):
    with pytest.raises(ModelError, match=f"'{language}' is neither the code of a language"):
        resolve_language(language, [])


def test_a_language_that_the_model_does_not_know_is_never_taken_silently():
    with pytest.raises(ModelError, match="'fra'.*en, sw"):
        resolve_language("fra", ["sw", "en"])
    with pytest.raises(ModelError, match="azj-script_latin"):
        resolve_language("azj", ["azj-script_latin", "azj-script_cyrillic"])


# How a stream of logits is cut into segments.

QUICK = SegmentConfig(
    long_pause_seconds=0.2,
    pause_seconds=0.06,
    target_seconds=0.4,
    max_seconds=0.8,
    margin_seconds=0.02,
)


def cut(path, config=QUICK, pieces=None):
    """Cut a path, one symbol per frame of 20 ms, '-' = blank, and return the pieces as paths."""
    symbols = ["<blank>" if symbol == "-" else symbol for symbol in path]
    ids = torch.tensor([VOCABULARY.symbols.index(symbol) for symbol in symbols], dtype=torch.long)
    logits = torch.nn.functional.one_hot(ids, len(VOCABULARY)).float()
    segmenter = Segmenter(frame_seconds=0.02, blank_id=0, word_boundary_id=1, config=config)
    found = []
    for piece in logits.split(pieces) if pieces else [logits]:
        found += segmenter.push(piece)
    found += segmenter.finish()
    for segment in found:
        assert torch.equal(
            segment.logits, logits[segment.first_frame : segment.first_frame + len(segment.logits)]
        )
    return [path[s.first_frame : s.first_frame + len(s.logits)] for s in found]


def test_a_long_pause_ends_a_segment_and_a_short_one_does_not():
    assert cut("--ab-|-cd" + "-" * 10 + "ef--") == ["-ab-|-cd-", "-ef-"]


def test_a_segment_that_is_long_enough_ends_at_a_word_boundary():
    long = "ab-" * 8
    assert cut(f"{long}--|---cd") == [f"{long}", "-cd"]
    assert cut(f"{long}------cd") == [f"{long}------cd"], "no word is divided"


def test_a_segment_that_is_too_long_is_cut_at_its_longest_word_boundary():
    path = "abc-|-" * 4 + "--" + "abc-|-" * 4
    pieces = cut(path)
    assert pieces[0].strip("-|") == "abc-|-" * 3 + "abc"
    assert all(len(piece) <= 42 for piece in pieces)


def test_speech_without_a_pause_is_cut_at_the_longest_segment():
    assert [len(piece) for piece in cut("abcdefgh" * 12)] == [40, 40, 16]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "ab", "|", "-", "--", "------", "-" * 12]), max_size=120),
    st.integers(1, 50),
)
def test_segments_do_not_depend_on_how_the_stream_is_cut(parts, pieces):
    path = "".join(parts)
    assert cut(path, pieces=pieces) == cut(path)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "ab", "|", "-", "--", "-" * 12]), max_size=120))
def test_segments_hold_every_character_once_and_none_is_too_long(parts):
    path = "".join(parts)
    pieces = cut(path)
    assert "".join("".join(pieces).replace("|", "").split("-")) == (
        path.replace("-", "").replace("|", "")
    )
    assert all(len(piece) <= 40 + 2 for piece in pieces)


def test_segment_settings_that_contradict_each_other_are_refused():
    for change in ({"pause_seconds": 2.0}, {"target_seconds": 20.0}, {"margin_seconds": 0.3}):
        with pytest.raises(ConfigError):
            dataclasses.replace(SegmentConfig(), **change)


@pytest.mark.parametrize("path", ["-", "a", "ab-|-", "a|" + "-" * 30])
def test_frames_that_are_done_with_are_forgotten(path):
    ids = torch.tensor(
        [0 if symbol == "-" else VOCABULARY.symbols.index(symbol) for symbol in path]
    )
    frames = torch.nn.functional.one_hot(ids, len(VOCABULARY)).float().repeat(20, 1)
    segmenter = Segmenter(frame_seconds=0.02, blank_id=0, word_boundary_id=1, config=QUICK)
    for _ in range(200):
        segmenter.push(frames)
        assert sum(map(len, segmenter._logits)) <= 2 * 40 + len(path)
