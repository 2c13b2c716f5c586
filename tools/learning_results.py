"""The tables of results/learning, for tools/make_results.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

FIELDS = (
    *("row", "column", "seed", "cer", "wer", "cer_lm", "wer_lm", "accuracy", "interval"),
    *("budget_minutes", "unlabelled_hours", "audio_hours_per_hour", "parameters", "device"),
    *("shipped_encoder", "commit"),
)
HEADER = (
    *("Column", "Row", "Seed", "CER (%)", "WER (%)", "CER with LM (%)", "WER with LM (%)"),
    *("Accuracy (%)", "Pretraining (min)", "Unlabelled audio (h)", "Audio hours per hour"),
    *("Pretraining (TFLOP)", "Parameters (M)", "Device", "Commit", "File"),
)
USUAL_MINUTES = 12.0
"""What the pretraining of rows has whose name does not say otherwise."""
SLOWER = "AVX2"
"""Instructions of the processors that hear less in those minutes than the usual ones."""
AGES = ("normalization_prior_seconds", "head_dropout", "blank_levelled")
"""Settings that changed how rows are made, by when they did; cells from before lack them."""
# Their heads begin from those of phones, and keep their blank.
NEWEST = dict.fromkeys(("shipped", "best"), "head_dropout")
"""The last of them that counts for a row; `blank_levelled` where nothing is named."""
EXPLANATION = (
    "`tools/benchmark_learning.py`: one network and one fine-tuning for all rows; every "
    f"row that pretrains has {USUAL_MINUTES:g} minutes on the same audio, unless its name says how "
    "many it had. Greedy CER on dev in %, "
    "mean over seeds (over those that began from the encoder that ships now, where there are "
    "any), in brackets the bootstrap 95 % interval over utterances (its bounds "
    "averaged over seeds); then CER with the language model, and the number of seeds. "
    "`digits-2min`: accuracy in % on speakers that were left out, instead of CER; `best` "
    "heard them too, without transcripts but with how often each digit is said. "
    "`transformers`: its own wav2vec 2.0, see "
    "`tools/learning_transformers.py`. TFLOP: "
    "10^12 operations of the whole pretraining, see `tools/pretraining_flops.py`. "
    f"Rows named {SLOWER} had their minutes on a processor without AVX-512 and bfloat16, which "
    "hears a third as much in them. `best` hears the pitch where tones are written "
    "(`finetune.pitch`) and keeps an average of the weights; the other rows, begun before, "
    "do neither. ‡: made before the blank of a new head began as likely as transcripts leave "
    "frames without a symbol, some of them also before the head learnt first under dropout, or "
    "the front end knew statistics of speech beside the utterance's (docs/LOG.md, 'A head that "
    "learns by itself'); `shipped` and `best`, whose heads begin from phones: before that dropout."
)
EARLIER = "‡"
NOT_RUN = "not run"

Fields = Mapping[str, Any]
Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


def learning_tables(
    results: Sequence[tuple[Fields, str]], plot: str, table: Table, number: Callable[..., str]
) -> str:
    """Return the table of means, the plot and the table of all cells.

    Args:
        results: Fields of each cell, with its `mark`, and the link to its file.
        plot: Name of the plot's file.
        table: Writes a header and rows as Markdown.
        number: Writes a number, or a dash for None, with so many digits and a scale.
    """

    def percent(value: float | None) -> str:
        return number(value, 1, scale=100)

    results = [({**fields, "mark": _mark(fields)}, link) for fields, link in results]
    cells = [fields for fields, _ in results]
    columns = list(dict.fromkeys(str(cell["column"]) for cell in cells))
    by_column = {column: rows_of(cells, column) for column in columns}
    means = []
    rows = dict.fromkeys(row for found in by_column.values() for row in found)
    for row in sorted(rows, key=lambda row: ", " in row):  # parted ones last
        line = [row]
        for column in columns:
            found = present(by_column[column].get(row, []))
            line.append(_mean_cell(found, percent) if found else NOT_RUN)
        means.append(line)
    details = [
        [
            str(cell["column"]),
            f"{cell['row']}{cell['mark']}",
            str(cell["seed"]),
            *(percent(cell[name]) for name in ("cer", "wer", "cer_lm", "wer_lm", "accuracy")),
            number(cell["budget_minutes"]),
            number(cell["unlabelled_hours"], 1),
            number(cell["audio_hours_per_hour"]),
            number(cell.get("pretraining_flops"), 1, scale=1e-12),
            number(cell["parameters"], 2, scale=1e-6),
            str(cell["device"]),
            str(cell["commit"]),
            link,
        ]
        for cell, link in results
    ]
    picture = f"![CER of every row, by column]({plot})"
    overview = table(("Row", *columns), means)
    return "\n\n".join([EXPLANATION, overview, picture, table(HEADER, details)])


def rows_of(cells: Sequence[Fields], column: str) -> dict[str, list[Fields]]:
    """Return a column's cells by row; those whose pretraining had other minutes than
    `USUAL_MINUTES`, or had them on a processor of `SLOWER` instructions, are a row of their own,
    whose name says so, and come last."""
    rows: dict[str, list[Fields]] = {}
    for cell in (cell for cell in cells if cell["column"] == column):
        minutes, name = cell["budget_minutes"], str(cell["row"])
        if minutes not in (None, USUAL_MINUTES):
            name += f", {minutes:g} min"
        if minutes is not None and SLOWER in str(cell["device"]):
            name += f", {SLOWER}"
        rows.setdefault(name, []).append(cell)
    return dict(sorted(rows.items(), key=lambda row: ", " in row[0]))


def present(found: Sequence[Fields]) -> Sequence[Fields]:
    """Return the cells that are made as they are now; where none is, those that are most nearly so
    among those that began from the encoder of the first."""
    now = [cell for cell in found if not _mark(cell)]
    alike = [c for c in found if c["shipped_encoder"] == found[0]["shipped_encoder"]]
    newest = max(map(_age, alike), default=0)
    return now or [cell for cell in alike if _age(cell) == newest]


def _age(cell: Fields) -> int:
    return sum(bool(cell.get(name)) for name in AGES)


def _mark(cell: Fields) -> str:
    newest = NEWEST.get(cell["row"], "blank_levelled")
    return str(cell["mark"]) or ("" if cell.get(newest) else EARLIER)


def _mean_cell(found: Sequence[Fields], percent: Callable[[float | None], str]) -> str:
    mark = found[0]["mark"]
    if all(cell["accuracy"] is not None for cell in found):
        return f"{percent(_mean([c['accuracy'] for c in found]))}{mark}, n={len(found)}"
    low, high = (_mean([c["interval"][i] for c in found]) for i in (0, 1))
    greedy, lm = (_mean([c[name] for c in found]) for name in ("cer", "cer_lm"))
    return (
        f"**{percent(greedy)}**{mark} [{percent(low)}, {percent(high)}], LM {percent(lm)}, "
        f"n={len(found)}"
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
