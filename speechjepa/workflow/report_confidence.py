"""The part of the report about trust: how often words are right that score so and so much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from speechjepa.workflow.report_svg import escape

_TITLES = {"greedy": "Best path", "lm": "With the language model"}
_SIZE, _LEFT, _TOP, _BOTTOM = 300, 40, 8, 26
_HINT = (
    "<p>Words sorted by their score: on the dashed line a score is the share of words that are "
    "right. A dot is as large as it has words. The scores that transcripts carry are the "
    "calibrated ones; here each half of the utterances is scored by what was fitted on the other "
    "half. ECE is the expected calibration error, the mean distance from the line.</p>"
)


def confidence(results: dict[str, Any]) -> str:
    """Draw a reliability diagram for each way of decoding.

    Args:
        results: The content of results.json.
    """
    measured = results.get("confidence")
    if not measured:
        return '<p class="none">The scores of words were not measured in this run.</p>'
    parts = []
    for name, found in measured.items():
        title = _TITLES.get(name, name)
        if found is None:
            parts.append(f'<p class="none">{escape(title)}: too few words to say.</p>')
        else:
            parts.append(_figure(title, found))
    return f'{_HINT}<div class="charts">{"".join(parts)}</div>'


def _figure(title: str, found: dict[str, Any]) -> str:
    raw, kept = found["bins_mean_posterior"], found["bins_held_out"]
    area = found["area_under_roc"]
    facts = f"{found['accuracy']:.0%} of {found['num_words']} words are right"
    if area is not None:
        facts += f"; a right word scores above a wrong one {area:.0%} of the time"
    keys = (
        f'<span class="key s1">mean posterior, ECE <b>{found["ece_mean_posterior"]:.3f}</b></span>'
        f'<span class="key s0">calibrated, ECE <b>{found["ece_held_out"]:.3f}</b></span>'
    )
    return (
        f"<figure><figcaption><b>{escape(title)}</b>: {escape(facts)}.</figcaption>"
        f'<div class="legend">{keys}</div>{_diagram(raw, kept)}</figure>'
    )


def _diagram(raw: Sequence[dict[str, Any]], kept: Sequence[dict[str, Any]]) -> str:
    width, height = _SIZE + 60, _SIZE
    right, bottom = width - 14, height - _BOTTOM
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = _LEFT + share * (right - _LEFT), bottom - share * (bottom - _TOP)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">'
            f"{share:.0%}</text>"
            f'<text class="tick" x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">'
            f"{share:g}</text>"
        )
    parts.append(f'<line class="floor" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{_TOP}"/>')
    total = sum(one["count"] for one in raw) or 1
    for index, bins in ((1, raw), (0, kept)):
        points = [
            (
                _LEFT + one["confidence"] * (right - _LEFT),
                bottom - one["accuracy"] * (bottom - _TOP),
                one,
            )
            for one in bins
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
        parts.append(f'<polyline class="line s{index}" points="{path}"/>')
        parts += [
            f'<circle class="end s{index}" cx="{x:.1f}" cy="{y:.1f}" '
            f'r="{2 + 14 * math.sqrt(one["count"] / total):.1f}"><title>{one["count"]} words, '
            f"score {one['confidence']:.2f}, right {one['accuracy']:.0%}</title></circle>"
            for x, y, one in points
        ]
    return (
        f'<svg class="reliability" viewBox="0 0 {width} {height}" role="img">{"".join(parts)}</svg>'
    )
