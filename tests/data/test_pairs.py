"""Parallel speech: columns, keys, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speechjepa.data.pairs import pair_utterances
from speechjepa.data.readers import read_corpus
from speechjepa.errors import DataError
from tests.data.corpora import audio, rows


def corpus(folder: Path, *extra: dict[str, Any]) -> Path:
    content = []
    for number, row in enumerate(extra):
        audio(folder / f"audio/{number}.wav")
        content.append({"file_name": f"audio/{number}.wav", "id": str(number), **row})
    rows(folder / "metadata.jsonl", *content)
    return folder


def test_a_column_by_language_names_audio_and_text(tmp_path: Path) -> None:
    audio(tmp_path / "de/0.wav")
    both = {"target_audio": {"de": "de/0.wav"}, "translation": {"de": "eins", "fr": "un"}}
    source = read_corpus(corpus(tmp_path, both, {"translation": {"fr": "deux"}}, {}))
    (german,) = pair_utterances(source, language="de")
    assert german.target is not None and german.target.audio_path == tmp_path / "de/0.wav"
    assert (german.id, german.text, german.target.language) == ("0", "eins", "de")
    french = pair_utterances(source, language="fr")
    assert [(p.id, p.target, p.text) for p in french] == [("0", None, "un"), ("1", None, "deux")]


def test_a_plain_column_needs_no_language(tmp_path: Path) -> None:
    source = read_corpus(corpus(tmp_path, {"translation": "one"}))
    assert [pair.text for pair in pair_utterances(source)] == ["one"]


def test_two_corpora_are_joined_by_key(tmp_path: Path) -> None:
    source = read_corpus(corpus(tmp_path / "a", {"key": "x"}, {"key": "y"}, {}))
    target = read_corpus(corpus(tmp_path / "b", {"key": "y", "text": "why"}, {"key": "z"}))
    (pair,) = pair_utterances(source, target=target)
    assert pair.source.id == "1" and pair.target is target[0] and pair.text == "why"


def test_what_is_wrong_is_said_with_file_and_line(tmp_path: Path) -> None:
    two = {"translation": {"de": "eins", "fr": "un"}}
    number = {"translation": 3}
    outside = {"target_audio": "../../elsewhere.wav"}
    for row, reason in (
        (two, r"metadata\.jsonl:1: .*de, fr: say which"),
        (number, r"metadata\.jsonl:1: .*must be text"),
        (outside, r"metadata\.jsonl:1: .*leaves the data folder"),
        ({}, 'none of the 1 utterances of .* has a column "target_audio"'),
    ):
        source = read_corpus(corpus(tmp_path, row))
        with pytest.raises(DataError, match=reason):
            pair_utterances(source)


def test_a_key_that_is_said_twice_is_refused(tmp_path: Path) -> None:
    source = read_corpus(corpus(tmp_path, {"key": "x"}, {"key": "x"}))
    with pytest.raises(DataError, match=r'2: the key "x" is that of .*1 already'):
        pair_utterances(source[:1], target=source)
    with pytest.raises(DataError, match="none of the 1 utterances"):
        pair_utterances(source[:1], target=[])
