"""The tables of results/translation, for tools/make_results.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

FIELDS = (
    *("row", "recipe", "head", "encoder", "units", "streaming", "asr_bleu", "asr_bleu_ceiling"),
    *("asr_cer_ceiling", "bleu", "chrf", "unit_error_rate", "share_of_ceiling", "retrieval"),
    *("laal_ms", "rtf", "pairs", "training_minutes", "signatures", "seed", "device"),
    *("shipped_encoder", "commit"),
)
HEADER = (
    *("Row", "Recipe", "Head", "Encoder", "Units", "ASR-BLEU", "best path", "Ceiling", "Share (%)"),
    *("BLEU", "chrF", "Unit error rate (%)", "Retrieval: ASR-BLEU", "chrF", "RTF"),
    *("In chunks: ASR-BLEU", "LAAL (ms)", "RTF"),
    *("Training (min)", "Seed", "Commit", "File"),
)
EXPLANATION = (
    "`tools/benchmark_translation.py`: dev pairs, whose phrases and voices are in no training. "
    "ASR-BLEU is sacrebleu's of what a recogniser hears in the translation, the ceiling that of "
    "the same recogniser on true target speech, never trained on a voice of ours; the best path "
    "is the same translator's, without the language model that it has elsewhere; BLEU and chrF "
    "are those of the text that the translator writes itself, where it knows any. Retrieval is the "
    "nearest known source's translation. In chunks of 0.32 s, as a stream: what is said then, how "
    "late (length-adaptive average lagging of units), with how much work. Signatures and text "
    "normalisation are in the files."
)

Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


def translation_table(
    results: Sequence[tuple[Mapping[str, Any], str]], table: Table, number: Callable[..., str]
) -> str:
    """Return the table of rows, each its fields and a link to its file.

    Args:
        results: Fields of each, with its `mark`, and the link to its file.
        table: Writes a header and rows as Markdown.
        number: Writes a number, or a dash for None, with so many digits and a scale.
    """
    rows = []
    for fields, link in results:
        units, retrieval = fields["units"], fields["retrieval"]
        stream = fields["streaming"] or {}
        rows.append(
            [
                f"{fields['row']}{fields['mark']}",
                *(str(fields[name]) for name in ("recipe", "head", "encoder")),
                _describe_units(units),
                number(fields["asr_bleu"], 1),
                number(fields.get("asr_bleu_best_path"), 1),  # rows of earlier versions lack it
                number(fields["asr_bleu_ceiling"], 1),
                number(fields["share_of_ceiling"], 1, scale=100),
                number(fields["bleu"], 1),
                number(fields["chrf"], 1),
                number(fields["unit_error_rate"], 1, scale=100),
                number(retrieval.get("asr_bleu"), 1),
                number(retrieval.get("chrf"), 1),
                number(fields["rtf"], 2),
                number(stream.get("asr_bleu"), 1),
                number(fields["laal_ms"]),
                number(stream.get("rtf"), 2),
                number(fields["training_minutes"], 1),
                str(fields["seed"]),
                str(fields["commit"]),
                link,
            ]
        )
    return table(HEADER, rows)


def _describe_units(units: Mapping[str, Any] | None) -> str:
    if units is None:
        return "–"
    of = units.get("model", "shipped")  # rows of earlier versions lack it: they had no other
    layer = f"layer {units['layer']}" + (f" of {of}" if of != "shipped" else "")
    return f"{layer}, {units['k']}"
