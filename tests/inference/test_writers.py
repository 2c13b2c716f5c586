import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechjepa.errors import ConfigError
from speechjepa.inference.writers import (
    CUE_CHARACTERS,
    CUE_SECONDS,
    FORMATS,
    format_result,
    output_paths,
    parse_formats,
    subtitle_cues,
    timestamp,
    write_result,
)


def segment(start, end, text, *, words=False):
    made = {"id": 0, "start": start, "end": end, "text": text, "score": 0.9}
    if words:
        parts = text.split()
        length = (end - start) / len(parts)
        made["words"] = [
            {
                "word": part,
                "start": start + i * length,
                "end": start + (i + 1) * length,
                "score": 0.9,
            }
            for i, part in enumerate(parts)
        ]
    return made


def result(*segments, duration=9999.0):
    text = " ".join(one["text"] for one in segments)
    return {"text": text, "language": "xx", "duration": duration, "segments": list(segments)}


TWO = result(segment(0.5, 2.25, "mbote na yo"), segment(3661.0, 3662.9996, "a < b & c"))


def test_txt_is_one_line_per_segment():
    assert format_result(TWO, "txt") == "mbote na yo\na < b & c\n"


def test_srt_numbers_its_cues_and_marks_decimals_with_a_comma():
    assert format_result(TWO, "srt") == (
        "1\n00:00:00,500 --> 00:00:02,250\nmbote na yo\n\n"
        "2\n01:01:01,000 --> 01:01:03,000\na < b & c\n\n"
    )


def test_a_segment_of_which_nothing_was_written_is_no_subtitle():
    segments = [{"start": 0.0, "end": 1.0, "text": ""}, {"start": 1.0, "end": 2.0, "text": "ba"}]
    cues = subtitle_cues({"segments": segments, "duration": 2.0})
    assert [(cue.start, cue.end, cue.text) for cue in cues] == [(1.0, 2.0, "ba")]


def test_vtt_escapes_what_would_be_markup():
    assert format_result(TWO, "vtt") == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:02.250\nmbote na yo\n\n"
        "01:01:01.000 --> 01:01:03.000\na &lt; b &amp; c\n"
    )


def test_tsv_is_whispers_in_milliseconds():
    assert format_result(TWO, "tsv") == (
        "start\tend\ttext\n500\t2250\tmbote na yo\n3661000\t3663000\ta < b & c\n"
    )


def test_json_keeps_letters_as_they_are_and_can_be_read_back():
    made = result(segment(0.0, 1.0, "ɔ̀kɔ́", words=True))
    assert json.loads(format_result(made, "json")) == made
    assert "ɔ̀kɔ́" in format_result(made, "json")


def test_json_shows_words_only_when_asked():
    made = result(segment(0.0, 1.0, "a b", words=True))
    shown = json.loads(format_result(made, "json", word_timestamps=False))
    assert "words" not in shown["segments"][0]
    assert "words" in made["segments"][0], "the result itself is left alone"


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_recording_without_speech_is_a_valid_file(format_name):
    text = format_result(result(), format_name)
    expected = {"txt": "", "srt": "", "vtt": "WEBVTT\n", "tsv": "start\tend\ttext\n"}
    assert text == expected.get(format_name, text)


def test_text_cannot_break_the_lines_of_its_file():
    made = result(segment(0.0, 1.0, "a\tb\n\nc --> d"))
    assert format_result(made, "tsv").count("\n") == 2
    assert format_result(made, "tsv").splitlines()[1].count("\t") == 2
    for name in ("srt", "vtt"):
        assert format_result(made, name).count("-->") == 1


@given(st.floats(0, 360000, allow_nan=False))
def test_milliseconds_never_reach_a_thousand(seconds):
    hours, minutes, whole, thousandths = map(int, re.split("[:.]", timestamp(seconds)))
    assert minutes < 60 and whole < 60 and thousandths < 1000
    assert hours * 3600 + minutes * 60 + whole + thousandths / 1000 == pytest.approx(
        seconds, abs=5.1e-4
    )


def test_a_time_just_below_a_second_is_carried():
    assert timestamp(59.9996) == "00:01:00.000"
    assert timestamp(3599.9999, ",") == "01:00:00,000"


@given(st.lists(st.text("abc", min_size=1, max_size=20), min_size=1, max_size=60), st.floats(1, 30))
def test_subtitles_can_be_read_in_two_lines_and_seven_seconds(words, length):
    text = " ".join(words)
    cues = subtitle_cues(result(segment(5.0, 5.0 + length, text, words=True)))
    assert " ".join(cue.text for cue in cues) == text
    for cue in cues:
        assert len(cue.text) <= CUE_CHARACTERS or " " not in cue.text
        assert cue.end - cue.start <= CUE_SECONDS + 1e-6 or " " not in cue.text
    times = [time for cue in cues for time in (cue.start, cue.end)]
    assert times == pytest.approx(sorted(times))


def test_a_long_segment_is_divided_at_the_pause_near_its_middle():
    made = segment(0.0, 10.0, "a b c d", words=True)
    for word in made["words"][2:]:
        word["start"] += 1.0
        word["end"] += 1.0
    assert [cue.text for cue in subtitle_cues(result(made))] == ["a b", "c d"]


def test_a_short_subtitle_stays_for_a_second_or_until_the_next():
    made = result(segment(0.0, 0.1, "a"), segment(0.4, 0.5, "b"), duration=1.2)
    assert [(cue.start, cue.end) for cue in subtitle_cues(made)] == [(0.0, 0.4), (0.4, 1.2)]


def test_all_means_every_format():
    assert parse_formats("all") == ("txt", "srt", "vtt", "tsv", "json", "eaf", "TextGrid")
    assert parse_formats("srt,json,srt") == ("srt", "json")
    with pytest.raises(ConfigError, match="'doc'"):
        parse_formats("srt,doc")


def test_a_file_that_is_there_is_replaced_only_when_asked(tmp_path):
    outputs = list(output_paths(tmp_path / "sub" / "a.b", ("txt", "srt")).values())
    assert [path.name for path in outputs] == ["a.b.txt", "a.b.srt"]
    outputs[0].parent.mkdir()
    outputs[0].write_text("corrected by hand")
    assert write_result(TWO, outputs) == outputs[1:]
    assert outputs[0].read_text() == "corrected by hand"
    assert write_result(TWO, outputs, overwrite=True) == outputs
    assert outputs[0].read_text() == format_result(TWO, "txt")
    assert sorted(path.name for path in outputs[0].parent.iterdir()) == ["a.b.srt", "a.b.txt"]
