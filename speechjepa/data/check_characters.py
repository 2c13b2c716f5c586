"""What the data doctor sees in the characters: rare ones, other scripts, look-alikes."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from speechjepa.data.findings import CharacterCount, Finding, Place, number, place
from speechjepa.data.scripts import (
    LOOK_ALIKES,
    MARK_LOOK_ALIKES,
    describe,
    script_of,
    scripts_of,
    twins,
)
from speechjepa.data.utterance import Utterance

LOOK_ALIKE_SHARE = 0.02
"""A look-alike this much rarer than its twin is taken for a typing mistake, else for a letter."""
SCRIPT_SHARE = 0.01
"""A script with fewer of the letters than this is a visitor, not a second script."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A labelled utterance, the split it is in, and its normalised transcript."""

    utterance: Utterance
    split: str
    text: str

    def place(self, detail: str = "") -> Place:
        """Return where it was declared."""
        return place(self.utterance, self.split, detail)


@dataclass(frozen=True, kw_only=True)
class _Confusion:
    """A character that looks like another one of the corpus."""

    character: str
    twin: str
    base: str
    """The letter under the marks, when both are combining marks; else empty."""
    is_slip: bool
    """So much rarer than its twin that it is probably a typing mistake."""


def count_characters(
    written: Sequence[Written], *, rare_count: int
) -> tuple[tuple[CharacterCount, ...], list[Finding]]:
    """Count the characters of normalised transcripts and flag those that deserve a look.

    Args:
        written: Labelled utterances.
        rare_count: Characters seen fewer times than this are rare.

    Returns:
        The characters, the commonest first, and findings about them.
    """
    counts = Counter(c for w in written for c in w.text if c != " ")
    by_language: dict[str | None, list[Written]] = defaultdict(list)
    for w in written:
        by_language[w.utterance.language].append(w)
    confused: set[str] = set()
    visitors: set[str] = set()
    slips: list[Place] = []
    doubtful: list[Place] = []
    letters: list[Place] = []
    words: list[Place] = []
    for group in by_language.values():
        confusions = _look_alikes(group) + _other_script_look_alikes(group)
        confused |= {c.character for c in confusions if not c.base}
        for confusion in confusions:
            if confusion.is_slip:
                slips += _confusion_places(group, confusion)
            else:
                doubtful += _confusion_places(group, confusion)[:1]
        found = _other_script_places(group, {c.character for c in confusions})
        visitors |= found.characters
        letters += found.letters
        words += found.words
    rare = sorted(c for c, n in counts.items() if n < rare_count)
    # One place of every character first, so that a short list shows them all.
    rare_places = [_places_of(written, c, describe(c)) for c in rare]
    rare_places_in_turn = [p for turn in zip_longest(*rare_places) for p in turn if p is not None]
    findings = [
        *_rare_finding(rare, rare_places_in_turn, rare_count),
        *_look_alike_findings(slips, doubtful),
        *_script_findings(letters, words),
    ]
    table = tuple(
        CharacterCount(
            character=c,
            count=n,
            name=unicodedata.name(c, ""),
            script=script_of(c),
            flags=tuple(
                flag
                for flag, is_set in (
                    ("rare", n < rare_count),
                    ("other_script", c in visitors),
                    ("look_alike", c in confused),
                )
                if is_set
            ),
        )
        for c, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )
    return table, findings


def main_script(texts: Iterable[str]) -> tuple[str, dict[str, float]]:
    """Return the script of most letters ("" without letters), and the share of every script."""
    counts = Counter(script for text in texts for script in map(script_of, text) if script)
    total = sum(counts.values())
    shares = {script: n / total for script, n in counts.items()}
    return (counts.most_common(1)[0][0] if counts else ""), shares


def _look_alikes(group: Sequence[Written]) -> list[_Confusion]:
    """Find characters of one script, and marks on one letter, that look alike."""
    singles: Counter[str] = Counter()
    marked: Counter[tuple[str, str]] = Counter()
    for w in group:
        base = ""
        for c in unicodedata.normalize("NFD", w.text):
            if c in MARK_LOOK_ALIKES:
                marked[base, c] += 1
            if not unicodedata.combining(c):
                base = c
                singles[c.lower()] += 1
    found = []
    for c, n in singles.items():
        same = [t for t in LOOK_ALIKES.get(c, "") if t in singles and script_of(t) == script_of(c)]
        twin = max(same, key=lambda t: (singles[t], t), default=c)
        if twin != c:
            slip = n < LOOK_ALIKE_SHARE * singles[twin]
            found.append(_Confusion(character=c, twin=twin, base="", is_slip=slip))
    for (base, mark), n in marked.items():
        same = [t for t in MARK_LOOK_ALIKES[mark] if (base, t) in marked]
        twin = max(same, key=lambda t: (marked[base, t], t))
        if twin != mark:
            slip = n < LOOK_ALIKE_SHARE * marked[base, twin]
            found.append(_Confusion(character=mark, twin=twin, base=base, is_slip=slip))
    return found


def _other_script_look_alikes(group: Sequence[Written]) -> list[_Confusion]:
    """Find letters that look like those of the main script but come from another one."""
    main, shares = main_script(w.text for w in group)
    counts: Counter[str] = Counter()
    beside_main: Counter[str] = Counter()
    for w in group:
        for word in w.text.lower().split():
            mixed = main in scripts_of(word)
            for c in unicodedata.normalize("NFD", word):
                counts[c] += 1
                if mixed:
                    beside_main[c] += 1
    found = []
    for c in counts:
        script = script_of(c)
        if script in ("", main) or not (beside_main[c] or shares[script] < SCRIPT_SHARE):
            continue
        present = [t for t in twins(c, main) if counts[t]]
        if present:
            twin = max(present, key=lambda t: counts[t])
            seen = beside_main[c] if beside_main[c] else counts[c]
            slip = seen < LOOK_ALIKE_SHARE * counts[twin]
            found.append(_Confusion(character=c, twin=twin, base="", is_slip=slip))
    return found


@dataclass(frozen=True, kw_only=True)
class _OtherScript:
    characters: set[str]
    letters: list[Place]
    """First places of letters used inside words of the main script."""
    words: list[Place]
    """First places of letters used only in words of their own."""


def _other_script_places(group: Sequence[Written], known: set[str]) -> _OtherScript:
    main, _ = main_script(w.text for w in group)
    counts: Counter[str] = Counter()
    beside_main: set[str] = set()
    first: dict[str, tuple[Written, str]] = {}
    for w in group:
        for word in w.text.split():
            scripts = scripts_of(word)
            if scripts <= {main}:
                continue
            for c in word:
                if script_of(c) in ("", main):
                    continue
                counts[c] += 1
                if main in scripts and c not in beside_main:
                    beside_main.add(c)
                    first[c] = (w, word)
                first.setdefault(c, (w, word))
    letters: list[Place] = []
    words: list[Place] = []
    for c, n in counts.most_common():
        plain = unicodedata.normalize("NFD", c.lower())[0]
        if plain in known:
            continue
        w, word = first[c]
        p = w.place(f'{describe(c)}, {number(n, "time")}, as in "{word}"')
        (letters if c in beside_main else words).append(p)
    return _OtherScript(characters=set(counts), letters=letters, words=words)


def _places_of(written: Sequence[Written], character: str, detail: str) -> list[Place]:
    return [
        w.place(f'{detail} in "{_word_with(w.text, character)}"')
        for w in written
        if character in w.text
    ]


def _confusion_places(group: Sequence[Written], confusion: _Confusion) -> list[Place]:
    sought = confusion.base + confusion.character
    on = f" on {confusion.base}" if confusion.base else ""
    places = []
    for w in group:
        decomposed = unicodedata.normalize("NFD", w.text.lower())
        if sought in decomposed:
            word = unicodedata.normalize("NFC", _word_with(decomposed, sought))
            places.append(
                w.place(
                    f"{describe(confusion.character)}{on} looks like {describe(confusion.twin)}, "
                    f'in "{word}"'
                )
            )
    return places


def _word_with(text: str, sought: str) -> str:
    return next((word for word in text.split() if sought in word), text)


def _rare_finding(rare: list[str], places: list[Place], rare_count: int) -> list[Finding]:
    if not rare:
        return []
    return [
        Finding(
            code="rare_characters",
            severity="warning",
            title=f"{number(len(rare), 'character')} seen fewer than {rare_count} times: "
            + " ".join(f"\u25cc{c}" if unicodedata.combining(c) else c for c in rare),
            meaning="The model cannot learn a letter from so few examples. Many are typing "
            "mistakes, or letters of a loan word.",
            advice="Correct the transcripts, or write the character another way with "
            "--replace OLD=NEW (text.replacements in a recipe).",
            places=tuple(places),
        )
    ]


def _look_alike_findings(slips: list[Place], doubtful: list[Place]) -> list[Finding]:
    findings = []
    if slips:
        findings.append(
            Finding(
                code="look_alike_characters",
                severity="warning",
                title=f"{number(len(slips), 'transcript')} with a character that looks like "
                "another, much commoner one",
                meaning="To a person they are the same letter, to the model two different ones: "
                "it learns the rare one badly and is marked wrong for it.",
                advice="Correct the transcripts, or join the two with --replace OLD=NEW "
                "(text.replacements in a recipe).",
                places=tuple(slips),
            )
        )
    if doubtful:
        findings.append(
            Finding(
                code="similar_characters",
                severity="note",
                title=f"{number(len(doubtful), 'pair')} of characters that look alike, both common",
                meaning="If they are two letters of the orthography, all is well. If people typed "
                "the same letter in two ways, the model has to guess which.",
                advice="If they are the same letter, join them with --replace OLD=NEW "
                "(text.replacements in a recipe).",
                places=tuple(doubtful),
            )
        )
    return findings


def _script_findings(letters: list[Place], words: list[Place]) -> list[Finding]:
    findings = []
    if letters:
        findings.append(
            Finding(
                code="other_script_letters",
                severity="note",
                title=f"{number(len(letters), 'letter')} of another script inside words",
                meaning="Many orthographies borrow letters, and the model does not mind as long as "
                "all transcripts use the same one.",
                advice="Check that text you add later (for the language model) is typed with the "
                "same characters.",
                places=tuple(letters),
            )
        )
    if words:
        findings.append(
            Finding(
                code="other_script_words",
                severity="note",
                title=f"{number(len(words), 'letter')} of another script in words of their own",
                meaning="Words of another language add letters that are rarely heard.",
                advice="Write them in the orthography of the language, or leave those recordings "
                "without a transcript.",
                places=tuple(words),
            )
        )
    return findings
