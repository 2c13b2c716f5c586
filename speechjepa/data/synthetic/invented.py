"""Words that no language has but that look like one's: sounds in orders that no list of words has.

Dates, amounts and countries are few words, and an encoder that learns phones from them learns the
words too. An order-2 Markov chain over the letters of those words (Shannon, 1948, section 3) gives
as many others as one likes, and a synthesiser reads them by the same rules.
"""

from __future__ import annotations

import random
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable

from speechjepa.data.synthetic.text import draw_meaning, express
from speechjepa.errors import DataError

ORDER = 2
"""Letters that the next one depends on."""
MOST_LETTERS = 14
RARER = 0.7
"""Power of the counts: below 1, so that rare letters come more often than they do."""
NUM_WORDS = (1, 1, 2, 3, 4, 6, 8)
"""Words of an utterance, each as often as it stands here: single words are what many lists of
field recordings hold."""
KNOWN_SHARE = 0.2
"""Of the words, how many are known ones."""
_TRIES = 20
_START, _END = "\x02", "\x03"
_FIRST_INDEX, _NUM_MEANINGS = 3_000_000_000, 1500  # of the endless list; no split says them


class WordInventor:
    """Invents utterances of one language.

    Args:
        words: Known ones.

    Raises:
        DataError: There is no word.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = sorted({word for word in words if word.strip()})
        if not self.words:
            raise DataError("there are no words to make others like")
        self._following: dict[str, Counter[str]] = defaultdict(Counter)
        for word in self.words:
            padded = _START * ORDER + _letters(word) + _END
            for place in range(ORDER, len(padded)):
                self._following[padded[place - ORDER : place]][padded[place]] += 1

    @classmethod
    def of_language(cls, language: str, seed: int) -> WordInventor:
        """Return one that knows the words of `LANGUAGES[language]`'s dates, amounts and so on."""
        found: set[str] = set()
        for index in range(_NUM_MEANINGS):
            sentence = express(draw_meaning(_FIRST_INDEX + index, seed=seed), language)
            if sentence is not None:
                found.update(word for word in sentence.text.split() if len(word) > 1)
        return cls(found)

    def word(self, rng: random.Random) -> str:
        """Return a word, which may be a known one by chance.

        One of more than `MOST_LETTERS` letters is drawn again, and cut off where all are so long.
        """
        for _ in range(_TRIES):
            letters = _START * ORDER
            while len(letters) <= ORDER + MOST_LETTERS:
                following = self._following[letters[-ORDER:]]
                weights = [count**RARER for count in following.values()]
                letter = rng.choices(tuple(following), weights)[0]
                if letter == _END:
                    return unicodedata.normalize("NFC", letters[ORDER:])
                letters += letter
        return unicodedata.normalize("NFC", letters[ORDER : ORDER + MOST_LETTERS])

    def utterance(self, rng: random.Random) -> str:
        """Return one to eight words, most of them invented."""
        return " ".join(
            rng.choice(self.words) if rng.random() < KNOWN_SHARE else self.word(rng)
            for _ in range(rng.choice(NUM_WORDS))
        )


def _letters(word: str) -> str:
    """Return the word, each syllable of Hangul as its letters: there are too many for a chain."""
    return unicodedata.normalize("NFD" if any("가" <= c <= "힣" for c in word) else "NFC", word)
