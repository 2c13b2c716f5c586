"""Unlimited text, parallel across languages: CLDR (`babel`) with numbers in words (`num2words`).

An utterance is drawn as a `Meaning` that belongs to no language: a date, an amount of money, two
countries. `express` then says it in a language, or returns None where that language has no word
for a part of it. The grammar is CLDR's and no better (day numbers are cardinals, cases are not
agreed), but text and sound always match: no digit, abbreviation or symbol is left to be read.
"""

from __future__ import annotations

import datetime
import importlib
import random
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

from speechjepa.errors import DataError
from speechjepa.text.normalize import TextConfig, normalize_text


@dataclass(frozen=True, kw_only=True)
class SyntheticLanguage:
    """What a language is called by each of the three packages."""

    locale: str
    """For babel."""
    numbers: str
    """For num2words."""
    voice: str
    """For espeak-ng."""
    use_ordinals: bool = False
    """Whether num2words has its ordinals."""
    use_year_words: bool = False
    """Whether num2words reads 1987 otherwise as a year than as a number, and does it well."""
    replacements: tuple[tuple[str, str], ...] = ()
    """What to write instead of what before lower-casing: letters, abbreviations."""


_DOTTED_I = (("I", "ı"), ("İ", "i"))

_ORDINALS = frozenset(
    "az cy da de en eo es fa fi fr he hu id it kn ko nb nl pl pt ro ru sl sv te tr uk".split()
)
"""Where num2words gives every ordinal from 1 to 99, each its own and none the cardinal."""


def _language(
    code: str,
    *,
    locale: str = "",
    numbers: str = "",
    voice: str = "",
    use_year_words: bool = False,
    replacements: tuple[tuple[str, str], ...] = (),
) -> tuple[str, SyntheticLanguage]:
    return code, SyntheticLanguage(
        locale=locale or code,
        numbers=numbers or code,
        voice=voice or code,
        use_ordinals=code in _ORDINALS,
        use_year_words=use_year_words,
        replacements=replacements,
    )


LANGUAGES: dict[str, SyntheticLanguage] = dict(
    [_language(c) for c in "ar bn ca cs cy eo es fi he hu id is it kn ko lv pl pt".split()]
    + [_language(c) for c in "ro sk sl sv te vi".split()]
    + [
        _language("az", replacements=_DOTTED_I),
        _language("be", replacements=(("г.", " года"),)),
        _language("da", use_year_words=True),
        _language("de", use_year_words=True),
        _language("en", voice="en-us", use_year_words=True),
        _language("fa", replacements=(("\u200c", " "),)),
        _language("fr", voice="fr-fr"),
        _language("kk", numbers="kz", replacements=(("ж.", " жылғы"),)),
        _language("lt", replacements=(("m.", " metų"), ("d.", " diena"))),
        _language("nb", numbers="no", use_year_words=True),
        _language("nl", use_year_words=True),
        _language("ru", replacements=(("г.", " года"),)),
        _language("sr", locale="sr_Latn"),
        _language("th", replacements=(("ค.ศ.", "คริสต์ศักราช"),)),
        _language("tr", replacements=_DOTTED_I),
        _language("uk", replacements=(("р.", " року"),)),
    ]
)
"""Languages that babel, num2words and espeak-ng all have."""

UNITS = (
    "length-kilometer length-meter length-centimeter length-mile mass-kilogram mass-gram "
    "volume-liter duration-year duration-month duration-week duration-day duration-hour "
    "duration-minute duration-second temperature-celsius energy-kilocalorie area-hectare"
).split()
CURRENCIES = (
    "EUR USD GBP JPY CNY INR BRL MXN ZAR NGN KES EGP TRY RUB PLN SEK CHF CAD AUD IDR THB KRW "
    "VND ARS CLP COP PEN MAD TND UAH CZK HUF ILS PHP PKR BDT"
).split()
TERRITORIES = (
    "AF AL AM AO AR AT AU AZ BD BE BF BG BI BJ BO BR BT BW BY CA CH CL CM CN CO CR CU CV CY CZ DE "
    "DJ DK DO DZ EC EE EG ER ES ET FI FJ FR GA GB GE GH GM GN GR GT GY HN HR HT HU ID IE IL IN IQ "
    "IR IS IT JM JO JP KE KG KH KR KW KZ LA LB LK LR LS LT LU LV LY MA MC MD ME MG ML MN MR MT MU "
    "MV MW MX MY MZ NA NE NG NI NL NO NP NZ OM PA PE PG PH PK PL PT PY QA RO RS RU RW SA SD SE SG "
    "SI SK SN SO SR SV SY TD TG TH TJ TM TN TO TR TZ UA UG US UY UZ VE VN VU WS YE ZA ZM ZW"
).split()
TONGUES = (
    "af am ar az be bg bn bo br ca cs cy da de dz ee el en eo es et eu fa fi fo fr fy ga gl gu ha "
    "haw he hi hr hu hy id ig is it ja jv ka kk km kn ko ku ky la lb ln lo lt lv mg mi mk ml mn mr "
    "ms mt my ne nl or os pa pl ps pt qu rn ro ru rw sa sd se sg si sk sl so sq sr su sv sw ta te "
    "tg th ti tk to tr tt ug uk ur uz vi wo xh yi yo zh zu"
).split()

KINDS = {
    "date": 4,
    "weekday": 1,
    "month": 1,
    "time": 2,
    "number": 3,
    "ordinal": 1,
    "amount": 3,
    "measure": 3,
    "territory": 4,
    "tongue": 3,
}
"""Kinds of parts, with how often each is drawn."""


class Meaning(NamedTuple):
    """What an utterance says, in no language."""

    key: str
    """The same for the utterances of all languages that say this."""
    parts: tuple[tuple[str, Any], ...]
    """Pairs of a kind ("date", "amount", ...) and its value."""


class Sentence(NamedTuple):
    """A meaning in a language."""

    key: str
    spoken: str
    """For the synthesiser: commas where a speaker pauses."""
    text: str
    """The transcript: lower-case words, single spaces."""


def draw_meaning(
    index: int, *, seed: int = 0, kinds: Sequence[str] | None = None, most_parts: int = 3
) -> Meaning:
    """Return what item `index` of the endless list of utterances means.

    Args:
        index: Its place.
        seed: Of the list.
        kinds: Kinds of parts to draw from; None = all of `KINDS`.
        most_parts: Parts of an utterance, 1 to 3.
    """
    rng = random.Random(f"{seed}/{index}")
    weights = KINDS if kinds is None else {kind: KINDS[kind] for kind in kinds}
    drawn = rng.choice((1, 2, 2, 3))
    kinds = rng.choices(tuple(weights), tuple(weights.values()), k=min(drawn, most_parts))
    return Meaning(f"{seed}-{index}", tuple((kind, _draw_value(kind, rng)) for kind in kinds))


def _draw_value(kind: str, rng: random.Random) -> Any:
    if kind in ("date", "weekday", "month"):
        return datetime.date(1900, 1, 1) + datetime.timedelta(days=rng.randrange(150 * 365))
    if kind == "time":
        return datetime.time(rng.randrange(24), rng.randrange(1, 60))
    if kind == "number":
        return rng.randrange(10 ** rng.randint(1, 6))
    if kind == "ordinal":
        return rng.randint(1, 99)
    if kind == "territory":
        return rng.choice(TERRITORIES)
    if kind == "tongue":
        return rng.choice(TONGUES)
    count = rng.randrange(2, 10 ** rng.randint(1, 3))
    return count, rng.choice(CURRENCIES if kind == "amount" else UNITS)


def express(meaning: Meaning, language: str) -> Sentence | None:
    """Say a meaning in a language; None where the language has no plain word for a part of it.

    Raises:
        DataError: The language is not in `LANGUAGES`, or `babel` or `num2words` is missing.
    """
    speaker = _speaker(language)
    clauses = []
    for kind, value in meaning.parts:
        raw = speaker.say(kind, value)
        clause = None if raw is None else speaker.spell(raw)
        if not clause:
            return None
        clauses.append(clause)
    text = " ".join(clauses)
    return Sentence(meaning.key, ", ".join(clauses), text)


def words_of_locale(code: str) -> list[str]:
    """Return words of CLDR's names of countries, languages, months and days.

    For languages that num2words does not know, which `LANGUAGES` therefore lacks.

    Args:
        code: Of a locale of babel.

    Raises:
        DataError: `babel` is missing or has no such locale.
    """
    babel = _package("babel")
    try:
        locale = babel.Locale.parse(code)
    except (ValueError, babel.UnknownLocaleError) as error:
        raise DataError(f"babel has no locale {code!r}.") from error
    dates = [*locale.days["format"]["wide"].values(), *locale.months["format"]["wide"].values()]
    scripts = _scripts(" ".join(dates))
    words = " ".join([*locale.territories.values(), *locale.languages.values(), *dates]).split()
    return sorted({word for word in words if _plain(word) and _scripts(word) <= scripts})


@lru_cache(maxsize=64)
def _speaker(language: str) -> _Speaker:
    if language not in LANGUAGES:
        raise DataError(
            f"No synthetic text in {language!r}; there is {', '.join(sorted(LANGUAGES))}."
        )
    return _Speaker(LANGUAGES[language])


class _Speaker:
    """Says parts of meanings in one language."""

    def __init__(self, language: SyntheticLanguage) -> None:
        self.language = language
        self.dates = _package("babel.dates")
        self.money = _package("babel.numbers")
        self.units = _package("babel.units")
        self.num2words = _package("num2words").num2words
        self.locale = _package("babel").Locale.parse(language.locale)
        self.normalization = TextConfig(
            # In Catalan the middle dot is part of a letter; elsewhere nothing has one.
            keep_characters="'·",
            replacements={
                "\u2019": "'",
                "\u02bc": "'",
                "\u0060": "'",
                **dict(language.replacements),
            },
        )
        self.scripts = _scripts(" ".join(self.locale.days["format"]["wide"].values()))

    def say(self, kind: str, value: Any) -> str | None:
        """Return a part as CLDR writes it, with digits; None where CLDR has no word."""
        if kind == "date":
            style = "full" if value.day % 2 else "long"
            return self._date(self.dates.format_date(value, style, locale=self.locale), value)
        if kind in ("weekday", "month"):
            # The "stand-alone" names would fit better, but babel 2.18 mixes them up between
            # languages: after Hebrew, the months of Korean are Hebrew.
            pattern = "EEEE" if kind == "weekday" else "MMMM"
            return self.dates.format_date(value, pattern, locale=self.locale)
        if kind == "time":
            return f"{value.hour} {value.minute}"
        if kind == "number":
            return str(value)
        if kind == "ordinal":
            if not self.language.use_ordinals:
                return None
            return str(self.num2words(value, lang=self.language.numbers, to="ordinal"))
        if kind == "territory":
            return _plain(self.locale.territories.get(value))
        if kind == "tongue":
            return _plain(self.locale.languages.get(value))
        count, name = value
        if kind == "amount":
            said = self.money.format_currency(
                count,
                name,
                format="0",
                locale=self.locale,
                format_type="name",
                currency_digits=False,
            )
        else:
            # CLDR leaves out the long form where it equals the short one.
            forms = (
                self.units.format_unit(count, name, length, format="0", locale=self.locale)
                for length in ("long", "short")
            )
            said = next((form for form in forms if name not in form), name)
        # babel writes the code itself where it has no word.
        return None if name in said else _plain(said, digits=True)

    def spell(self, raw: str) -> str | None:
        """Return a part with its numbers in words, as a transcript; None if it is not all words."""
        # "5." is how many languages write an ordinal day; the dot would end the sentence.
        words = re.sub(r"\d+", lambda match: f" {self.number(int(match[0]))} ", raw)
        text = normalize_text(words, self.normalization)
        if not text or not all(_is_written(character) for character in text):
            return None
        return text if _scripts(text) <= self.scripts else None

    def number(self, value: int) -> str:
        return str(self.num2words(value, lang=self.language.numbers))

    def _date(self, formatted: str, value: datetime.date) -> str:
        if not self.language.use_year_words:
            return formatted
        year = self.num2words(value.year, lang=self.language.numbers, to="year")
        return formatted.replace(str(value.year), year)


def _plain(name: str | None, *, digits: bool = False) -> str | None:
    """Return a name if it is written in words alone: no brackets, points, ampersands."""
    if name is None:
        return None
    allowed = "'\u2019\u02bc-·\u200c\u200d\u200e\u200f\u061c\xa0\u202f "
    for character in name:
        category = unicodedata.category(character)
        if not (category[0] in "LM" or character in allowed or (digits and category == "Nd")):
            return None
    return name


def _is_written(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM" or character in " '·"


@lru_cache(maxsize=4096)
def _script(character: str) -> str:
    return unicodedata.name(character, "UNKNOWN").split()[0]


def _scripts(text: str) -> frozenset[str]:
    """Return the scripts of the letters of a text: {"LATIN"}, {"CYRILLIC"}."""
    letters = (c for c in text if unicodedata.category(c) in ("Lu", "Ll", "Lt", "Lo"))
    return frozenset(_script(character) for character in letters)


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise DataError(
            f"Synthetic text needs the package `{name.partition('.')[0]}`: "
            "pip install 'speechjepa[synthetic]'."
        ) from error
