from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from speechjepa.data.utterance import Utterance


@pytest.mark.parametrize(
    ("text", "language", "phones"),
    [
        ("bath", "en-gb-scotland", "baːθ"),  # "a:"
        ("mælk", "da", "mɛlk"),  # espeak-ng: a Greek epsilon
        ("leite", "pt-br", "leɪtʃɪ"),  # "y"
        ("casa", "pt-br", "kazɐ"),  # "æ", which is as it should be in English
        ("cat", "en-us", "kæt"),
        ("cấm", "vi", "kəm"),  # the third tone: "ɜ"
        ("bird", "en-us", "bɜːd"),
        ("week", "en-us", "wiːk"),
    ],
)
def test_texts_are_written_in_ipa_whatever_espeak_ng_calls_them(
    prepare: ModuleType, text: str, language: str, phones: str
) -> None:
    silent = Utterance(id="b", audio_path=Path("b.wav"), text="")
    (found,) = prepare.spoken(
        [Utterance(id="a", audio_path=Path("a.wav"), text=text), silent], language
    )
    assert (found.id, found.text) == ("a", phones)
