"""The picture of results/learning, for tools/make_results.py."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tools.learning_results import present, rows_of


def learning_plot(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return an SVG picture: a panel per column, a line per row, a dot per seed that is in the
    table of means."""
    panels, left, width, height = [], 150, 640, 20
    top = 8
    for column in dict.fromkeys(str(c["column"]) for c in cells):
        shown = {row: present(found) for row, found in rows_of(cells, column).items()}
        mine = [c for found in shown.values() for c in found]
        key = "cer" if mine[0]["accuracy"] is None else "accuracy"
        bounds = [b for c in mine for b in (c["interval"] or [c[key]])]
        low, high = math.floor(min(bounds) * 20) / 20, math.ceil(max(bounds) * 20) / 20
        scale = (width - left - 20) / max(high - low, 0.05)
        panels.append(f'<text x="4" y="{top + 14}" font-weight="bold">{column}, {key} (%)</text>')
        for step in range(round((high - low) * 20) + 1):
            x, share = left + scale * step / 20, low + step / 20
            bottom = top + 24 + height * len(shown)
            panels.append(
                f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{top + 22}" y2="{bottom}" stroke="#ddd"/>'
                f'<text x="{x:.0f}" y="{bottom + 12}" text-anchor="middle">{100 * share:.0f}</text>'
            )
        top += 24
        for row, found in shown.items():
            y = top + height / 2
            panels.append(f'<text x="{left - 8}" y="{y + 4:.0f}" text-anchor="end">{row}</text>')
            for cell in found:
                first, last = cell["interval"] or [cell[key]] * 2
                panels.append(
                    f'<line x1="{left + scale * (first - low):.1f}" '
                    f'x2="{left + scale * (last - low):.1f}" y1="{y}" y2="{y}" stroke="#88a"/>'
                    f'<circle cx="{left + scale * (cell[key] - low):.1f}" cy="{y}" r="3.5" '
                    'fill="#b33"/>'
                )
            top += height
        top += 26
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}" '
        f'font-family="sans-serif" font-size="11" fill="#333">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(panels)}</svg>\n'
    )
