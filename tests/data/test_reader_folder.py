"""A folder of recordings as people keep it: what is read of it, and what the doctor says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from speechjepa.data.findings import Finding
from speechjepa.data.readers import read_corpus
from speechjepa.data.utterance import Utterance
from speechjepa.inference.writers import write_result
from tests.data.corpora import audio, lines
from tests.inference.test_writers import result, segment


def eaf(path: Path, *stretches: tuple[float, float, str]) -> Path:
    """Write an ELAN (or Praat) document with these stretches."""
    (written,) = write_result(result(*(segment(*s) for s in stretches), duration=10.0), [path])
    return written


def changed(path: Path, seconds_ago: float) -> Path:
    """Set when a file was changed."""
    os.utime(path, (1e9 - seconds_ago, 1e9 - seconds_ago))
    return path


def read_with_findings(location: Path) -> tuple[list[Utterance], dict[str, Finding]]:
    found: list[Finding] = []
    utterances = read_corpus(location, findings=found)
    assert len({finding.code for finding in found}) == len(found)
    return utterances, {finding.code: finding for finding in found}


# Several transcripts --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ages", "taken"),
    [
        ({"txt": 0, "eaf": 0, "TextGrid": 0}, "eaf"),
        ({"txt": 0, "eaf": 1, "TextGrid": 1}, "eaf"),
        ({"txt": 0, "eaf": 9, "TextGrid": 1}, "TextGrid"),
        ({"txt": 0, "eaf": 9, "TextGrid": 9}, "txt"),
        ({"txt": 9, "eaf": 0, "TextGrid": 9}, "eaf"),
        ({"txt": 9, "eaf": 9, "TextGrid": 0}, "TextGrid"),
    ],
)
def test_of_several_transcripts_the_one_changed_last_is_taken(tmp_path, ages, taken) -> None:
    audio(tmp_path / "a.wav", 1.0)
    for suffix in ("eaf", "TextGrid"):
        eaf(tmp_path / f"a.{suffix}", (0.1, 0.9, suffix))
    lines(tmp_path / "a.txt", "txt")
    for suffix, age in ages.items():
        changed(tmp_path / f"a.{suffix}", age)
    utterances, findings = read_with_findings(tmp_path)
    assert [u.text for u in utterances if u.text] == [taken]
    told = findings["several_transcripts"]
    assert told.title == f"1 recording with several transcripts beside them; taken: .{taken} of 1"
    assert told.places[0].source == str(tmp_path / f"a.{taken}")
    assert all(f"a.{other}" in told.places[0].detail for other in ages if other != taken)


def test_one_transcript_each_is_no_finding_and_several_are_logged(tmp_path, caplog) -> None:
    for name in "ab":
        audio(tmp_path / f"{name}.wav")
        lines(tmp_path / f"{name}.txt", name)
    assert read_with_findings(tmp_path)[1] == {}
    read_corpus(tmp_path)
    assert caplog.text == ""
    eaf(tmp_path / "a.eaf", (0.0, 0.1, "x"))
    read_corpus(tmp_path)
    assert "1 recording with several transcripts" in caplog.text
