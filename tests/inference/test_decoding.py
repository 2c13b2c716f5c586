"""Hotwords, alternatives and another language model change the text as they should."""

from __future__ import annotations

import pytest
import torch

from speechjepa.errors import ConfigError, DataError, ModelError
from speechjepa.inference.decoding import Choices, heard, make_decoder, read_hotwords
from speechjepa.inference.transcribe import transcribe
from speechjepa.text.ngram import estimate_ngram
from speechjepa.text.vocabulary import Vocabulary
from tests.inference.test_search import _confuse, _logits
from tests.tone_model import ToneModel, synthesize, write

TEXTS = ["the cat sat", "the mat", "a hat and bog"]


@pytest.fixture(autouse=True)
def flashlight():
    pytest.importorskip("flashlight.lib.text.decoder")


@pytest.fixture
def vocabulary():
    return Vocabulary.build(TEXTS)


def text_of(logits, vocabulary, **choices):
    decode = make_decoder(vocabulary, None, Choices(**choices))
    return decode(logits[None], torch.tensor([len(logits)]))[0]


def test_a_hotword_is_recovered_that_was_lost_without(vocabulary):
    logits = _confuse(_logits("the cat", vocabulary), 4, "b", vocabulary)
    assert text_of(logits, vocabulary).text == "the bat"
    assert text_of(logits, vocabulary, hotwords=("cat",)).text == "the cat"
    assert text_of(logits, vocabulary, hotwords=("the cat",)).text == "the cat"
    assert text_of(logits, vocabulary, hotwords=("cat",), hotword_score=0.0).text == "the bat"


def test_a_name_may_be_given_with_its_capital(vocabulary):
    logits = _confuse(_logits("the cat", vocabulary), 4, "b", vocabulary)
    assert text_of(logits, vocabulary, hotwords=("Cat",)).text == "the cat"


def test_a_hotword_that_was_not_said_changes_nothing(vocabulary):
    logits = _logits("the cat", vocabulary)
    assert text_of(logits, vocabulary, hotwords=("hog", "mad")).text == "the cat"


def test_alternatives_come_in_order_and_are_different(vocabulary):
    logits = _confuse(_logits("the cat", vocabulary), 4, "b", vocabulary)
    found = text_of(logits, vocabulary, n_best=3)
    assert found.text == "the bat"
    assert len(found.alternatives) == 2 and found.alternatives[0][0] == "the cat"
    scores = [found.score, *(score for _, score in found.alternatives)]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("kind", ["characters", "words"])
def test_another_language_model_is_used(kind, vocabulary, tmp_path):
    words = (
        [t.split() for t in TEXTS]
        if kind == "words"
        else [list(t.replace(" ", "|")) for t in TEXTS]
    )
    known = () if kind == "words" else vocabulary.symbols[1:]
    estimate_ngram(words, 3, words=known).write_arpa(tmp_path / "lm.arpa")
    logits = _confuse(_logits("the cat", vocabulary), 4, "b", vocabulary)
    assert text_of(logits, vocabulary, language_model=str(tmp_path / "lm.arpa")).text == "the cat"


def test_what_does_not_go_together_is_refused(vocabulary):
    with pytest.raises(ConfigError, match="greedy decoding knows no"):
        Choices(decoder="greedy", hotwords=("a",))
    with pytest.raises(ConfigError, match="n_best"):
        Choices(n_best=0)
    with pytest.raises(ConfigError, match=r"hotword 'Zoë' holds 'Z', 'ë'"):
        make_decoder(vocabulary, None, Choices(hotwords=("Zoë",)))
    with pytest.raises(ModelError, match="carries no language model"):
        make_decoder(vocabulary, None, Choices(decoder="beam"))


def test_whole_words_are_counted():
    assert heard("cat  cats a cat", ["cat"]) == 2
    assert heard("the cat sat", ["the cat", "cat sat"]) == 2


@pytest.mark.parametrize("name", ["nosuch.txt", "folder/nosuch", "names"])
def test_a_file_of_hotwords_that_is_not_there_is_said(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if name == "names":  # a word, although there is a folder of that name
        (tmp_path / name).mkdir()
        assert read_hotwords(name) == (name,)
        return
    with pytest.raises(DataError, match=f"{name}: there is no such .txt file of hotwords"):
        read_hotwords(name)


def test_hotwords_are_parted_by_commas_or_lines(tmp_path):
    assert read_hotwords(" a, b  c ,,a") == ("a", "b c")
    (tmp_path / "w.txt").write_text("kó\n\nb c\n", encoding="utf-8")
    assert read_hotwords(str(tmp_path / "w.txt")) == ("kó", "b c")
    assert read_hotwords("") == ()
    assert read_hotwords("km/h,b") == ("km/h", "b")
    (tmp_path / "w.txt").write_bytes(b"k\xf3\n")
    with pytest.raises(DataError, match=r"w\.txt:1: .*not UTF-8"):
        read_hotwords(str(tmp_path / "w.txt"))


def test_a_file_gives_alternatives(tmp_path):
    path = write(tmp_path / "a.wav", synthesize("ab c"))
    (segment,) = transcribe(ToneModel(), path, n_best=2)["segments"]
    assert segment["text"] == "ab c"
    assert len(segment["alternatives"]) == 1
    assert segment["alternatives"][0]["text"] != "ab c"


def test_a_string_of_hotwords_is_read_as_the_command_line_reads_it(vocabulary):
    logits = _confuse(_logits("the cat", vocabulary), 4, "b", vocabulary)
    assert text_of(logits, vocabulary, hotwords="mat, cat").text == "the cat"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"hotwords": [5]}, "`hotwords` must be words"),
        ({"hotwords": None}, "`hotwords` must be words"),
        ({"hotword_score": float("nan")}, "`hotword_score` must be a number"),
        ({"n_best": 2.5}, "`n_best` must be a whole number"),
    ],
)
def test_choices_of_another_kind_are_refused(choice, message):
    with pytest.raises(ConfigError, match=message):
        Choices(**choice)
