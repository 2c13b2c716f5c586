"""What the data doctor reads: transcripts that do not fit their sound or split."""

from __future__ import annotations

import statistics
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations

from speechjepa.data.check_audio import Heard
from speechjepa.data.check_characters import Written
from speechjepa.data.findings import Finding, number
from speechjepa.data.readers.common import FIELDS
from speechjepa.data.scripts import describe

RATE_FACTOR = 4.0
"""Transcripts this many times denser, or thinner, than the middle one are suspicious."""
MIN_RATE_CHARACTERS = 4
"""Shorter transcripts are letters and interjections, mostly pause."""
MIN_RATES = 20
"""Fewer transcripts than this have no usual speaking rate."""

NO_TEXT_COLUMNS = frozenset(
    "translation target_audio key phonetic num_samples gender sex age accent accents dialect "
    "variant segment sentence_id sentence_domain path".split()
)
"""Columns that are known to hold something else than a transcript."""


def unread_columns(heard: Sequence[Heard], written: Sequence[Written]) -> list[Finding]:
    """Return the columns with words that are not read, of splits in which nothing has text.

    Args:
        heard: All utterances, without pools of unlabelled audio.
        written: Labelled utterances.
    """
    labelled = {w.split for w in written}
    first: dict[str, dict[str, Heard]] = defaultdict(dict)
    for h in heard:
        if h.split in labelled:
            continue
        for column, value in h.utterance.extra.items():
            is_words = isinstance(value, str) and any(map(str.isalpha, value))
            if is_words and column.lower() not in NO_TEXT_COLUMNS:
                first[h.split].setdefault(column, h)
    return [
        Finding(
            code="unread_columns",
            severity="warning",
            title=f"{split} has no transcripts, and columns that are not read: "
            + ", ".join(columns),
            meaning="Nothing is learnt from them. A transcript is looked for in the columns "
            + ", ".join(FIELDS["text"])
            + ".",
            advice="If one of them holds the transcripts, rename it to text, or name it: "
            "--column text=NAME here, `columns: {text: NAME}` in a recipe.",
            places=tuple(
                h.place(f'{column}: "{h.utterance.extra[column]}"') for column, h in columns.items()
            ),
        )
        for split, columns in first.items()
    ]


def frames_needed(text: str) -> int:
    """Return the frames CTC needs for a text: one per character, and a blank between repeats."""
    return len(text) + sum(a == b for a, b in zip(text, text[1:], strict=False))


def fit_findings(
    written: Sequence[Written], heard: dict[tuple[str, int], Heard], *, encoder_hop_ms: float
) -> list[Finding]:
    """Return transcripts that are too long for their sound, or suspiciously long or short.

    Args:
        written: Labelled utterances.
        heard: Measurements by (split, `id()` of the utterance object).
        encoder_hop_ms: Time between two frames of the encoder (ms).
    """
    crowded, rates = [], []
    for w in written:
        sound = heard[w.split, id(w.utterance)].sound
        if sound.problem or not sound.seconds or not w.text:
            continue
        frames = int(sound.seconds * 1000 / encoder_hop_ms + 1e-6)
        needed = frames_needed(w.text)
        if len(w.text) >= MIN_RATE_CHARACTERS:
            rates.append((w, len(w.text) / sound.seconds))
        if needed > frames:
            crowded.append(
                w.place(f'{sound.seconds:.2f} s give {frames} frames, "{w.text}" needs {needed}')
            )
    unusual = []
    if len(rates) >= MIN_RATES:
        middle = statistics.median(rate for _, rate in rates)
        crowded_ids = {(p.split, p.id) for p in crowded}
        unusual = [
            w.place(f'{rate:.1f} characters per second: "{w.text}"')
            for w, rate in sorted(rates, key=lambda item: -item[1])
            if not middle / RATE_FACTOR <= rate <= middle * RATE_FACTOR
            and (w.split, w.utterance.id) not in crowded_ids
        ]
    else:
        middle = 0.0
    findings = [
        Finding(
            code="transcript_too_long",
            severity="warning",
            title=f"{number(len(crowded), 'transcript')} longer than the sound can hold",
            meaning=f"The encoder gives one frame every {encoder_hop_ms:g} ms, and each character "
            "needs a frame (a repeated one needs two). Training leaves these out.",
            advice="Usually the transcript belongs to another recording, or the cut is too short. "
            "Correct it; if all of them are right, use an encoder with a shorter hop.",
            places=tuple(crowded),
        ),
        Finding(
            code="unusual_rate",
            severity="note",
            title=f"{number(len(unusual), 'transcript')} much longer or shorter than their sound "
            "suggests",
            meaning=f"The middle is {middle:.1f} characters per second; these are more than "
            f"{RATE_FACTOR:g} times away. Some will be long pauses, some wrong transcripts.",
            advice="Listen to the first few.",
            places=tuple(unusual),
        ),
    ]
    return [finding for finding in findings if finding.places]


def split_findings(
    written: Sequence[Written], heard: Sequence[Heard], *, train: str | None
) -> list[Finding]:
    """Return what splits share and should not, and what dev has that train lacks.

    Args:
        written: Labelled utterances.
        heard: All utterances, without pools of unlabelled audio.
        train: Name of the split that the model learns from.
    """
    texts: dict[str, dict[str, Written]] = defaultdict(dict)
    speakers: dict[str, dict[str, Heard]] = defaultdict(dict)
    for w in written:
        if w.text:
            texts[w.split].setdefault(w.text, w)
    for h in heard:
        if h.utterance.speaker is not None:
            speakers[h.split].setdefault(h.utterance.speaker, h)
    if train is None:
        return []
    findings = []
    for split in sorted({h.split for h in heard} - {train}):
        findings += _shared_texts(written, texts[train], split, train)
        shared = sorted(set(speakers[split]) & set(speakers[train]))
        if shared:
            findings.append(_shared_speakers(shared, speakers, split, train))
        findings += _unseen_characters(written, texts[train], split, train)
    for one, other in combinations(sorted({h.split for h in heard} - {train}), 2):
        findings += _shared_texts(written, texts[one], other, one)
    return findings


def _shared_texts(
    written: Sequence[Written], known: dict[str, Written], split: str, train: str
) -> list[Finding]:
    ours = [w for w in written if w.split == split and w.text]
    shared = [w for w in ours if w.text in known]
    if not shared:
        return []
    return [
        Finding(
            code="transcripts_shared_between_splits",
            severity="warning",
            title=f"{len(shared):,} of {number(len(ours), 'transcript')} of {split} "
            f"({len(shared) / len(ours):.0%}) also in {train}, word for word",
            meaning="The model may know these sentences by heart, so that the measured error is "
            "better than on new speech. With a closed list of words (digits, commands) that is "
            "as it should be.",
            advice=f"Move them all to {train}, or all to {split}; the language model must not "
            f"see the text of {split} either.",
            places=tuple(
                w.place(f'"{w.text}", also {known[w.text].place().source}') for w in shared
            ),
        )
    ]


def _shared_speakers(
    shared: list[str], speakers: dict[str, dict[str, Heard]], split: str, train: str
) -> Finding:
    return Finding(
        code="speakers_shared_between_splits",
        severity="note",
        title=f"{len(shared):,} of {number(len(speakers[split]), 'speaker')} of {split} also in "
        f"{train}",
        meaning="The measured error holds for these voices; new voices will be harder.",
        advice="If you will transcribe other people too, keep one or two speakers for "
        f"{split} alone.",
        places=tuple(speakers[split][s].place(f"speaker {s}") for s in shared),
    )


def _unseen_characters(
    written: Sequence[Written], known: dict[str, Written], split: str, train: str
) -> list[Finding]:
    if not known:
        return []
    seen = {c for text in known for c in text} | {" "}
    unseen: Counter[str] = Counter()
    places = []
    for w in written:
        new = set(w.text) - seen if w.split == split else set()
        unseen.update(new)
        places += [w.place(f'{describe(c)} in "{w.text}"') for c in sorted(new)]
    if not unseen:
        return []
    return [
        Finding(
            code="unseen_characters",
            severity="warning",
            title=f"{number(len(unseen), 'character')} of {split} never seen in {train}: "
            + " ".join(f"\u25cc{c}" if unicodedata.combining(c) else c for c in sorted(unseen)),
            meaning="The model cannot write them, so every one counts as an error.",
            advice=f"Transcribe a recording with these characters for {train}, or correct them "
            "if they are typing mistakes.",
            places=tuple(places),
        )
    ]
