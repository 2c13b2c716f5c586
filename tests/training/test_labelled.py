"""What of labelled utterances is learnt from: transcripts, and lengths that fit them."""

from __future__ import annotations

from dataclasses import replace

from speechjepa.data.cache import build_cache
from speechjepa.data.utterance import RECOGNISED
from speechjepa.text.normalize import TextConfig
from speechjepa.training.labelled import LabelledItems, transcript
from tests.training.corpus import make_corpus
from tests.training.test_finetune import CONFIG, findings, run


def test_what_a_model_wrote_is_not_normalised_again(tmp_path):
    train = make_corpus(tmp_path / "audio")[:2]
    train[0] = replace(train[0], text="ab")
    train[1] = replace(train[1], text="ab", extra={RECOGNISED: "teacher"})
    chained = TextConfig(replacements={"a": "b", "b": "c"})
    assert [transcript(u, chained) for u in train] == ["bc", "ab"]
    items = LabelledItems(build_cache(train, tmp_path / "cache"), chained)
    assert items.texts == ["bc", "ab"]


def test_an_utterance_that_no_speed_makes_too_short_is_kept_and_others_are_not(tmp_path):
    # 1.2 s have 30 frames, doubled to 60; at 1.5 times the speed 40.
    corpus = make_corpus(tmp_path / "audio")
    train = [replace(corpus[0], text="ab" * 19), replace(corpus[1], text="ab" * 21)]
    config = replace(CONFIG, max_steps=40, speed_perturbation=0.5)
    run(tmp_path, config, train=train, dev=[])
    assert "001 is left out" in findings(tmp_path / "run")["label_longer_than_frames"]
    assert "000 is left out" not in (tmp_path / "run" / "doctor.jsonl").read_text()
