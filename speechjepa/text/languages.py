"""Codes of languages: `sw`, `swa`, `swh`, `swh_Latn`, `swh-script_latin` and "Swahili" are one."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import lru_cache

_SCRIPTS = {
    "arabic": "Arab",
    "cyrillic": "Cyrl",
    "devanagari": "Deva",
    "latin": "Latn",
    "simplified": "Hans",
    "syllabics": "Cans",
    "traditional": "Hant",
}
"""How MMS calls scripts."""


@lru_cache(maxsize=4096)
def standard_tag(text: str) -> str | None:
    """Return the BCP 47 tag of a code or an English name, as short as it can be; None = unknown.

    A language that is the main one of a group has the group's tag (`swh` is `sw`), and a script
    is left out where the language is usually written in it.
    """
    import langcodes  # a tenth of a second, which a transcript in no named language need not wait

    code = text.strip().replace("_", "-")
    base, found, script = code.partition("-script-")
    if found:
        code = f"{base}-{_SCRIPTS.get(script.casefold(), script)}"
    try:
        return langcodes.standardize_tag(code, macro=True)
    except langcodes.LanguageTagError:
        pass
    try:
        return langcodes.standardize_tag(langcodes.find(text.strip()).to_tag(), macro=True)
    except (LookupError, langcodes.LanguageTagError):
        return None


def is_language(text: str) -> bool:
    """Say whether this is a registered code or an English name; `x-NAME` is for any other."""
    import langcodes

    tag = standard_tag(text)
    return tag is not None and langcodes.tag_is_valid(tag)


def match_language(asked: str, known: Sequence[str]) -> str | None:
    """Return the code in `known` that means what was asked for; None where none or several do."""
    for code in known:
        if code.casefold() == asked.strip().casefold():
            return code
    wanted = standard_tag(asked)
    if wanted is None:
        return None
    tags = {code: standard_tag(code) or code for code in known}
    for same in (
        [code for code, tag in tags.items() if tag == wanted],
        [code for code, tag in tags.items() if _language(tag) == _language(wanted)],
    ):
        if len(same) == 1:
            return same[0]
    return None


def nearest_languages(asked: str, known: Sequence[str], count: int = 3) -> list[str]:
    """Return the codes in `known` whose code or English name looks most like what was asked for."""
    import langcodes

    looks: dict[str, str] = {}
    for code in known:
        looks.setdefault(code.casefold(), code)
        tag = standard_tag(code)
        if tag is not None:
            looks.setdefault(langcodes.Language.get(tag).display_name().casefold(), code)
    close = difflib.get_close_matches(asked.strip().casefold(), looks, n=2 * count, cutoff=0.5)
    return list(dict.fromkeys(looks[name] for name in close))[:count]


def _language(tag: str) -> str:
    return tag.partition("-")[0]
