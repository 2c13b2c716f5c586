"""A corpus in splits that is named as a whole is learnt from by its split for training alone."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechjepa.errors import DataError
from speechjepa.workflow.corpora import Corpora
from speechjepa.workflow.recipe import CorpusConfig, DataConfig
from speechjepa.workflow.self_training import unlabelled


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    for split, count in (("train", 5), ("validation", 2), ("test", 3)):
        for i in range(count):
            path = tmp_path / "all" / split / f"{split}{i}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.full(16000, 0.1 * i), 16000)
            path.with_suffix(".txt").write_text("ab")
    return DataConfig(root=tmp_path, train="all")


def names(utterances) -> list[str]:
    return sorted(utterance.audio_path.stem for utterance in utterances)


def test_labels_are_of_the_training_split_and_are_measured_on_the_dev_split(
    config, tmp_path, caplog
):
    corpora = Corpora(config, tmp_path / "run")
    with caplog.at_level(logging.WARNING):
        assert names(corpora.labelled) == [f"train{i}" for i in range(5)]
    assert names(corpora.dev) == ["validation0", "validation1"]
    assert corpora.dev_name == "dev"
    assert "of other splits than train: 3 of test, 2 of validation" in caplog.text
    assert names(corpora.pool) == [f"train{i}" for i in range(5)]
    assert unlabelled(corpora) == []


def test_self_training_hears_the_training_split_alone(config, tmp_path):
    (tmp_path / "all" / "train" / "train0.txt").unlink()
    assert names(unlabelled(Corpora(config, tmp_path / "run"))) == ["train0"]


def test_pretraining_hears_no_test_audio_unless_it_is_named(config, tmp_path, caplog):
    def heard(*pool, **more):
        caplog.clear()
        return names(Corpora(replace(config, pool=pool, **more), tmp_path / "run").pool)

    others = [*(f"train{i}" for i in range(5)), "validation0", "validation1"]
    tests = ["test0", "test1", "test2"]
    named = CorpusConfig(location="all", split="test")
    with caplog.at_level(logging.WARNING):
        assert heard("all", train=None) == others
        assert "not pretrained on, as they are for tests: 3 utterances, the first" in caplog.text
        assert "`{location: ..., split: test}`" in caplog.text
        assert heard(named, train=None) == heard("all/test", train=None) == tests
        assert heard("all", named, train=None) == sorted([*tests, *others])
        (tmp_path / "all" / "few.txt").write_text("test/test0\ntrain/train1\n")
        assert heard(labels="few") == sorted([*tests, *others])  # labels are of the test split
        assert not caplog.text


def test_recordings_of_no_split_are_learnt_from_and_other_spellings_are_known(config, tmp_path):
    everything = tmp_path / "all"
    (everything / "train").rename(everything / "Training")
    (everything / "validation").rename(everything / "devel")
    (everything / "anna").mkdir()
    for suffix in ("wav", "txt"):
        (everything / "test" / f"test0.{suffix}").rename(everything / "anna" / f"anna.{suffix}")
    corpora = Corpora(config, tmp_path / "run")
    assert names(corpora.labelled) == ["anna", *(f"train{i}" for i in range(5))]
    assert names(corpora.dev) == ["validation0", "validation1"]


def test_what_is_named_goes_before(config, tmp_path):
    split = replace(config, train=CorpusConfig(location="all", split="test"), dev_minutes=0.01)
    corpora = Corpora(split, tmp_path / "run")
    assert names([*corpora.labelled, *corpora.dev]) == ["test0", "test1", "test2"]
    dev = replace(config, dev=CorpusConfig(location="all", split="test"))
    corpora = Corpora(dev, tmp_path / "run")
    assert names(corpora.dev) == ["test0", "test1", "test2"]
    (tmp_path / "all" / "few.txt").write_text("test/test0\ntrain/train1\nvalidation/validation0\n")
    listed = Corpora(replace(config, labels="few", dev_minutes=0.03), tmp_path / "run")
    assert names(listed.labelled) == ["test0", "train1", "validation0"]
    (tmp_path / "all" / "few.txt").write_text("train/train0\ntrain/train1\n")
    listed = Corpora(replace(config, labels="few", dev_minutes=0.03), tmp_path / "run")
    assert listed.dev_name == "held-out"
    assert {name.rstrip("01234") for name in names(listed.dev)} == {"train"}


def test_a_dev_split_without_transcripts_is_none(config, tmp_path):
    for path in (tmp_path / "all" / "validation").glob("*.txt"):
        path.unlink()
    corpora = Corpora(replace(config, dev_minutes=0.01), tmp_path / "run")
    assert names([*corpora.labelled, *corpora.dev]) == [f"train{i}" for i in range(5)]
    assert corpora.dev_name == "held-out"


def test_a_dev_set_without_transcripts_is_an_error_before_training(config, tmp_path):
    for path in (tmp_path / "all" / "test").glob("*.txt"):
        path.unlink()
    dev = replace(config, dev=CorpusConfig(location="all", split="test"))
    with pytest.raises(DataError, match="none of the 3 utterances of `data.dev` has a transcript"):
        Corpora(dev, tmp_path / "run").read_all()
