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
    assert stream.push(frames([0] * 20)) == [1]
    assert stream.finish() == []


def test_a_stream_of_nothing_says_nothing(search: BeamSearch) -> None:
    stream = TokenStream(search, frame_seconds=FRAME)
    assert stream.finish() == []
    assert heard(TokenStream(search, frame_seconds=FRAME), frames([0] * 100), 16) == []
