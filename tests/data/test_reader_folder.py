"""A folder of recordings as people keep it: what is read of it, and what the doctor says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pympi.Elan import Eaf

from speechjepa.audio.files import write_wav
from speechjepa.data.check import check_corpus
from speechjepa.data.findings import Finding
from speechjepa.data.readers import read_corpus
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError
from speechjepa.inference.writers import write_result
from tests.data.corpora import audio, lines, refused, rows
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


def test_a_transcript_may_have_the_whole_name_of_its_recording(tmp_path) -> None:
    for name in ("a.wav", "a.flac", "b.wav", "b.wav.flac", "c.wav"):
        audio(tmp_path / "x.wav").rename(tmp_path / name)
    eaf(tmp_path / "a.wav.eaf", (0.0, 0.1, "wav"))
    lines(tmp_path / "a.flac.txt", "flac")
    eaf(tmp_path / "b.wav.TextGrid", (0.0, 0.1, "longer name"))
    lines(tmp_path / "c.wav.TXT", "c")
    utterances, findings = read_with_findings(tmp_path)
    assert findings == {}
    assert {u.id: u.text for u in utterances} == {
        "a.flac": "flac",
        "a.wav@0": "wav",
        "b": None,
        "b.wav@0": "longer name",
        "c": "c",
    }


# Recordings transcribed in part ---------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["eaf", "TextGrid"])
def test_gaps_between_stretches_are_audio_without_transcript(tmp_path, suffix) -> None:
    audio(tmp_path / "a.wav", 10.0)
    audio(tmp_path / "b.wav", 1.0)
    eaf(tmp_path / f"a.{suffix}", (1.5, 2.0, "one"), (2.5, 3.0, "two"), (5.0, 6.0, "three"))
    utterances, findings = read_with_findings(tmp_path)
    assert [(u.id, u.start, u.duration, u.text) for u in utterances] == [
        ("a@0-1500", 0.0, 1.5, None),
        ("a@1500", 1.5, 0.5, "one"),
        ("a@2500", 2.5, 0.5, "two"),
        ("a@3000-5000", 3.0, 2.0, None),
        ("a@5000", 5.0, 1.0, "three"),
        ("a@6000-end", 6.0, None, None),
        ("b", 0.0, None, None),
    ]
    told = findings["partly_transcribed"]
    assert told.title.startswith("1 recording transcribed in part") and "3 pieces" in told.title
    assert told.places[0].source == str(tmp_path / f"a.{suffix}") + " after 0.000 s"


def test_long_gaps_come_in_pieces_that_self_training_takes(tmp_path) -> None:
    audio(tmp_path / "a.wav", 100.0)
    eaf(tmp_path / "a.eaf", (60.5, 62.0, "one"))
    assert [(u.id, u.duration) for u in read_corpus(tmp_path) if u.text is None] == [
        ("a@0-30000", 30.0),
        ("a@30000-60000", 30.0),  # what is left before the stretch is a pause
        ("a@62000-92000", 30.0),
        ("a@92000-end", None),
    ]


def test_a_recording_that_cannot_be_read_keeps_its_stretches(tmp_path) -> None:
    audio(tmp_path / "b.wav")
    (tmp_path / "a.wav").write_bytes(b"no audio")
    eaf(tmp_path / "a.eaf", (0.0, 2.0, "one"))
    assert [u.id for u in read_corpus(tmp_path)] == ["a@0", "b"]


def test_the_doctor_counts_gaps_as_sound_and_lets_them_be_silent(tmp_path) -> None:
    rng = np.random.default_rng(0)
    wave = rng.uniform(-0.3, 0.3, 160000)
    wave[48000:80000] = 0.0
    write_wav(tmp_path / "a.wav", wave)
    eaf(tmp_path / "a.eaf", (0.0, 3.0, "mama"), (5.0, 6.0, "papa"))
    report = check_corpus({"train": read_corpus(tmp_path)})
    assert report.totals.all.seconds == pytest.approx(10.0)
    assert report.totals.all.labelled_seconds == pytest.approx(4.0)
    assert not {"silent_audio", "duplicate_audio", "duplicate_id"} & {
        finding.code for finding in report.findings
    }


# Transcripts that cannot be read --------------------------------------------------------------


def bad_folder(folder: Path) -> Path:
    for name in ("a", "b", "c", "d", "e"):
        audio(folder / f"{name}.wav")
    lines(folder / "a.txt", "mama")
    for name in ("b", "c"):
        (folder / f"{name}.txt").write_bytes("one\ncaf\xe9".encode("cp1252"))
    (folder / "d.txt").write_bytes(b"\xff\x00\x01")
    (folder / "e.eaf").write_text("<ANNOTATION_DOCUMENT>")
    return folder


def test_the_doctor_names_every_transcript_that_cannot_be_read(tmp_path) -> None:
    utterances, findings = read_with_findings(bad_folder(tmp_path))
    assert [u.text for u in utterances] == ["mama", None, None, None, None]
    bad = findings["unreadable_transcripts"]
    assert bad.severity == "error" and bad.title == "4 transcripts cannot be read"
    sources = [place.source.removeprefix(f"{tmp_path}/") for place in bad.places]
    assert sources == ["b.txt:2", "c.txt:2", "d.txt:1", "e.eaf"]
    details = [place.detail for place in bad.places]
    assert details[0] == (
        "is not UTF-8 text (byte 0xe9). It looks like Windows-1252: save it as UTF-8."
    )
    assert details[2].endswith("(byte 0xff). Save the file again as UTF-8.")
    assert check_corpus({"train": utterances}, known=list(findings.values())).breaks_training


def test_a_run_refuses_all_transcripts_that_cannot_be_read_at_once(tmp_path) -> None:
    with pytest.raises(DataError) as error:
        read_corpus(bad_folder(tmp_path))
    told = str(error.value)
    assert told.startswith(f"{tmp_path}: 4 transcripts cannot be read; `speechjepa check")
    assert all(name in told for name in ("b.txt:2", "c.txt:2", "d.txt:1", "and 1 more"))
    assert "e.eaf" not in told


def test_ids_that_are_used_twice_are_left_to_the_doctor(tmp_path) -> None:
    audio(tmp_path / "a.wav")
    row: dict[str, object] = {"file_name": "a.wav", "id": "x", "text": "mama"}
    path = rows(tmp_path / "metadata.jsonl", row, row, row)
    refused(path, 'the id "x" is taken by .*, and so are 1 more')
    utterances, _ = read_with_findings(path)
    report = check_corpus({"train": utterances})
    (doubles,) = [f for f in report.findings if f.code == "duplicate_id"]
    assert [place.source for place in doubles.places] == [f"{path}:2", f"{path}:3"]
    rows(path, row | {"split": "train"}, row | {"split": "dev"})
    with pytest.raises(DataError, match='the id "x" is taken'):
        read_with_findings(path)


# Tiers and speakers of ELAN ---------------------------------------------------------------------


def elan(path: Path, tiers: dict[str, list[tuple[int, int, str]]], **participants: str) -> None:
    """Write an ELAN document as ELAN makes it, its empty `default` tier included."""
    document = Eaf()
    for name, stretches in tiers.items():
        document.add_tier(name, part=participants.get(name.partition("@")[2]))
        for stretch in stretches:
            document.add_annotation(name, *stretch)
    document.to_file(str(path))


def texts(folder: Path, **options: Any) -> list[tuple[str, str | None, str | None]]:
    return [(u.id, u.text, u.speaker) for u in read_corpus(folder, **options) if u.text]


def test_the_empty_tier_of_a_new_document_is_not_asked_about(tmp_path) -> None:
    audio(tmp_path / "a.wav", 3.0)
    elan(tmp_path / "a.eaf", {"mdw": [(0, 1000, "mbwa")]})
    assert texts(tmp_path) == [("a@0", "mbwa", None)]
    elan(tmp_path / "a.eaf", {"default": [(0, 1000, "x")], "mdw": [(0, 1000, "mbwa")]})
    with pytest.raises(DataError, match=r"has the tiers default, mdw: .*--column text=TIER"):
        texts(tmp_path)


def test_the_tiers_of_several_speakers_are_read_together(tmp_path) -> None:
    audio(tmp_path / "a.wav", 4.0)
    spoken = {"tx@A": [(0, 1000, "one"), (1500, 2500, "three")], "tx@B": [(0, 1500, "two")]}
    elan(tmp_path / "a.eaf", {**spoken, "gloss@A": [(0, 1000, "eins")]}, A="ana", B="ben")
    told = [("a@0", "one", "ana"), ("a@0.2", "two", "ben"), ("a@1500", "three", "ana")]
    assert texts(tmp_path) == told
    assert texts(tmp_path, columns={"text": "tx@*"}) == told
    assert [row[1] for row in texts(tmp_path, columns={"text": "gloss@A"})] == ["eins"]


def test_a_file_without_the_tier_may_have_another(tmp_path) -> None:
    # One from the field, and one that `transcribe` wrote and somebody corrected.
    for name in "ab":
        audio(tmp_path / f"{name}.wav", 3.0)
    elan(tmp_path / "a.eaf", {"mdw": [(0, 1000, "mbwa")], "ft": [(0, 1000, "dog")]})
    eaf(tmp_path / "b.eaf", (0.0, 1.0, "nyama"))
    with pytest.raises(DataError, match=r"no tier 'mdw'; it has transcript. .*text=ONE,OTHER"):
        texts(tmp_path, columns={"text": "mdw"})
    read = texts(tmp_path, columns={"text": "mdw,transcript"})
    assert [text for _, text, _ in read] == ["mbwa", "nyama"]


def test_a_tier_in_which_nothing_stands_gives_way_to_another(tmp_path) -> None:
    # A template of ELAN has its tiers before anything is written into them.
    audio(tmp_path / "a.wav", 3.0)
    elan(tmp_path / "a.eaf", {"transcript": [], "tx@A": [(0, 1000, "one")]})
    assert [row[1] for row in texts(tmp_path)] == ["one"]
    assert [row[1] for row in texts(tmp_path, columns={"text": "transcript,tx@*"})] == ["one"]
    elan(tmp_path / "a.eaf", {"transcript": [], "notes": [(0, 1000, "one")]})
    assert texts(tmp_path) == []


def test_words_that_share_the_time_of_their_sentence_are_no_transcripts(tmp_path) -> None:
    audio(tmp_path / "a.wav", 3.0)
    document = Eaf()
    document.add_linguistic_type("words", "Symbolic_Subdivision")
    document.add_tier("ref@A")
    document.add_annotation("ref@A", 0, 2000, "mbwa adia")
    document.add_tier("tx@A", "words", parent="ref@A")
    previous = document.add_ref_annotation("tx@A", "ref@A", 1000, "mbwa")
    document.add_ref_annotation("tx@A", "ref@A", 1000, "adia", prev=previous)
    document.to_file(str(tmp_path / "a.eaf"))
    with pytest.raises(DataError, match=r"a\.eaf: tier 'tx@A' has 2 annotations for the same"):
        texts(tmp_path)
    assert [row[1] for row in texts(tmp_path, columns={"text": "ref@*"})] == ["mbwa adia"]


def test_a_folder_has_no_columns_but_the_tier(tmp_path) -> None:
    audio(tmp_path / "a.wav", 3.0)
    with pytest.raises(DataError, match="tier=mdw means nothing; text=TIER names the tier"):
        read_corpus(tmp_path, columns={"tier": "mdw"})


# Copies -----------------------------------------------------------------------------------------


def test_of_copies_of_a_transcribed_recording_one_is_read(tmp_path, caplog) -> None:
    for name in ("s.mp4", "s.flac", "s.mp3", "t.mp3", "u.mp3", "u.wav"):
        audio(tmp_path / "x.wav", 2.0).rename(tmp_path / name)
    eaf(tmp_path / "s.eaf", (0.0, 1.0, "said"))
    lines(tmp_path / "t.txt", "told")
    lines(tmp_path / "u.mp3.txt", "of its own")
    for name, text in (("v.mp3", "one"), ("v.wav", "one"), ("w.mp3", "two"), ("w.wav", "three")):
        audio(tmp_path / "x.wav").rename(tmp_path / name)
        lines(tmp_path / f"{name}.txt", text)
    utterances, findings = read_with_findings(tmp_path)
    assert [(u.audio_path.name, u.text) for u in utterances] == [
        ("s.flac", "said"),
        ("t.mp3", "told"),
        ("u.mp3", "of its own"),
        ("v.wav", "one"),
        ("w.mp3", "two"),
        ("w.wav", "three"),
    ]
    assert [u.id for u in utterances] == ["s.flac@0", "t", "u.mp3", "v.wav", "w.mp3", "w.wav"]
    told = findings["copied_recordings"]
    assert told.title.startswith("4 recordings left out")
    assert {Path(p.source).name: p.detail for p in told.places} == {
        "s.mp3": "s.flac is read",
        "s.mp4": "s.flac is read",
        "u.wav": "u.mp3 is read",
        "v.mp3": "v.wav is read",
    }
    read_corpus(tmp_path)
    assert "4 recordings left out" in caplog.text
