"""What the data doctor says about the form of transcripts: remarks, signs, Unicode forms."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from speechjepa.data.check_characters import Written
from speechjepa.data.findings import Finding, Place, number
from speechjepa.data.scripts import describe
from speechjepa.text.normalize import TextConfig, is_invisible, is_punctuation
from speechjepa.text.vocabulary import WORD_BOUNDARY

_ANNOTATION = re.compile(r"\[[^\]]*\]|\([^)]*\)|\{[^}]*\}|<[^>]*>|\*[^*\s]+\*")


def form_findings(written: Sequence[Written], config: TextConfig) -> list[Finding]:
    """Return what is strange about how transcripts are written.

    Args:
        written: Labelled utterances.
        config: How they were normalised.
    """
    findings = [
        *_content_findings(written),
        *_sign_findings(written, config),
        *_unicode_findings(written, config),
    ]
    return [finding for finding in findings if finding.places]


def _content_findings(written: Sequence[Written]) -> list[Finding]:
    """Return transcripts that hold nothing, or what was not spoken as it is written."""
    empty, annotated, digits = [], [], []
    for w in written:
        raw = w.utterance.text or ""
        if not w.text:
            empty.append(w.place(f'written as "{raw}"' if raw.strip() else ""))
        if match := _ANNOTATION.search(raw):
            annotated.append(w.place(f'"{match.group()}" in "{raw}"'))
        if any(unicodedata.category(c) == "Nd" for c in w.text):
            digits.append(w.place(f'"{raw}"'))
    return [
        Finding(
            code="empty_transcript",
            severity="warning",
            title=f"{number(len(empty), 'transcript')} without a letter",
            meaning="They teach the model to write nothing.",
            advice="If nothing is known about a recording, leave the transcript column out; then "
            "its sound is used without a transcript.",
            places=tuple(empty),
        ),
        Finding(
            code="annotations",
            severity="warning",
            title=f"{number(len(annotated), 'transcript')} with remarks in brackets or stars",
            meaning="The brackets are removed, but the words in them stay, as if they were spoken.",
            advice="Remove remarks such as [laughs] from the transcripts. Brackets around words "
            "that are spoken do no harm.",
            places=tuple(annotated),
        ),
        Finding(
            code="digits",
            severity="note",
            title=f"{number(len(digits), 'transcript')} with digits",
            meaning="If they stand for spoken numbers, the model has to learn that one sign stands "
            "for a whole word. If they write tones, all is well.",
            advice="Write numbers as they were spoken.",
            places=tuple(digits),
        ),
    ]


def _sign_findings(written: Sequence[Written], config: TextConfig) -> list[Finding]:
    """Return transcripts with signs that cannot be letters, or perhaps should be."""
    bars = [w.place(f'"{w.text}"') for w in written if WORD_BOUNDARY in w.text]
    stray = [
        w.place(f'"{w.text}"')
        for w in written
        if any(unicodedata.combining(word[0]) for word in w.text.split())
    ]
    inside: dict[str, list[Place]] = defaultdict(list)
    for w in written:
        raw = w.utterance.text or ""
        for c in sorted(_split_by(raw, config)):
            inside[c].append(w.place(f'{describe(c)} in "{raw}"'))
    split_words = [p for _, places in sorted(inside.items()) for p in places]
    return [
        Finding(
            code="word_boundary_in_text",
            severity="error",
            title=f'{number(len(bars), "transcript")} with the character "|"',
            meaning='The model writes "|" for the space between words, so it cannot be a letter.',
            advice="Replace it with --replace OLD=NEW (text.replacements in a recipe); the click "
            "letter is ǀ (U+01C0).",
            places=tuple(bars),
        ),
        Finding(
            code="punctuation_inside_words",
            severity="warning",
            title=f"{number(len(split_words), 'transcript')} with a sign inside a word that is "
            "taken for punctuation: " + " ".join(sorted(inside)),
            meaning="The sign becomes a space, and the word becomes two.",
            advice="If it is a letter here (length, tone, glottal stop, click), keep it with "
            "--keep-characters (text.keep_characters in a recipe).",
            places=tuple(split_words),
        ),
        Finding(
            code="stray_marks",
            severity="warning",
            title=f"{number(len(stray), 'transcript')} with an accent or tone mark without a "
            "letter below it",
            meaning="The mark becomes a symbol of its own.",
            advice="Correct the transcripts.",
            places=tuple(stray),
        ),
    ]


def _unicode_findings(written: Sequence[Written], config: TextConfig) -> list[Finding]:
    """Return letters that are composed in one place and decomposed in another, and invisible
    characters."""
    composed: dict[str, list[Written]] = defaultdict(list)
    decomposed: dict[str, list[Written]] = defaultdict(list)
    invisible: list[Place] = []
    for w in written:
        raw = w.utterance.text or ""
        hidden = {c for c in raw if is_invisible(c)}
        if hidden:
            invisible.append(w.place(", ".join(map(describe, sorted(hidden)))))
        canonical = unicodedata.normalize("NFC", raw)
        if raw == canonical and raw == unicodedata.normalize("NFD", raw):
            continue
        for c in set(raw):
            if unicodedata.decomposition(c) and unicodedata.normalize("NFD", c) != c:
                composed[unicodedata.normalize("NFC", c)].append(w)
        for c in set(canonical):
            if raw.count(c) < canonical.count(c):
                decomposed[c].append(w)
    both = sorted(set(composed) & set(decomposed))
    rarer = [
        w.place(f"{describe(c)} written as {len(unicodedata.normalize('NFD', c))} code points")
        if len(decomposed[c]) <= len(composed[c])
        else w.place(f"{describe(c)} written as one code point")
        for c in both
        for w in min(decomposed[c], composed[c], key=len)
    ]
    return [
        Finding(
            code="unicode_forms",
            severity="note",
            title=f"{number(len(both), 'letter')} written in two Unicode forms: " + " ".join(both),
            meaning=f"Normalisation ({config.unicode_form}) makes them equal here; other programs "
            "see two different letters.",
            advice="Nothing to do here. For other programs, convert the transcripts to NFC.",
            places=tuple(rarer),
        ),
        Finding(
            code="invisible_characters",
            severity="note",
            title=f"{number(len(invisible), 'transcript')} with invisible characters",
            meaning="They are removed before training, except those in keep_characters.",
            advice="Nothing to do, unless the orthography needs them (U+200C in Persian): then "
            "keep them with --keep-characters. If a zero-width space separates words, use "
            "--replace to write a space.",
            places=tuple(invisible),
        ),
    ]


def _split_by(raw: str, config: TextConfig) -> set[str]:
    """Return the signs between two letters of a transcript that normalisation makes a space."""
    if not config.strip_punctuation:
        return set()
    replaced = "".join(config.replacements)
    return {
        c
        for before, c, after in zip(raw, raw[1:], raw[2:], strict=False)
        if is_punctuation(c)
        and c not in config.keep_characters
        and c not in replaced
        and before.isalpha()
        and after.isalpha()
    }
