"""What is written for ELAN and Praat is what their libraries, and our reader, read back."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from speechjepa.data.readers import read_corpus
from speechjepa.data.readers.annotations import read_annotations
from speechjepa.errors import DataError
from speechjepa.inference.writers import format_result, parse_formats, write_result
from tests.inference.test_writers import result, segment

SPOKEN = result(
    segment(0.5, 2.25, "mbote na <yo> & 'me'", words=True),
    segment(2.25, 2.25, "ŋá\ntwo"),
    segment(3.0, 4.2, "last", words=True),
    duration=5.0,
)
EXPECTED = [(0.5, 2.25, "mbote na <yo> & 'me'"), (2.25, 2.251, "ŋá two"), (3.0, 4.2, "last")]


@pytest.mark.parametrize("suffix", ["eaf", "TextGrid"])
def test_segments_come_back_with_their_times(suffix, tmp_path):
    (path,) = write_result(SPOKEN, [tmp_path / f"a.{suffix}"], recording=tmp_path / "a.wav")
    found = read_annotations(path)
    assert [annotation.text for annotation in found] == [text for *_, text in EXPECTED]
    assert [time for a in found for time in a[:2]] == pytest.approx(
        [time for a in EXPECTED for time in a[:2]], abs=1e-6
    )
    words = read_annotations(path, "words")
    assert [word.text for word in words] == ["mbote", "na", "<yo>", "&", "'me'", "last"]


def test_elan_finds_the_recording_beside_its_document(tmp_path):
    from pympi.Elan import Eaf

    (path,) = write_result(SPOKEN, [tmp_path / "a.eaf"], recording=tmp_path / "a.wav")
    (media,) = Eaf(str(path)).media_descriptors
    assert media["RELATIVE_MEDIA_URL"] == "./a.wav"
    assert str(tmp_path) not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("suffix", ["eaf", "TextGrid"])
def test_silence_gives_a_document_without_transcript(suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    path.write_text(format_result(result(duration=0.0), suffix), encoding="utf-8")
    assert read_annotations(path) == []


def test_formats_are_understood_whatever_their_case():
    assert parse_formats("textgrid,EAF,srt") == ("TextGrid", "eaf", "srt")
    assert {"eaf", "TextGrid"} <= set(parse_formats("all"))


def audio(path, seconds=5):
    soundfile.write(path, np.zeros(16000 * seconds), 16000)


@pytest.mark.parametrize("suffix", ["eaf", "TextGrid"])
def test_a_corrected_document_beside_a_recording_is_training_data(suffix, tmp_path):
    for name in "abc":
        audio(tmp_path / f"{name}.wav")
    write_result(SPOKEN, [tmp_path / f"a.{suffix}"])
    write_result(result(duration=5.0), [tmp_path / f"c.{suffix}"])
    found = {u.id: u for u in read_corpus(tmp_path)}
    assert sorted(found) == ["a@2250", "a@3000", "a@500", "b", "c"]
    last = found["a@3000"]
    assert (last.start, last.text) == (3.0, "last")
    assert last.duration == pytest.approx(1.2)
    assert found["b"].text is None and found["c"].text is None


def test_of_several_tiers_one_must_be_named(tmp_path):
    from pympi.Elan import Eaf

    audio(tmp_path / "a.wav")
    document = Eaf()
    for tier, text in (("gloss", "dog"), ("Ref", "mbwa")):
        document.add_tier(tier)
        document.add_annotation(tier, 0, 1000, text)
    document.remove_tier("default")
    document.to_file(str(tmp_path / "a.eaf"))
    with pytest.raises(DataError, match=r"a\.eaf: has the tiers gloss, Ref: say which one"):
        read_corpus(tmp_path)
    only, _ = read_corpus(tmp_path, columns={"text": "Ref"})
    assert only.text == "mbwa"
    with pytest.raises(DataError, match=r"has no tier 'tx'; it has gloss, Ref"):
        read_corpus(tmp_path, columns={"text": "tx"})


@pytest.mark.parametrize("name", ["a.eaf", "a.TextGrid"])
@pytest.mark.parametrize("content", [b"", b"<ANNOTATION_DOCUMENT>", b"\xff\xfe\x00", b"File type"])
def test_a_damaged_document_is_named(name, content, tmp_path):
    audio(tmp_path / "a.wav")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}"):
        read_corpus(tmp_path)


@pytest.mark.parametrize("suffix", ["eaf", "TextGrid"])
def test_odd_text_and_words_at_the_very_end_are_written(suffix, tmp_path):
    spoken = result(
        segment(0.5, 2.0, "from\x02 Word\x1b \ufffe"),
        segment(5.0, 5.0, "1998"),
        segment(5.0, 5.0, "1999"),
        duration=5.0,
    )
    (path,) = write_result(spoken, [tmp_path / f"a.{suffix}"])
    found = read_annotations(path)
    assert [a.text for a in found][1:] == ["1998", "1999"]
    assert found[-1].end == pytest.approx(5.002)
