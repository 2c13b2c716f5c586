"""Timed transcripts beside a recording: ELAN's .eaf and Praat's .TextGrid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import ParseError

from speechjepa.errors import DataError

ANNOTATION_SUFFIXES = (".eaf", ".textgrid")
USUAL_TIERS = ("transcript", "transcription", "text", "tx", "utterance", "utterances", "sentence")
"""Names of a tier that is taken where there are several, in this order, whatever their case; with
one tier for each speaker, `tx@ana` and `tx@ben`, all of that name."""
UNUSED_TIER = "default"
"""A new document of ELAN has this tier; it does not count while it is empty."""


class Annotation(NamedTuple):
    """A stretch of a recording with its transcript."""

    start: float
    """Seconds."""
    end: float
    """Seconds."""
    text: str
    speaker: str | None = None
    """As ELAN's tier names its participant; None = it does not."""


def read_annotations(path: Path, tier: str | None = None) -> list[Annotation]:
    """Return the transcribed stretches in order of time; empty ones are left out.

    Args:
        path: An .eaf or .TextGrid file.
        tier: Its name, or a pattern for several that are read together, `tx@*`; or several of
            these with commas between them, of which the first that the file has, and in which
            something stands, is taken. None = the only tier, or the one with a usual name
            (`USUAL_TIERS`).

    Raises:
        DataError: The file cannot be read, or it is not clear which tier is meant.
    """
    try:
        tiers = _read_eaf(path) if path.suffix.lower() == ".eaf" else _read_textgrid(path)
    except DataError:
        raise
    except (OSError, ParseError, UnicodeError) as error:
        raise DataError(f"cannot be read: {error}", path=path) from error
    except Exception as error:  # both libraries raise whatever a damaged file makes them meet
        raise DataError(f"is damaged: {type(error).__name__}: {error}", path=path) from error
    found = []
    for name in _choose(path, tiers, tier):
        filled = _filled(tiers[name])
        times = Counter((a.start, a.end) for a in filled)
        for (start, _), count in times.items():
            if count > 1:
                # The words of a subdivision: each would be learnt as what is said all that time.
                raise DataError(
                    f"tier {name!r} has {count} annotations for the same stretch at {start:.3f} s: "
                    "name the tier of whole sentences",
                    path=path,
                )
        found += filled
    return sorted(found, key=lambda a: (a.start, a.end, a.text, a.speaker or ""))


def _filled(annotations: list[Annotation]) -> list[Annotation]:
    return [a for a in annotations if a.text.strip() and a.end > a.start]


def _choose(path: Path, tiers: dict[str, list[Annotation]], tier: str | None) -> list[str]:
    """Return the tiers to read: the first that are meant, before those in which nothing stands."""
    if tier is not None:
        found = _named(tiers, tier)
        missing = f"has no tier {tier!r}; it has {', '.join(tiers) or 'none'}. " + (
            "With a comma between names, text=ONE,OTHER, the first that a file has is taken"
        )
    else:
        names = [n for n in tiers if n != UNUSED_TIER or len(tiers) == 1 or _filled(tiers[n])]
        usual = [[n for n in names if n.lower().partition("@")[0] == u] for u in USUAL_TIERS]
        found = [names] if len(names) == 1 else [group for group in usual if group]
        missing = (
            f"has the tiers {', '.join(names) or 'none'}: say which one holds the transcript, "
            "--column text=TIER, or `columns: {text: TIER}` of this corpus in a recipe; 'ab@*' "
            "reads all that begin so"
        )
    if not found:
        raise DataError(missing, path=path)
    return next((group for group in found if any(_filled(tiers[n]) for n in group)), found[0])


def _named(tiers: Iterable[str], wanted: str) -> list[list[str]]:
    """Return the tiers that each of the names and patterns in `wanted` means."""
    names = list(tiers)
    if wanted in names:
        return [[wanted]]
    parts = [part.strip() for part in wanted.split(",")]
    groups = [
        [n for n in names if n == p] or [n for n in names if fnmatchcase(n, p)] for p in parts
    ]
    return [group for group in groups if group]


def _read_eaf(path: Path) -> dict[str, list[Annotation]]:
    from pympi.Elan import Eaf

    document = Eaf(str(path), suppress_version_warning=True)
    return {
        name: [
            Annotation(
                entry[0] / 1000,
                entry[1] / 1000,
                entry[2] or "",
                document.get_parameters_for_tier(name).get("PARTICIPANT") or None,
            )
            for entry in document.get_annotation_data_for_tier(name)
        ]
        for name in document.get_tier_names()
    }


def _read_textgrid(path: Path) -> dict[str, list[Annotation]]:
    from praatio import textgrid
    from praatio.data_classes.interval_tier import IntervalTier

    grid = textgrid.openTextgrid(
        str(path), includeEmptyIntervals=False, reportingMode="silence", duplicateNamesMode="rename"
    )
    return {
        tier.name: [Annotation(float(e.start), float(e.end), e.label) for e in tier.entries]
        for tier in grid.tiers
        if isinstance(tier, IntervalTier)
    }
