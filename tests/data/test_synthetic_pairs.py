"""Parallel synthetic speech."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile

from speechjepa.data.synthetic.pairs import PhrasePairs, make_pairs
from speechjepa.data.synthetic.text import express
from speechjepa.errors import DataError

SMALL = PhrasePairs(
    source="it", target="en", kinds=("territory", "time"), train_pairs=4, dev_pairs=2, test_pairs=1
)


def rows(folder: Path, split: str) -> list[dict[str, Any]]:
    text = (folder / split / "metadata.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_both_sides_say_the_same_and_no_phrase_is_in_two_splits(tmp_path: Path) -> None:
    folder = make_pairs(tmp_path / "pairs", SMALL, num_workers=1)
    splits = {split: rows(folder, split) for split in ("train", "dev", "test")}
    assert [len(rows) for rows in splits.values()] == [4, 2, 1]
    texts = [row["text"] for found in splits.values() for row in found]
    assert len(set(texts)) == len(texts)
    voices = [{row["speaker"] for row in found} for found in splits.values()]
    assert not voices[0] & voices[1] and not voices[0] & voices[2]
    for split, found in splits.items():
        for row in found:
            for name in (row["file_name"], row["target_audio"]["en"]):
                assert soundfile.info(folder / split / name).duration > 0.2
            assert row["duration"] == pytest.approx(
                soundfile.info(folder / split / row["file_name"]).duration, abs=1e-3
            )


def test_the_same_settings_are_left_alone_and_others_replace(tmp_path: Path) -> None:
    one = PhrasePairs(train_pairs=1, dev_pairs=1, test_pairs=1, kinds=("territory",))
    folder = make_pairs(tmp_path / "pairs", one, num_workers=1)
    before = (folder / "corpus.json").stat().st_mtime_ns
    make_pairs(folder, one, num_workers=1)
    assert (folder / "corpus.json").stat().st_mtime_ns == before
    other = PhrasePairs(train_pairs=1, dev_pairs=1, test_pairs=1, kinds=("territory",), target="fr")
    make_pairs(folder, other, num_workers=1)
    assert "fr" in rows(folder, "train")[0]["translation"]


def test_every_language_can_be_either_side() -> None:
    from speechjepa.data.synthetic.text import LANGUAGES, draw_meaning

    assert len(LANGUAGES) >= 20
    for code in LANGUAGES:
        said = [
            express(draw_meaning(i, kinds=("time", "territory"), most_parts=2), code)
            for i in range(20)
        ]
        assert sum(sentence is not None for sentence in said) >= 10, code


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"source": "xx"}, "`source` must be among"),
        ({"source": "en"}, "must differ"),
        ({"kinds": ("dates",)}, "`kinds` must be some of"),
        ({"most_parts": 4}, "`most_parts` must be 1 to 3"),
        ({"dev_pairs": 0}, "`dev_pairs` must be at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        PhrasePairs(**settings)


def test_too_few_phrases_are_said_so(tmp_path: Path) -> None:
    settings = PhrasePairs(kinds=("month",), most_parts=1, train_pairs=50, dev_pairs=1)
    with pytest.raises(DataError, match="too few phrases of month"):
        make_pairs(tmp_path / "pairs", settings, num_workers=1)
