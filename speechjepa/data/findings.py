"""What the data doctor reports: findings with places, and the report that holds them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from speechjepa.data.utterance import Utterance

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
JSON_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Place:
    """One place where a finding was seen."""

    source: str
    """`file:line` of the manifest, or the audio file where there is no manifest."""
    id: str
    split: str
    detail: str = ""
    """What is special about this place: the reason, the character, the transcript."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something about the data that a person should know."""

    code: str
    """Stable name, for scripts."""
    severity: Severity
    """error: training would break; warning: results would suffer; note: good to know."""
    title: str
    """What was found, with the count."""
    meaning: str
    """What it means for training."""
    advice: str
    """What to do about it."""
    places: tuple[Place, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the finding as plain JSON types."""
        return {
            "code": self.code,
            "severity": self.severity,
            "title": self.title,
            "meaning": self.meaning,
            "advice": self.advice,
            "count": len(self.places),
            "places": [vars(place) for place in self.places],
        }


@dataclass(frozen=True, kw_only=True)
class Total:
    """How much there is of one split, speaker or language."""

    utterances: int = 0
    seconds: float = 0.0
    labelled_utterances: int = 0
    labelled_seconds: float = 0.0

    def plus(self, seconds: float, labelled: bool) -> Total:
        """Return the total with one more utterance."""
        return Total(
            utterances=self.utterances + 1,
            seconds=self.seconds + seconds,
            labelled_utterances=self.labelled_utterances + labelled,
            labelled_seconds=self.labelled_seconds + (seconds if labelled else 0.0),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the total as plain JSON types, in hours and labelled minutes."""
        return {
            "utterances": self.utterances,
            "hours": round(self.seconds / 3600, 4),
            "labelled_utterances": self.labelled_utterances,
            "labelled_minutes": round(self.labelled_seconds / 60, 3),
        }


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Totals of everything and by split, speaker and language; "(none)" where none is given."""

    all: Total
    splits: dict[str, Total]
    speakers: dict[str, Total]
    languages: dict[str, Total]

    def to_json(self) -> dict[str, Any]:
        """Return the totals as plain JSON types."""
        tables = {
            name: {key: total.to_json() for key, total in getattr(self, name).items()}
            for name in ("splits", "speakers", "languages")
        }
        return {"all": self.all.to_json(), **tables}


@dataclass(frozen=True, kw_only=True)
class CharacterCount:
    """One character of the normalised transcripts."""

    character: str
    count: int
    name: str
    """Unicode name."""
    script: str
    """Latin, Greek, ...; empty for characters that all scripts share."""
    flags: tuple[str, ...] = ()
    """`rare`, `other_script`, `look_alike`."""


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """Everything the data doctor has to say about a corpus."""

    totals: Totals
    durations: tuple[tuple[float, float | None, int], ...]
    """Histogram: from (seconds), to (seconds, None = open), recordings."""
    sample_rates: dict[int, int]
    """Sampling rate in Hz -> audio files."""
    characters: tuple[CharacterCount, ...]
    """Characters after normalisation, the commonest first; the space is left out."""
    removed_characters: dict[str, int]
    """Characters that normalisation takes out -> how often."""
    findings: tuple[Finding, ...]
    """Errors first, then warnings, then notes."""
    utterances: tuple[Utterance, ...] = field(default=(), repr=False)
    """Every utterance, with its split and its measured duration filled in."""

    @property
    def breaks_training(self) -> bool:
        """Whether training would stop or learn nothing on this data as it is."""
        return any(finding.severity == "error" for finding in self.findings)

    def count(self, severity: Severity) -> int:
        """Return the number of findings of one severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON types, every place included."""
        return {
            "version": JSON_VERSION,
            "breaks_training": self.breaks_training,
            "counts": {severity: self.count(severity) for severity in SEVERITIES},
            "totals": self.totals.to_json(),
            "durations": [
                {"from": first, "to": last, "utterances": count}
                for first, last, count in self.durations
            ],
            "sample_rates": {str(rate): count for rate, count in self.sample_rates.items()},
            "characters": [
                {
                    "character": c.character,
                    "code_point": f"U+{ord(c.character):04X}",
                    "name": c.name,
                    "script": c.script,
                    "count": c.count,
                    "flags": list(c.flags),
                }
                for c in self.characters
            ],
            "removed_characters": self.removed_characters,
            "findings": [finding.to_json() for finding in self.findings],
        }


def place(utterance: Utterance, split: str, detail: str = "") -> Place:
    """Return the place where an utterance was declared."""
    source = utterance.source or str(utterance.audio_path)
    return Place(source=source, id=utterance.id, split=split, detail=detail)


def number(count: int, noun: str) -> str:
    """Return "1 file", "2 files", "3,000 entries"."""
    if count != 1:
        noun = noun[:-1] + "ies" if noun.endswith("ry") else noun + "s"
    return f"{count:,} {noun}"


def by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings with errors first, otherwise in the order they were made."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))
