"""Invented words, and corpora of voices and places of all kinds."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speechjepa.data.synthetic.acoustics import USUAL, WIDE, Conditions, disturb
from speechjepa.data.synthetic.corpus import SyntheticCorpus, make_corpus
from speechjepa.data.synthetic.espeak import phonemes
from speechjepa.data.synthetic.invented import WordInventor
from speechjepa.data.synthetic.spoken import _MANNERS
from speechjepa.errors import DataError

SETTINGS = SyntheticCorpus(
    languages=("he", "pl"),
    minutes=0.2,
    dev_minutes=0.05,
    test_minutes=0.05,
    label_minutes=(),
    varied=True,
    invented=0.8,
)


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "train" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_invented_words_are_the_paths_through_the_known_ones() -> None:
    # Of "abab": a, then b; after "ab" either a or the end; after "ba" always b.
    inventor, rng = WordInventor(["abab"]), random.Random(0)
    words = {inventor.word(rng) for _ in range(300)}
    assert all(re.fullmatch("(ab)+", word) and len(word) <= 14 for word in words)
    assert {"ab", "abab", "ababab"} <= words


def test_words_of_a_language_are_read_by_its_rules() -> None:
    inventor, rng = WordInventor.of_language("pl", seed=0), random.Random(0)
    said = [inventor.utterance(rng) for _ in range(40)]
    assert {len(text.split()) for text in said} >= {1, 2, 8}
    words = [word for text in said for word in text.split()]
    assert 0.4 < np.mean([word not in inventor.words for word in words]) < 0.9
    assert all(phonemes(text, "pl") for text in said)


def test_korean_words_are_made_of_letters_not_of_syllables() -> None:
    inventor, rng = WordInventor.of_language("ko", seed=0), random.Random(0)
    words = [inventor.word(rng) for _ in range(200)]
    assert np.mean([word not in inventor.words for word in words]) > 0.6
    assert all("가" <= letter <= "힣" for word in words[:50] for letter in word[:1])


def test_words_that_never_end_are_cut_off() -> None:
    long = "".join(map(chr, range(ord("a"), ord("z") + 1)))  # one way through
    assert WordInventor([long]).word(random.Random(0)) == long[:14]


@pytest.mark.parametrize("words", [[], ["", " "]])
def test_no_words_are_refused(words: list[str]) -> None:
    with pytest.raises(DataError, match="no words"):
        WordInventor(words)


def test_a_corpus_of_invented_words_can_be_made_again(tmp_path: Path) -> None:
    one, other = (make_corpus(tmp_path / name, SETTINGS, num_workers=1) for name in "ab")
    assert rows(one) == rows(other)
    for row in rows(one):
        sound = one / "train" / row["file_name"]
        assert sound.read_bytes() == (other / "train" / row["file_name"]).read_bytes()
    keys = [row["key"] for row in rows(one)]
    invented = [key for key in keys if "train" in key]
    assert len(set(keys)) == len(keys) and 0 < len(invented) < len(keys)


def test_a_corpus_from_before_a_setting_is_left_alone(tmp_path: Path) -> None:
    tiny = {"minutes": 0.1, "dev_minutes": 0.05, "test_minutes": 0.05, "label_minutes": ()}
    settings = SyntheticCorpus(languages=("fi",), **tiny)
    folder = make_corpus(tmp_path / "corpus", settings, num_workers=1)
    about = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    del about["settings"]["varied"], about["settings"]["invented"]
    (folder / "corpus.json").write_text(json.dumps(about), encoding="utf-8")
    (folder / "mine.txt").write_text("a note")
    make_corpus(folder, settings, num_workers=1)
    assert (folder / "mine.txt").exists()


def test_varied_voices_stay_within_what_the_synthesiser_survives() -> None:
    rng = np.random.default_rng(0)
    drawn = [_MANNERS[True].draw(rng) for _ in range(500)]
    assert min(each["pitch"] for each in drawn) < 20
    assert all(each["pitch"] >= 35 or each["pitch_range"] <= 55 for each in drawn)
    assert max(each["pitch_range"] for each in drawn) == 70


def test_wide_conditions_reach_further_than_the_usual_ones() -> None:
    tone = np.sin(np.arange(8000) * 0.2).astype(np.float32)

    def peaks(conditions: Conditions) -> list[float]:
        heard = [disturb(tone, np.random.default_rng(n), 16000, conditions) for n in range(40)]
        assert all(each.dtype == np.float32 and np.isfinite(each).all() for each in heard)
        return [20 * float(np.log10(np.abs(each).max())) for each in heard]

    wide, usual = peaks(WIDE), peaks(USUAL)
    assert min(wide) < -21 < -20.01 < min(usual) and max(usual) < -1.99 < max(wide) <= -0.99
    assert min(wide) > -30.01


def test_files_are_as_long_as_they_are_said_to_be(tmp_path: Path) -> None:
    folder = make_corpus(tmp_path / "corpus", SETTINGS, num_workers=1)
    for row in rows(folder):
        info = soundfile.info(str(folder / "train" / row["file_name"]))
        assert info.duration == pytest.approx(row["duration"], abs=1e-3)
