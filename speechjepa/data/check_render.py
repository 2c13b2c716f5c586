"""The data doctor's report in plain words, for a terminal or a text file."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from textwrap import wrap

from speechjepa.data.findings import CheckReport, Finding, Place, Total, number

WIDTH = 92
BAR_WIDTH = 40
MAX_DETAIL = 120
"""Long transcripts are cut here (characters); the JSON has them whole."""
LABELS = {"error": "ERROR", "warning": "WARNING", "note": "NOTE"}


def render_report(report: CheckReport, *, max_examples: int | None = 5) -> str:
    """Return the report as text.

    Args:
        report: What `check_corpus` found.
        max_examples: Places shown per finding, and rows per table; None = all.
    """
    rows = None if max_examples is None else max(12, max_examples)
    folder = _common_folder(report)
    sections = [
        _totals(report, rows),
        _durations(report),
        _sample_rates(report),
        _characters(report),
        f"Files named below are in {folder}" if folder and report.findings else "",
        *(_finding(finding, max_examples, folder) for finding in report.findings),
        _summary(report),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _totals(report: CheckReport, max_rows: int | None) -> str:
    totals = report.totals
    tables = []
    for title, table in (
        ("Split", totals.splits),
        ("Speaker", totals.speakers),
        ("Language", totals.languages),
    ):
        everything = totals.all if title == "Split" and len(table) > 1 else None
        tables.append(_table(title, table, everything, max_rows))
    return "\n\n".join(tables)


def _table(
    title: str, table: Mapping[str, Total], everything: Total | None, max_rows: int | None
) -> str:
    shown = list(table.items())[:max_rows]
    width = min(32, max([len(title) + 6, *(_columns(name) for name, _ in shown)]))
    lines = [f"{title:<{width}}  recordings     hours  with transcript"]
    lines += [_row(name, total, width) for name, total in shown]
    if len(table) > len(shown):
        lines.append(f"... and {number(len(table) - len(shown), 'more ' + title.lower())}")
    if everything is not None:
        lines.append(_row("together", everything, width))
    return "\n".join(lines)


def _row(name: str, total: Total, width: int) -> str:
    labelled = f"{total.labelled_seconds / 60:,.1f} min" if total.labelled_utterances else "-"
    padding = " " * max(0, width - _columns(name))
    return f"{name}{padding}  {total.utterances:>10,}  {total.seconds / 3600:>8.2f}  {labelled:>15}"


def _durations(report: CheckReport) -> str:
    counts = [count for _, _, count in report.durations]
    if not any(counts):
        return ""
    used = [i for i, count in enumerate(counts) if count]
    lines = ["Length of recordings"]
    for first, last, count in report.durations[used[0] : used[-1] + 1]:
        name = f"{first:g} s and more" if last is None else f"{first:g} - {last:g} s"
        bar = "█" * round(BAR_WIDTH * count / max(counts)) or ("▏" if count else "")
        lines.append(f"{name:>13}  {bar} {count:,}" if count else f"{name:>13}")
    return "\n".join(lines)


def _sample_rates(report: CheckReport) -> str:
    if not report.sample_rates:
        return ""
    rates = (f"{rate:,} Hz ({number(n, 'file')})" for rate, n in report.sample_rates.items())
    return "Sampling rate: " + ", ".join(rates)


def _characters(report: CheckReport) -> str:
    if not report.characters:
        return ""
    marked = {"rare": "?", "other_script": "~", "look_alike": "!"}
    cells = []
    for entry in report.characters:
        flags = "".join(marked[flag] for flag in entry.flags)
        cells.append(f"{_shown(entry.character)} {entry.count:,}{flags}")
    lines = [f"Characters after normalisation ({len(cells)}, how often; space left out)"]
    lines += _fill(cells)
    used = {flag for entry in report.characters for flag in entry.flags}
    legend = {
        "rare": "? rare",
        "other_script": "~ from another script than most letters",
        "look_alike": "! looks like another one",
    }
    if used:
        lines.append("  (" + ", ".join(text for flag, text in legend.items() if flag in used) + ")")
    if report.removed_characters:
        removed = [f"{_shown(c)} {n:,}" for c, n in report.removed_characters.items()]
        lines += ["Characters that normalisation takes out or changes", *_fill(removed)]
    return "\n".join(lines)


def _finding(finding: Finding, max_examples: int | None, folder: str) -> str:
    head = f"{LABELS[finding.severity]}: {finding.title}  [{finding.code}]"
    lines = wrap(head, WIDTH, subsequent_indent="    ", break_long_words=False)
    lines += wrap(finding.meaning, WIDTH, initial_indent="    ", subsequent_indent="    ")
    lines += wrap(
        "What to do: " + finding.advice, WIDTH, initial_indent="    ", subsequent_indent="    "
    )
    shown = finding.places[:max_examples]
    lines += [f"      {_place(p, folder)}" for p in shown]
    if len(finding.places) > len(shown):
        lines.append(f"      ... and {len(finding.places) - len(shown):,} more (--all shows them)")
    return "\n".join(lines)


def _common_folder(report: CheckReport) -> str:
    """Return the folder that holds all files the findings name; "" where there is none."""
    sources = {place.source for finding in report.findings for place in finding.places}
    folders = {os.path.dirname(source) for source in sources if os.path.isabs(source)}
    try:
        folder = os.path.commonpath(folders) if folders else ""
    except ValueError:  # different drives
        return ""
    return "" if folder == os.path.dirname(folder) else folder


def _place(place: Place, folder: str) -> str:
    is_below = folder and os.path.isabs(place.source)
    source = os.path.relpath(place.source, folder) if is_below else place.source
    named = f"{source}  {place.id}" if place.id and place.id not in source else source
    detail = place.detail.replace(folder + os.sep, "") if folder else place.detail
    if len(detail) > MAX_DETAIL:
        detail = detail[: MAX_DETAIL - 4].rstrip() + " ..."
    return _on_one_line(f"{named}: {detail}" if detail else named)


def _on_one_line(text: str) -> str:
    """Write control characters of names and transcripts as escapes: a terminal would obey them."""
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) == "Cc" else c for c in text)


def _summary(report: CheckReport) -> str:
    counts = ", ".join(
        number(report.count(severity), severity) for severity in ("error", "warning", "note")
    )
    if report.breaks_training:
        return f"Training would break on this: correct the errors first ({counts})."
    if report.count("warning"):
        return f"Nothing would break training, but look at the warnings ({counts})."
    return f"Nothing would break training ({counts})."


def _shown(character: str) -> str:
    if unicodedata.combining(character):
        return f"\u25cc{character}"
    if unicodedata.category(character)[0] in "CZ":
        return f"U+{ord(character):04X}"
    return character


def _columns(text: str) -> int:
    """Return how many terminal columns a text takes."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _fill(cells: list[str]) -> list[str]:
    lines, line = [], ""
    for cell in cells:
        if line and _columns(line) + _columns(cell) + 3 > WIDTH:
            lines.append(line)
            line = ""
        line += ("  " if not line else "   ") + cell
    return [*lines, line]
