"""The characters a CTC head can write, and the way between text and token ids."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal, Self

from speechjepa.errors import DataError

BLANK = "<blank>"
WORD_BOUNDARY = "|"
SPECIAL = re.compile(r"<.+>|\[.+\]")
"""Symbols that are never written: <unk>, [PAD]."""


class Vocabulary:
    """An ordered set of characters, with the CTC blank first and `|` standing for the space.

    Args:
        symbols: The symbols in the order of their ids. `symbols[0]` must be "<blank>", and "|"
            must be among the others.
    """

    blank_id = 0

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols: tuple[str, ...] = tuple(symbols)
        if not self.symbols or self.symbols[0] != BLANK:
            first = self.symbols[0] if self.symbols else "nothing"
            raise DataError(f"A vocabulary must start with {BLANK!r}, but starts with {first!r}.")
        if WORD_BOUNDARY not in self.symbols:
            raise DataError(f"A vocabulary must hold the word boundary {WORD_BOUNDARY!r}.")
        self._ids = {symbol: i for i, symbol in enumerate(self.symbols)}
        if len(self._ids) != len(self.symbols):
            twice = sorted({s for s in self.symbols if self.symbols.count(s) > 1})
            raise DataError(f"A vocabulary must hold each symbol once; these come twice: {twice}.")
        self.word_boundary_id: int = self._ids[WORD_BOUNDARY]
        # The blank, and <unk>, </s>, [PAD] of published models: nothing that a text has.
        self.silent_ids: frozenset[int] = frozenset(
            i for symbol, i in self._ids.items() if SPECIAL.fullmatch(symbol)
        )

    @classmethod
    def build(cls, texts: Iterable[str]) -> Self:
        """Build the vocabulary of normalised texts: blank, word boundary, sorted characters.

        Raises:
            DataError: A text holds a literal "|" or a space character other than U+0020.
        """
        characters: set[str] = set()
        for text in texts:
            new = set(text) - characters
            if WORD_BOUNDARY in new:
                raise DataError(
                    f'The transcript "{text}" holds "|", which stands for the space between words '
                    "in the vocabulary. Remove it, or write text.replacements: "
                    '{"|": "ǀ"} if it is a letter (the dental click is U+01C0).'
                )
            strange = [c for c in new if c.isspace() and c != " "]
            if strange:
                raise DataError(
                    f'The transcript "{text}" holds the space character U+{ord(strange[0]):04X}. '
                    "Normalise texts before building a vocabulary."
                )
            characters |= new
        characters.discard(" ")
        return cls((BLANK, WORD_BOUNDARY, *sorted(characters)))

    def encode(self, text: str, *, unknown: Literal["error", "drop"] = "error") -> list[int]:
        """Turn normalised text into token ids.

        Args:
            text: Characters of this vocabulary and spaces.
            unknown: What to do with other characters: raise, or leave them out.

        Raises:
            DataError: A character is not in the vocabulary and `unknown` is "error".
        """
        token_ids = []
        for character in text:
            # A literal "|" is not a word boundary: it was never written as a space.
            symbol = WORD_BOUNDARY if character == " " else character
            token_id = None if character == WORD_BOUNDARY else self._ids.get(symbol)
            if token_id is not None:
                token_ids.append(token_id)
            elif unknown == "error":
                raise DataError(
                    f'The character {character!r} (U+{ord(character):04X}) in "{text}" is not in '
                    "the vocabulary. Add a replacement for it to the text settings, or correct "
                    "the transcript."
                )
        return token_ids

    def decode(self, token_ids: Iterable[int]) -> str:
        """Turn token ids into text, repeats included: what `encode` was given.

        Blanks are left out, and such symbols as <unk>. Use `decode_ctc` for the best symbol of
        each frame.
        """
        text = "".join(self.symbols[i] for i in token_ids if i not in self.silent_ids)
        return text.replace(WORD_BOUNDARY, " ")

    def decode_ctc(self, frame_ids: Iterable[int]) -> str:
        """Turn the symbol of every frame into text: collapse repeats, then drop blanks
        (https://www.cs.toronto.edu/~graves/icml_2006.pdf), with single spaces between words."""
        kept = []
        previous = None
        for token_id in frame_ids:
            if token_id != previous:
                kept.append(token_id)
            previous = token_id
        return " ".join(self.decode(kept).split())

    def to_list(self) -> list[str]:
        """Return the symbols in the order of their ids, for a JSON file."""
        return list(self.symbols)

    @classmethod
    def from_list(cls, symbols: Sequence[str]) -> Self:
        """Rebuild the vocabulary that `to_list` described."""
        return cls(symbols)

    def __len__(self) -> int:
        return len(self.symbols)

    def __contains__(self, character: object) -> bool:
        return character == " " or (character in self._ids and character != WORD_BOUNDARY)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.symbols == other.symbols

    def __hash__(self) -> int:
        return hash(self.symbols)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} symbols: {''.join(self.symbols[1:])})"
