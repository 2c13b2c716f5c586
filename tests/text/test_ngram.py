from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from speechjepa.errors import DataError
from speechjepa.text.ngram import (
    FALLBACK_DISCOUNTS,
    NgramModel,
    estimate_ngram,
    read_arpa_words,
)

# The corpus and the output of `lmplz -o 2` in https://github.com/kpu/kenlm/issues/405.
PUBLISHED_TEXT = """I went to
I go to
You went to
You go to
Joe went to
Joe go to
Anna went ski
Anna went ski"""


def _sentences(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def _random_sentences(num: int, symbols: str = "abcdefgh|") -> list[list[str]]:
    generator = random.Random(0)
    weights = [1 + index**2 for index in range(len(symbols))]
    return [generator.choices(symbols, weights, k=generator.randint(1, 20)) for _ in range(num)]


def test_values_equal_those_published_for_lmplz() -> None:
    # lmplz counts the last unigram ("ski") twice as often as it should when it estimates the
    # unigram discounts, so those are given; everything else must follow.
    model = estimate_ngram(_sentences(PUBLISHED_TEXT), 2, discounts={1: (0.4, 1.6, 1.4)})
    assert model.tables[1].discounts == pytest.approx((0.3, 2 - 1.8 / 7, 3.0))
    for word, expected in {
        "<unk>": -1.30103,
        "</s>": -1.1249387,
        "I": -1.0579919,
        "went": -0.6726411,
        "to": -1.1249387,
        "go": -0.82390875,
        "ski": -1.0579919,
    }.items():
        assert model.log10_prob(word) == pytest.approx(expected, abs=1e-6)
    for history, word, expected in [
        ("to", "</s>", -0.26962152),
        ("ski", "</s>", -0.7123581),
        ("<s>", "I", -0.9649993),
        ("I", "went", -0.383262),
        ("Anna", "went", -0.50341624),
        ("I", "ski", -0.5228788 - 1.0579919),
        ("went", "go", -0.022929981 - 0.82390875),
    ]:
        assert model.log10_prob(word, [history]) == pytest.approx(expected, abs=1e-6)


def test_discounts_are_those_computed_by_hand() -> None:
    # Adjusted unigram counts of the text: 5 ones, 2 twos, 1 three, 1 four; Y = 5 / (5 + 2 * 2).
    model = estimate_ngram(_sentences(PUBLISHED_TEXT), 2)
    y = 5 / 9
    assert model.tables[0].discounts == pytest.approx((1 - 2 * y * 2 / 5, 2 - 3 * y / 2, 3 - 4 * y))
    assert not model.tables[0].is_fallback


@pytest.mark.parametrize("order", [2, 3, 5])
def test_probabilities_sum_to_one_after_any_history(order: int) -> None:
    sentences = _random_sentences(300)
    model = estimate_ngram(sentences, order, words=["z"])
    histories: list[list[str]] = [[], ["<s>"], ["z"], ["never", "seen"], ["a", "z", "b"]]
    for sentence in sentences[:40]:
        padded = ["<s>", *sentence]
        histories += [padded[max(0, end - order) : end] for end in range(1, len(padded) + 1)]
    for history in histories:
        total = sum(10 ** model.log10_prob(word, history) for word in model.words if word != "<s>")
        assert total == pytest.approx(1.0, abs=1e-9), history


def test_tiny_text_falls_back_to_fixed_discounts() -> None:
    model = estimate_ngram([["yes"], ["no"]], 3)
    assert all(table.is_fallback for table in model.tables)
    assert model.tables[2].discounts == FALLBACK_DISCOUNTS
    assert sum(10 ** model.log10_prob(w, ["<s>"]) for w in ("yes", "no", "</s>", "<unk>")) == (
        pytest.approx(1.0)
    )


def test_seen_text_is_likelier_than_its_letters_in_another_order() -> None:
    model = estimate_ngram([list("the|cat|sat"), list("the|dog|ran"), list("a|cat|ran")], 4)
    assert model.sentence_log10_prob("the|cat|ran") > model.sentence_log10_prob("het|tac|nar") + 2
    assert model.perplexity(["the|cat|ran"]) < model.perplexity(["het|tac|nar"])


def test_perplexity_of_a_uniform_model_is_the_number_of_its_symbols() -> None:
    uniform = estimate_ngram([["a"]], 2, words="b", discounts={1: (1, 2, 3), 2: (1, 2, 3)})
    assert uniform.perplexity([["a", "b", "a"], ["b"]]) == pytest.approx(4.0)  # a b </s> <unk>


def _kenlm_scores(path: Path, model: NgramModel, sentences: list[list[str]]) -> list[float]:
    kenlm = pytest.importorskip("flashlight.lib.text.decoder.kenlm")
    dictionary = pytest.importorskip("flashlight.lib.text.dictionary")
    scorer = kenlm.KenLM(str(path), dictionary.Dictionary(list(model.words)))
    ids = {word: index for index, word in enumerate(model.words)}
    totals = []
    for sentence in sentences:
        state, total = scorer.start(False), 0.0
        for word in sentence:
            state, score = scorer.score(state, ids.get(word, 0))
            total += score
        totals.append(total + scorer.finish(state)[1])
    return totals


@pytest.mark.parametrize("order", [2, 6])
def test_kenlm_reads_the_arpa_file_and_gives_the_same_scores(tmp_path: Path, order: int) -> None:
    sentences = _random_sentences(200, "abcdéŋʼ|")
    model = estimate_ngram(sentences, order, words=["z"])
    path = tmp_path / "lm.arpa"
    model.write_arpa(path)
    asked = [*_random_sentences(50, "abcdéŋʼ|z"), ["not", "known"], []]
    ours = [model.sentence_log10_prob(sentence) for sentence in asked]
    assert _kenlm_scores(path, model, asked) == pytest.approx(ours, abs=1e-4)


def test_symbols_of_an_arpa_file_are_read_back(tmp_path: Path) -> None:
    model = estimate_ngram([["é", "|"]], 2, words=["z"])
    model.write_arpa(tmp_path / "lm.arpa")
    assert read_arpa_words(tmp_path / "lm.arpa") == ["<unk>", "<s>", "</s>", "z", "|", "é"]
    (tmp_path / "bad").write_text("nothing here")
    with pytest.raises(DataError, match="no unigrams"):
        read_arpa_words(tmp_path / "bad")
    with pytest.raises(DataError, match="cannot be read"):
        read_arpa_words(tmp_path / "missing")


def test_reserved_symbols_and_empty_text_are_refused() -> None:
    with pytest.raises(DataError, match="<s>"):
        estimate_ngram([["a", "<s>"]], 2)
    with pytest.raises(DataError, match="white space"):
        estimate_ngram([["a b"]], 2)
    with pytest.raises(DataError, match="no text"):
        estimate_ngram([[], []], 2)
    with pytest.raises(ValueError, match="at least 2"):
        estimate_ngram([["a"]], 1)


def test_perplexity_of_nothing_is_infinite() -> None:
    assert math.isinf(estimate_ngram([["a"]], 2).perplexity([]))
