"""Phones of frames, by hand."""

from __future__ import annotations

from speechjepa.data.synthetic.espeak import PhoneTime
from tools.benchmark_units import phone_spans, phones_of_frames, plain

PHONES = [PhoneTime(0.05, "m"), PhoneTime(0.12, "'a"), PhoneTime(0.24, ""), PhoneTime(0.40, "")]


def test_a_frame_is_the_phone_in_its_middle() -> None:
    # Middles at 0.02, 0.06, 0.10, 0.14, 0.18, 0.22, 0.26 s.
    assert phones_of_frames(PHONES, 7, 25.0) == ["", "m", "m", "a", "a", "a", ""]


def test_a_phone_has_a_frame_or_more_and_pauses_have_none() -> None:
    assert phone_spans(PHONES, 10, 25.0) == [("m", 1, 3), ("a", 3, 6)]
    short = [PhoneTime(0.04, "t"), PhoneTime(0.05, "o"), PhoneTime(0.2, "")]
    assert phone_spans(short, 10, 25.0) == [("t", 1, 2), ("o", 1, 5)]
    assert phone_spans(short, 3, 25.0) == [("t", 1, 2)]  # the recording ends before


def test_stress_and_length_do_not_make_another_phone() -> None:
    assert plain("'a:") == plain(",a") == "a" and plain("") == ""
