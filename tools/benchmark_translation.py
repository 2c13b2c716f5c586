"""Measure translation: one run of a recipe per row, and what its baselines score.

    OMP_NUM_THREADS=2 python tools/benchmark_translation.py --data-root DATA \\
        --work runs/translation --rows es_en es_en-short es_en-short-mel_units

Every row trains on the pairs of its recipe and is scored on its dev pairs, which share neither
phrases nor voices with them. Scores of speech are those of what a recogniser hears in it; the
recogniser is trained on the true target speech (never on a voice's), its own BLEU and character
error on true target speech are in every row (`asr_bleu_ceiling`, `asr_cer_ceiling`), and both texts
are normalised as `text_normalisation` says. Rows that stream are scored whole, and in chunks of
0.32 s under `streaming`. `retrieval` is the nearest known source of the same
encoder; fields that end in `_best_path` are those of the same translator without its language
model (null where it has none). A row is one JSON file, `results/translation/ROW-SEED.json`; rows
that exist are not measured again, and runs that were interrupted go on where they stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from speechjepa.models.bundle import load_bundle
from speechjepa.models.shipped import shipped_version
from speechjepa.workflow.recipe import Recipe, load_recipe
from speechjepa.workflow.record import commit, hardware, write_json
from speechjepa.workflow.stages import run_recipe
from speechjepa.workflow.start import shipped_start

ROOT = Path(__file__).resolve().parent.parent
AUTOREGRESSIVE = "translation.train.translator.head=autoregressive"
FRESH = ("init=fresh", "translation.train.freeze_finetune_updates=0")
SHORT = "translation.train.max_steps=1800"
"""Of rows that are compared with each other, whatever else the machine does; some 12 minutes of one
core, after which a translator goes on learning for more than an hour."""
INIT = "{init}"
"""In a setting: what --init names."""
ALL_OF_INIT = (SHORT, f"translation.units.model={INIT}", "translation.units.layer=2")
"""Lower layers say more of phones after minutes of pretraining (results/units.json)."""

ROWS: dict[str, tuple[str, tuple[str, ...]]] = {
    "es_en": ("s2st_phrases/es_en", ()),
    "es_en-short": ("s2st_phrases/es_en", (SHORT,)),
    "es_en-short-autoregressive": ("s2st_phrases/es_en", (SHORT, AUTOREGRESSIVE)),
    "es_en-short-untrained": ("s2st_phrases/es_en", (SHORT, *FRESH)),
    "es_en-short-mel_units": ("s2st_phrases/es_en", (SHORT, "translation.units.layer=mel")),
    "es_en-short-textless": (
        "s2st_phrases/es_en",
        (SHORT, "translation.train.source_text_weight=0", "translation.train.target_text_weight=0"),
    ),
    "es_en-short-contrastive": ("s2st_phrases/es_en", ALL_OF_INIT),
    "es_en-short-jepa": ("s2st_phrases/es_en", ALL_OF_INIT),
    "es_en-streaming": ("s2st_phrases/es_en", ("translation.train.streaming={}",)),
    "fr_de": ("s2st_phrases/fr_de", ()),
    "en_id": ("s2st_phrases/en_id", ()),
    "prompts": ("s2st_prompts/es_en", ()),
    "prompts-pretrained": ("s2st_prompts/es_en_pretrained", ()),
    "prompts-en_es": ("s2st_prompts/en_es", ()),
    "prompts-en_pt": ("s2st_prompts/en_pt", ()),
    "mboshi": ("s2st_mboshi/text", ()),
    "mboshi-speech": ("s2st_mboshi/speech", ()),
}
"""Row -> recipe, and what is set beside it."""


def main(arguments: list[str] | None = None) -> None:
    """Measure the rows that are asked for and missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data-root", type=Path, required=True)
    add("--work", type=Path, required=True, help="folder of the runs")
    add("--rows", nargs="+", choices=tuple(ROWS), default=["es_en"])
    add("--minutes", type=float, help="of training a translator, for every row (its recipe's)")
    add("--seeds", nargs="+", type=int, default=[0])
    add(
        "--init",
        help="start from this run or bundle, named in `encoder`; prompts-pretrained needs "
        "that of es_en, es_en-short-contrastive and es_en-short-jepa those of a pretraining, which "
        "units are made of as well",
    )
    add("--results", type=Path, default=ROOT / "results")
    args = parser.parse_args(arguments)
    for seed in args.seeds:
        for row in args.rows:
            path = args.results / "translation" / f"{row}-{seed}.json"
            if path.exists():
                print(f"{path} is there")
                continue
            write_json(path, measure(row, seed, args))
            print(f"wrote {path}")


def measure(row: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train and score one row."""
    settings = settings_of(row, seed, args.init, args.minutes)
    recipe = load_recipe(ROOT / "recipes" / f"{ROWS[row][0]}.yaml", settings, args.data_root)
    states = run_recipe(recipe, args.work / f"{row}-{seed}", cache_dir=args.work / "cache")
    return record(recipe, row, states["evaluate"].figures, states["translate"].minutes)


def settings_of(row: str, seed: int, init: str | Path | None, minutes: float | None) -> list[str]:
    """Return what a row sets beside its recipe."""
    settings = [f"seed={seed}", *ROWS[row][1]]
    if init is None and any(INIT in setting for setting in settings):
        raise SystemExit(f"{row} needs --init, the encoder that it measures")
    settings = [setting.replace(INIT, str(init)) for setting in settings]
    if minutes is not None:
        settings.append(f"translation.train.minutes={minutes}")
    if init is not None:
        settings.append(f"init={init}")
    return settings


def record(
    recipe: Recipe, row: str, figures: dict[str, Any], training_minutes: float
) -> dict[str, Any]:
    """Return the row of one run.

    Args:
        recipe: That was run.
        row: Its name.
        figures: Of its stage `evaluate`.
        training_minutes: Of its translator.
    """
    assert recipe.translation is not None
    head, rows = figures["head"], figures["rows"]
    best, ceiling = rows[head], rows.get("true_speech", {})
    best_path = rows.get(f"{head}_best_path", {})
    units = recipe.translation.units
    is_text = recipe.translation.writes == "characters"
    return {
        "row": row,
        "recipe": recipe.name,
        "head": head,
        "encoder": "shipped" if recipe.init is None else Path(recipe.init).name,
        "pretrained": _pretraining(recipe.init),
        "units": None
        if is_text or units is None
        else {"layer": units.layer, "k": units.num_units, "model": units.model.name},
        "shipped_encoder": _shipped(recipe),
        "streaming": _streaming(figures),
        **{key: best[key] for key in ("asr_bleu", "asr_chrf", "asr_cer", "bleu", "chrf")},
        **{key: best[key] for key in ("unit_error_rate", "unit_bleu")},
        "asr_bleu_best_path": best_path.get("asr_bleu"),
        "unit_error_rate_best_path": best_path.get("unit_error_rate"),
        "asr_bleu_ceiling": ceiling.get("asr_bleu"),
        "asr_cer_ceiling": ceiling.get("asr_cer"),
        "asr_bleu_true_units": rows.get("true_units", {}).get("asr_bleu"),
        "share_of_ceiling": figures.get("share_of_ceiling"),
        "retrieval": rows["retrieval"],
        "laal_ms": (figures.get("streaming") or {}).get("laal_ms"),
        "rtf": best.get("rtf"),
        "pairs": figures["pairs"],
        "training_minutes": round(training_minutes, 2),
        "signatures": best.get("signatures"),
        "text_normalisation": figures["text_normalisation"],
        "seed": recipe.seed,
        "device": hardware(),
        "commit": commit(),
    }


def _shipped(recipe: Recipe) -> str | None:
    """Return the version of the shipped encoder, None where nothing is made of it."""
    assert recipe.translation is not None
    units = recipe.translation.units
    of_units = units is not None and units.model.name == "shipped"
    return shipped_version() if of_units else shipped_start(recipe)


def _pretraining(init: Path | None) -> dict[str, Any] | None:
    """Return how the encoder that a row starts from was pretrained, if that was done here."""
    bundle = None if init is None else init / "pretrain" / "bundle"
    if bundle is None or not bundle.is_dir():
        return None
    known = load_bundle(bundle).training["pretrain"]
    names = ("objective", "minutes", "steps", "unlabelled_hours", "audio_hours_seen", "languages")
    found = {name: known[name] for name in names}
    return found | {"settings": known["settings"][known["objective"]]}


def _streaming(figures: dict[str, Any]) -> dict[str, Any] | None:
    """Return how late a stream says what it says, and how good that is; None = it cannot."""
    late, rows = figures.get("streaming"), figures["rows"]
    if late is None:
        return None
    stream, best_path = rows["streaming"], rows.get("streaming_best_path", {})
    names = ("asr_bleu", "asr_chrf", "unit_error_rate", "rtf")
    return {
        **late,
        **{name: stream[name] for name in names},
        "asr_bleu_best_path": best_path.get("asr_bleu"),
        "share_of_offline": _share(stream["asr_bleu"], rows[figures["head"]]["asr_bleu"]),
    }


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


if __name__ == "__main__":
    main()
