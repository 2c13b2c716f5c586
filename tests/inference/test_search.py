from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from speechjepa.errors import ConfigError, ModelError
from speechjepa.inference.search import BeamConfig, BeamSearch, greedy_decode
from speechjepa.text.ngram import estimate_ngram
from speechjepa.text.vocabulary import Vocabulary

needs_flashlight = pytest.mark.usefixtures("flashlight")
TEXTS = ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog", "the mat"]


@pytest.fixture
def flashlight() -> None:
    pytest.importorskip("flashlight.lib.text.decoder")


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary.build(TEXTS)


@pytest.fixture
def character_lm(tmp_path: Path, vocabulary: Vocabulary) -> Path:
    model = estimate_ngram(
        [list(text.replace(" ", "|")) for text in TEXTS], 5, words=vocabulary.symbols[1:]
    )
    model.write_arpa(tmp_path / "characters.arpa")
    return tmp_path / "characters.arpa"


@pytest.fixture
def word_lm(tmp_path: Path) -> Path:
    estimate_ngram([text.split() for text in TEXTS], 3).write_arpa(tmp_path / "words.arpa")
    return tmp_path / "words.arpa"


def _logits(text: str, vocabulary: Vocabulary) -> Tensor:
    """Three frames for each character, sure of itself; (T, V)."""
    logits = torch.zeros(3 * len(text), len(vocabulary))
    logits[:, vocabulary.blank_id] = 6.0
    for position, token_id in enumerate(vocabulary.encode(text)):
        logits[3 * position + 1, token_id] = 12.0
    return logits


def _confuse(logits: Tensor, position: int, wrong: str, vocabulary: Vocabulary) -> Tensor:
    """Make the model slightly prefer `wrong` at a character."""
    logits = logits.clone()
    logits[3 * position + 1, vocabulary.encode(wrong)[0]] = 12.5
    return logits


def _decode(search: BeamSearch, logits: Tensor) -> str:
    return search.decode(logits[None], torch.tensor([len(logits)]))[0].text


def test_greedy_collapses_repeats_and_drops_blanks() -> None:
    vocabulary = Vocabulary.build(["ab"])
    path = [1, 2, 2, 0, 2, 1, 1, 3, 0]  # | a a - a | | b -
    logits = 9.0 * torch.nn.functional.one_hot(torch.tensor([path]), 4).float()
    (hypothesis,) = greedy_decode(logits, torch.tensor([9]), vocabulary)
    assert hypothesis.text == "aa b"
    assert hypothesis.token_ids == (1, 2, 2, 1, 3)
    assert hypothesis.frames == (0, 1, 4, 5, 7)
    expected = 9 * (9.0 - math.log(math.exp(9.0) + 3))
    assert hypothesis.score == pytest.approx(expected, abs=1e-4)


def test_greedy_reads_only_the_valid_frames(vocabulary: Vocabulary) -> None:
    logits = torch.stack([_logits("the cat", vocabulary)] * 2)
    first, second = greedy_decode(logits, torch.tensor([21, 9]), vocabulary)
    assert (first.text, second.text) == ("the cat", "the")


def test_logits_of_another_vocabulary_are_refused(vocabulary: Vocabulary) -> None:
    with pytest.raises(ValueError, match=rf"\(B, T, {len(vocabulary)}\)"):
        greedy_decode(torch.zeros(1, 3, 5), torch.tensor([3]), vocabulary)


@needs_flashlight
@pytest.mark.parametrize("seed", range(5))
def test_without_a_language_model_the_search_finds_the_likeliest_text(seed: int) -> None:
    vocabulary = Vocabulary.build(["abc"])
    logits = 1.5 * torch.randn(6, 5, generator=torch.Generator().manual_seed(seed))
    logits[:, vocabulary.word_boundary_id] = -30.0
    log_probs = logits.log_softmax(dim=-1)
    totals: dict[str, float] = {}
    for path in itertools.product(range(5), repeat=6):
        text = vocabulary.decode_ctc(path)
        score = float(log_probs[torch.arange(6), list(path)].sum())
        totals[text] = totals.get(text, 0.0) + math.exp(score)
    best = max(totals, key=lambda text: totals[text])
    search = BeamSearch(
        vocabulary, None, BeamConfig(lm_weight=0.0, beam_size=1000, beam_threshold=100.0)
    )
    (hypothesis,) = search.decode(logits[None], torch.tensor([6]))
    assert hypothesis.text == best
    assert hypothesis.score == pytest.approx(math.log(totals[best]), abs=1e-4)


@needs_flashlight
def test_a_character_model_recovers_what_greedy_loses(
    vocabulary: Vocabulary, character_lm: Path
) -> None:
    logits = _confuse(_logits("the cat sat", vocabulary), 5, "o", vocabulary)
    assert greedy_decode(logits[None], torch.tensor([33]), vocabulary)[0].text == "the cot sat"
    search = BeamSearch(vocabulary, character_lm, BeamConfig(lm_weight=1.5))
    assert _decode(search, logits) == "the cat sat"
    assert _decode(search.with_config(BeamConfig(lm_weight=0.0)), logits) == "the cot sat"


@needs_flashlight
def test_a_character_model_can_still_write_words_it_never_saw(
    vocabulary: Vocabulary, character_lm: Path
) -> None:
    search = BeamSearch(vocabulary, character_lm, BeamConfig(lm_weight=1.0))
    assert _decode(search, _logits("gnat", vocabulary)) == "gnat"


@needs_flashlight
def test_a_word_model_writes_only_its_words(vocabulary: Vocabulary, word_lm: Path) -> None:
    search = BeamSearch(vocabulary, word_lm, BeamConfig(kind="word", lm_weight=1.0))
    assert _decode(search, _logits("the cat sat on the mat", vocabulary)) == TEXTS[0]
    confused = _confuse(_logits("the dog", vocabulary), 6, "t", vocabulary)
    assert _decode(search, confused) == "the dog"
    assert _decode(search, _logits("the dot", vocabulary)) in {"the dog", "the"}


@needs_flashlight
def test_times_are_those_of_the_greedy_path_where_both_agree(
    vocabulary: Vocabulary, character_lm: Path, word_lm: Path
) -> None:
    logits = _logits("the cat", vocabulary)[None]
    (greedy,) = greedy_decode(logits, torch.tensor([21]), vocabulary)
    for path, config in ((character_lm, BeamConfig()), (word_lm, BeamConfig(kind="word"))):
        (found,) = BeamSearch(vocabulary, path, config).decode(logits, torch.tensor([21]))
        assert (found.text, found.frames) == (greedy.text, greedy.frames)


@needs_flashlight
def test_padding_does_not_change_the_text(vocabulary: Vocabulary, character_lm: Path) -> None:
    search = BeamSearch(vocabulary, character_lm, BeamConfig())
    short, long = _logits("a cat", vocabulary), _logits("the mat", vocabulary)
    padded = torch.full((2, len(long), len(vocabulary)), 7.0)
    padded[0, : len(short)], padded[1] = short, long
    together = search.decode(padded, torch.tensor([len(short), len(long)]))
    assert [hypothesis.text for hypothesis in together] == ["a cat", "the mat"]
    assert search.decode(padded, torch.tensor([0, 3]))[0].text == ""


@needs_flashlight
def test_a_language_model_of_other_symbols_is_refused_and_they_are_named(
    character_lm: Path, word_lm: Path
) -> None:
    other = Vocabulary.build(["the cat sat on the mat and a dog login ŋ"])
    with pytest.raises(ModelError, match=r"the language model lacks \['i', 'ŋ'\]"):
        BeamSearch(other, character_lm, BeamConfig())
    with pytest.raises(ModelError, match=r"the vocabulary lacks \['d', 'g'\]"):
        BeamSearch(Vocabulary.build(["the cat sat on mln"]), word_lm, BeamConfig(kind="word"))


@needs_flashlight
def test_a_language_model_of_an_order_that_cannot_be_used_says_which_can(
    character_lm: Path, vocabulary: Vocabulary
) -> None:
    text = character_lm.read_text(encoding="utf-8")
    one = text[: text.index("\\2-grams:")] + "\\end\\\n"
    one = re.sub(r"ngram [2-9]=\d+\n", "", one)
    character_lm.write_text(one, encoding="utf-8")
    with pytest.raises(ModelError, match=r"must be of order 2 to 6, but are of order 1 instead"):
        BeamSearch(vocabulary, character_lm, BeamConfig())
    estimate_ngram(
        [list(line.replace(" ", "|")) for line in TEXTS], 7, words=vocabulary.symbols[1:]
    ).write_arpa(character_lm)
    with pytest.raises(ModelError, match=r"but are of order 7 instead"):
        BeamSearch(vocabulary, character_lm, BeamConfig())


@needs_flashlight
@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("\n\\3-grams:", "\nx\n\\3-grams:", "Was expecting n-gram header"),
        ("\n-", "\nx-", "Could not parse "),
        ("\\end\\", "", "End of file"),
        ("\\data\\", "", "was "),
        ("\n-", "\n", "Positive log probability 1"),
    ],
)
def test_of_what_kenlm_says_one_sentence_is_shown(
    character_lm: Path, vocabulary: Vocabulary, old: str, new: str, reason: str
) -> None:
    text = character_lm.read_text(encoding="utf-8")
    character_lm.write_text(text.replace(old, new, 2), encoding="utf-8")
    with pytest.raises(ModelError) as raised:
        BeamSearch(vocabulary, character_lm, BeamConfig())
    message = str(raised.value)
    assert message.startswith(f"{character_lm}: KenLM cannot read it: ") and reason in message
    assert not any(part in message for part in ("\n", ".cc:", "binary file", "****", "Byte:"))


@needs_flashlight
def test_nan_logits_are_refused(vocabulary: Vocabulary) -> None:
    search = BeamSearch(vocabulary, None, BeamConfig())
    with pytest.raises(ModelError, match="NaN"):
        search.decode(torch.full((1, 2, len(vocabulary)), math.nan), torch.tensor([2]))


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="beam_size"):
        BeamConfig(beam_size=0)
    with pytest.raises(ConfigError, match="phrase"):
        BeamConfig(kind="phrase")  # type: ignore[arg-type]


def test_missing_flashlight_names_the_extra(
    vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "flashlight.lib.text", None)
    with pytest.raises(ModelError, match=r'pip install "speechjepa\[lm\]"'):
        BeamSearch(vocabulary, None, BeamConfig())
