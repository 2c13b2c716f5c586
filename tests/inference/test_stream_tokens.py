"""Tokens of a stream: what the language model puts right as it comes, and when a token settles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from speechjepa.inference.search import BeamConfig, BeamSearch
from speechjepa.inference.stream_tokens import TokenStream
from speechjepa.inference.translator_language_model import UnitSymbols
from speechjepa.text.ngram import estimate_ngram
from speechjepa.text.vocabulary import Vocabulary

SYMBOLS = UnitSymbols(4)
# Token ids; 1 is unit 0. After 1 2 always comes 3, after 2 1 always 4.
TRAIN = [[1, 2, 3], [2, 1, 4], [1, 2, 3, 1, 2, 3], [2, 1, 4, 2, 1, 4]] * 3
FRAME = 0.02


@pytest.fixture
def search(tmp_path: Path) -> BeamSearch:
    pytest.importorskip("flashlight.lib.text.decoder")
    names = ([SYMBOLS.symbols[token] for token in tokens] for tokens in TRAIN)
    path = tmp_path / "units.arpa"
    estimate_ngram(names, 4, words=SYMBOLS.symbols[1:]).write_arpa(path)
    return BeamSearch(SYMBOLS, path, BeamConfig(lm_weight=1.5))


def frames(path: Sequence[int]) -> Tensor:
    return 9.0 * torch.nn.functional.one_hot(torch.tensor(path), 5).float()


def heard(stream: TokenStream, logits: Tensor, size: int) -> list[int]:
    tokens = [token for piece in logits.split(size) for token in stream.push(piece)]
    return tokens + stream.finish()


@pytest.mark.parametrize("size", [1, 3, 16, 100])
def test_the_best_path_is_the_same_however_it_is_fed(size: int) -> None:
    path = [0, 1, 1, 0, 1, 2, 2, 3, 0, 0, 3]
    assert heard(TokenStream(None, frame_seconds=FRAME), frames(path), size) == [1, 1, 2, 3, 3]


@pytest.mark.parametrize("size", [1, 3, 16, 100])
def test_the_language_model_puts_right_what_the_best_path_gets_wrong(
    search: BeamSearch, size: int
) -> None:
    logits = frames([1, 1, 0, 2, 2, 0, 4, 4, 0] + 20 * [0])
    logits[6:8, 3] = 8.5  # nearly as likely, and what always follows 1 2
    assert heard(TokenStream(None, frame_seconds=FRAME), logits, size) == [1, 2, 4]
    assert heard(TokenStream(search, frame_seconds=FRAME), logits, size) == [1, 2, 3]


@pytest.mark.parametrize("size", [1, 7, 16])
def test_what_is_sure_is_written_once_whatever_lies_between(search: BeamSearch, size: int) -> None:
    # A token that goes on over a piece's edge is one; after pauses of any length it is another.
    path = [1] * 20 + [2, 3] + [0] * 60 + [3, 0, 3, 1, 2, 3] + [0] * 17 + [3] * 30
    stream = TokenStream(search, frame_seconds=FRAME)
    assert heard(stream, frames(path), size) == [1, 2, 3, 3, 3, 1, 2, 3, 3]


def test_a_token_waits_while_readings_differ_and_no_longer_than_it_may(search: BeamSearch) -> None:
    stream = TokenStream(search, frame_seconds=FRAME)
    doubtful = frames([1, 0])
    doubtful[0, 2] = 8.99
    assert stream.push(doubtful) == []  # 1 or 2
    assert stream.push(frames([0] * 30)) == [1]
    assert stream.finish() == []


@pytest.mark.parametrize("size", [1, 7, 16])
@pytest.mark.parametrize("other", [0, 2, 4])
def test_a_token_that_goes_on_is_one_whatever_single_frames_say(
    search: BeamSearch, size: int, other: int
) -> None:
    logits = frames([1, 2] + [3] * 60 + [0] * 3)
    logits[10, 3], logits[10, other] = 8.9, 9.0  # likelier, but followed by more of 3
    assert heard(TokenStream(search, frame_seconds=FRAME), logits, size) == [1, 2, 3]


def test_a_pause_within_a_sentence_is_not_its_end(tmp_path: Path) -> None:
    pytest.importorskip("flashlight.lib.text.decoder")
    # After 1 always 2 and 3; nothing ends with 1, which is all that is heard at first.
    sentences = [["u0", "u1", "u2"]] * 50 + [["u3", "u4"]] * 10
    path = tmp_path / "ends.arpa"
    five = UnitSymbols(5)
    estimate_ngram(sentences, 4, words=five.symbols[1:]).write_arpa(path)
    search = BeamSearch(five, path, BeamConfig(lm_weight=2.3))
    path_ids = [1] + [0] * 60 + [2, 0, 3] + [0] * 4
    logits = 6.0 * torch.nn.functional.one_hot(torch.tensor(path_ids), 6).float()
    assert heard(TokenStream(search, frame_seconds=FRAME), logits, 16) == [1, 2, 3]


def test_a_reading_that_ends_in_a_space_is_another_one(tmp_path: Path) -> None:
    pytest.importorskip("flashlight.lib.text.decoder")
    vocabulary = Vocabulary.build(["ab ba"])
    search = BeamSearch(vocabulary, None, BeamConfig(lm_weight=0.0))
    logits = torch.full((3, len(vocabulary)), -9.0)
    for frame, symbols in enumerate((["a"], ["b"], ["|", "<blank>"])):
        for symbol in symbols:
            logits[frame, vocabulary.symbols.index(symbol)] = 9.0
    first, second = search.readings(logits, ended=False)[:2]
    assert {len(first.token_ids), len(second.token_ids)} == {2, 3}
    assert first.score == pytest.approx(second.score, abs=1e-3)
    assert [h.text for h in search.candidates(logits)][0] == "ab"
    stream = TokenStream(search, frame_seconds=FRAME)
    assert len(stream.push(logits)) == 2  # whether a word ends here is open


def test_a_stream_of_nothing_says_nothing(search: BeamSearch) -> None:
    stream = TokenStream(search, frame_seconds=FRAME)
    assert stream.finish() == []
    assert heard(TokenStream(search, frame_seconds=FRAME), frames([0] * 100), 16) == []
