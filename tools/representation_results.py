"""The table of results/representation.json, for tools/make_results.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

NAME = "representation.json"
HEADER = (
    *("Encoder", "ABX error (%)", "Layer", "Linear probe, error (%)", "Layer"),
    *("RankMe of the last layer", "Layers"),
)
EXPLANATION = (
    "`tools/benchmark_representation.py`: encoders as pretrained, frozen; {utterances} utterances, "
    "{characters} characters, placed in time by a model that was fine-tuned on all labels. ABX: of "
    "two characters of different kinds, how often the one of the other kind lies closer to a third "
    "(chance: 50 %). The probe tells characters by a logistic regression of one frame. Best layer "
    "of each; all layers are in the file. The ends of the scale: `fresh`, weights that were never "
    "trained, and `aligner`, the encoder that was fine-tuned on all labels (the times are its own)."
)

Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


def representation_table(
    fields: Mapping[str, Any], table: Table, number: Callable[..., str]
) -> str:
    """Return the explanation and the table, a row for each encoder.

    Args:
        fields: Of the file.
        table: Writes a header and rows as Markdown.
        number: Writes a number with so many digits and a scale.
    """
    rows = []
    for name, layers in fields["layers"].items():
        row = [str(name)]
        for key in ("abx", "probe_error"):
            best = min(range(len(layers)), key=lambda index: layers[index][key])
            row += [number(layers[best][key], 1, scale=100), str(best)]
        rows.append([*row, number(layers[-1]["rank_me"]), str(len(layers) - 1)])
    explanation = EXPLANATION.format(
        utterances=fields["utterances"], characters=fields["characters"]
    )
    return f"{explanation}\n\n{table(HEADER, rows)}"
