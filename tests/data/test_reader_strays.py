"""Files of a folder that look like transcripts and are not read."""

from __future__ import annotations

import pytest

from tests.data.corpora import audio, lines
from tests.data.test_reader_folder import eaf, read_with_findings


def test_texts_without_a_recording_are_named_and_near_names_first(tmp_path) -> None:
    for name in ("Word 001", "word_002", "wav/word_003", "word_004"):
        audio(tmp_path / f"{name}.wav")
    lines(tmp_path / "word_004.txt", "mama")
    for name in ("README", "word 004", "word_001", "word_002 ", "txt/word_003"):
        lines(tmp_path / f"{name}.txt", "papa")
    told = read_with_findings(tmp_path)[1]["stray_transcripts"]
    assert told.severity == "warning"
    assert told.title == (
        "5 texts with no recording of that name, not read: txt/word_003.txt, word_001.txt, "
        "word_002 .txt and 2 more"
    )
    assert [(place.source.removeprefix(f"{tmp_path}/"), place.detail) for place in told.places] == [
        ("txt/word_003.txt", 'is it for "wav/word_003.wav"?'),
        ("word_001.txt", 'is it for "Word 001.wav"?'),
        ("word_002 .txt", 'is it for "word_002.wav"?'),
        ("README.txt", ""),
        ("word 004.txt", ""),
    ]


def test_a_text_like_no_recording_is_only_noted(tmp_path, caplog) -> None:
    audio(tmp_path / "a.wav")
    lines(tmp_path / "stories.txt", "once upon a time", "there was")
    told = read_with_findings(tmp_path)[1]["stray_transcripts"]
    assert told.severity == "note" and "1 text with no recording" in told.title


@pytest.mark.parametrize(
    "content", [["a", "b"], ["\ufeffa.wav", "x/b.wav", "gone"], ["b", "a@0-1500"], ["x/b"]]
)
def test_a_list_of_recordings_is_no_transcript(tmp_path, content) -> None:
    audio(tmp_path / "a.wav")
    audio(tmp_path / "x/b.wav")
    lines(tmp_path / "first.txt", *content)
    assert read_with_findings(tmp_path)[1] == {}


def test_empty_transcripts_are_named(tmp_path) -> None:
    for name in "abc":
        audio(tmp_path / f"{name}.wav")
    lines(tmp_path / "a.txt", "mama")
    lines(tmp_path / "b.txt", "  ")
    eaf(tmp_path / "c.eaf")
    utterances, findings = read_with_findings(tmp_path)
    assert [u.text for u in utterances] == ["mama", None, None]
    told = findings["empty_transcript_files"]
    assert told.title == "2 empty transcripts: b.txt, c.eaf"
    assert [place.id for place in told.places] == ["b", "c"]


@pytest.mark.parametrize(
    ("document", "transcribed", "severity"),
    [("a.docx", True, "warning"), ("consent.rtf", False, "warning"), ("c.XLSX", True, "note")],
)
def test_documents_of_word_or_excel_are_named(tmp_path, document, transcribed, severity) -> None:
    audio(tmp_path / "a.wav")
    if transcribed:
        lines(tmp_path / "a.txt", "mama")
    for name in (document, "~$lock.docx"):
        (tmp_path / name).write_bytes(b"PK")
    told = read_with_findings(tmp_path)[1]["documents"]
    assert told.severity == severity
    assert told.title == f"1 document of Word, Excel or the like, not read: {document}"
    assert "save them as .txt" in told.advice.lower()
