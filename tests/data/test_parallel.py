"""CVSS and FLEURS as pairs, on small fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest

from speechjepa.data.pairs import pair_utterances
from speechjepa.data.parallel import write_cvss, write_fleurs
from speechjepa.data.readers import read_corpus
from speechjepa.errors import DataError
from tests.data.corpora import audio, lines


def cvss(root: Path) -> tuple[Path, Path]:
    for number in (1, 2):
        audio(root / f"cv/clips/common_voice_es_{number}.mp3")
        audio(root / f"cvss/train/common_voice_es_{number}.mp3.wav")
    lines(
        root / "cv/validated.tsv",
        "client_id\tpath\tsentence",
        "anna\tcommon_voice_es_1.mp3\tuno",
        "ben\tcommon_voice_es_3.mp3\ttres",
    )
    lines(
        root / "cvss/train.tsv",
        *(f"common_voice_es_{number}.mp3\t{text}" for number, text in ((1, "one"), (2, "two"))),
        "common_voice_es_9.mp3\tnobody recorded it",
    )
    return root / "cvss", root / "cv"


def test_cvss_is_joined_with_the_recordings_that_it_translates(tmp_path: Path) -> None:
    (manifest,) = write_cvss(*cvss(tmp_path), "es")
    first, second = pair_utterances(read_corpus(manifest), language="en")
    assert (first.text, first.source.text, first.source.speaker) == ("one", "uno", "anna")
    assert first.target is not None and first.target.audio_path.name == "common_voice_es_1.mp3.wav"
    assert (second.text, second.source.text, second.source.language) == ("two", None, "es")


def test_what_is_wrong_with_cvss_is_said(tmp_path: Path) -> None:
    folder, voices = cvss(tmp_path)
    with pytest.raises(DataError, match="none of train.tsv"):
        write_cvss(tmp_path / "nowhere", voices, "es")
    lines(folder / "train.tsv", "common_voice_es_1.mp3 one")
    with pytest.raises(DataError, match=r"train\.tsv:1: must hold a clip and its translation"):
        write_cvss(folder, voices, "es")
    lines(folder / "train.tsv", "common_voice_es_9.mp3\tnine")
    with pytest.raises(DataError, match="none of its clips is in"):
        write_cvss(folder, voices, "es")
    lines(voices / "validated.tsv", "path\tsentence")
    with pytest.raises(DataError, match=r"validated\.tsv:1: lacks the column client_id"):
        write_cvss(folder, voices, "es")


def fleurs(root: Path, language: str, *rows: tuple[str, str, str]) -> None:
    for _, name, _ in rows:
        audio(root / language / "audio/dev" / name)
    table = [f"{key}\t{name}\t{text.title()}\t{text}\tc\t1600\tMALE" for key, name, text in rows]
    lines(root / language / "dev.tsv", *table)


def test_fleurs_is_joined_by_sentence(tmp_path: Path) -> None:
    fleurs(
        tmp_path, "es_419", ("7", "a.wav", "siete"), ("7", "b.wav", "siete"), ("8", "c.wav", "x")
    )
    fleurs(tmp_path, "en_us", ("7", "d.wav", "seven"), ("7", "e.wav", "seven"))
    (manifest,) = write_fleurs(tmp_path, "es_419", "en_us", tmp_path / "out")
    pairs = pair_utterances(read_corpus(manifest), language="en_us")
    assert [(p.id, p.text, p.source.text) for p in pairs] == [
        ("a", "seven", "siete"),
        ("b", "seven", "siete"),
    ]
    assert {p.target.audio_path.name for p in pairs if p.target} == {"d.wav"}


def test_what_is_wrong_with_fleurs_is_said(tmp_path: Path) -> None:
    fleurs(tmp_path, "es_419", ("7", "a.wav", "siete"))
    with pytest.raises(DataError, match="no such table"):
        write_fleurs(tmp_path, "es_419", "en_us", tmp_path / "out")
    fleurs(tmp_path, "en_us", ("8", "d.wav", "eight"))
    with pytest.raises(DataError, match="none of its sentences is in en_us"):
        write_fleurs(tmp_path, "es_419", "en_us", tmp_path / "out")
    lines(tmp_path / "en_us/dev.tsv", "7\td.wav")
    with pytest.raises(DataError, match=r"dev\.tsv:1: must have 7 columns, but has 2"):
        write_fleurs(tmp_path, "es_419", "en_us", tmp_path / "out")
