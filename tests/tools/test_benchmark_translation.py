"""Rows of the benchmark of translation: what they set, and what they record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speechjepa.models.bundle import Bundle, build_encoder, save_bundle
from speechjepa.models.speech_encoder import SpeechEncoderConfig
from speechjepa.workflow.recipe import load_recipe
from tools.benchmark_translation import ROOT, ROWS, main, record, settings_of
from tools.translation_results import FIELDS

SCORES = {
    **{"unit_error_rate": 0.4, "unit_bleu": 30.0, "bleu": 20.0, "chrf": 50.0, "asr_bleu": 45.0},
    **{"asr_chrf": 60.0, "asr_cer": 0.3, "rtf": 0.2, "signatures": ["nrefs:1"]},
}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_is_a_recipe_with_settings_that_exist(row: str, tmp_path: Path) -> None:
    settings = settings_of(row, 0, "shipped", None)
    found = load_recipe(ROOT / "recipes" / f"{ROWS[row][0]}.yaml", settings, tmp_path)
    assert found.translation is not None


def test_a_row_records_what_the_tables_need(tmp_path: Path) -> None:
    recipe = load_recipe(ROOT / "recipes/s2st_phrases/es_en.yaml", ["seed=2"], tmp_path)
    figures: dict[str, Any] = {
        "head": "ctc",
        "pairs": 150,
        "streaming": {"laal_ms": 900.0},
        "rows": {
            "ctc": SCORES,
            "ctc_best_path": {**SCORES, "asr_bleu": 40.0, "unit_error_rate": 0.45},
            "retrieval": {**SCORES, "asr_bleu": 3.0},
            "true_units": {"asr_bleu": 80.0},
            "streaming": {**SCORES, "asr_bleu": 36.0, "rtf": 0.3},
            "streaming_best_path": {**SCORES, "asr_bleu": 30.0},
            "true_speech": {"asr_bleu": 90.0, "asr_cer": 0.02},
        },
        "share_of_ceiling": 0.5,
        "text_normalisation": {},
    }
    row = record(recipe, "es_en", figures, 20.04)
    assert set(FIELDS) <= set(row)
    assert (row["encoder"], row["seed"]) == ("shipped", 2)
    assert row["units"] == {"layer": 8, "k": 100, "model": "shipped"}
    assert (row["asr_bleu"], row["asr_bleu_ceiling"], row["laal_ms"]) == (45.0, 90.0, 900.0)
    assert (row["asr_bleu_best_path"], row["unit_error_rate_best_path"]) == (40.0, 0.45)
    stream = row["streaming"]
    assert (stream["laal_ms"], stream["asr_bleu"], stream["rtf"]) == (900.0, 36.0, 0.3)
    assert (stream["asr_bleu_best_path"], stream["share_of_offline"]) == (30.0, 0.8)
    assert row["pretrained"] is None
    assert row["retrieval"]["asr_bleu"] == 3.0 and row["asr_bleu_true_units"] == 80.0


def test_a_row_that_measures_an_encoder_needs_it_and_makes_units_of_it(tmp_path: Path) -> None:
    asked = ["--data-root", str(tmp_path), "--work", str(tmp_path), "--rows", "es_en-short-jepa"]
    with pytest.raises(SystemExit, match="es_en-short-jepa needs --init"):
        main([*asked, "--results", str(tmp_path / "results")])
    settings = settings_of("es_en-short-jepa", 0, tmp_path / "jepa", None)
    recipe = load_recipe(ROOT / "recipes/s2st_phrases/es_en.yaml", settings, tmp_path)
    assert recipe.translation is not None and recipe.translation.units is not None
    assert recipe.init == recipe.translation.units.model == tmp_path / "jepa"


def test_a_row_says_how_its_encoder_was_pretrained(tmp_path: Path) -> None:
    known = {"objective": "jepa", "minutes": 12.0, "steps": 9, "languages": ["mdw"]}
    known |= {"unlabelled_hours": 3.0, "audio_hours_seen": 7.0, "init": None}
    known["settings"] = {"jepa": {"num_masks": 1}, "contrastive": {}}
    sizes = SpeechEncoderConfig(width=8, num_layers=1, num_heads=1, ffn_width=8)
    bundle = Bundle(encoder=build_encoder(sizes), training={"pretrain": known})
    save_bundle(bundle, tmp_path / "jepa" / "pretrain" / "bundle")
    settings = settings_of("es_en-short-jepa", 0, tmp_path / "jepa", None)
    recipe = load_recipe(ROOT / "recipes/s2st_phrases/es_en.yaml", settings, tmp_path)
    figures = {"head": "ctc", "pairs": 1, "text_normalisation": {}}
    row = record(recipe, "x", {**figures, "rows": {"ctc": SCORES, "retrieval": SCORES}}, 1.0)
    assert row["pretrained"]["audio_hours_seen"] == 7.0
    assert row["pretrained"]["settings"] == {"num_masks": 1}
    assert row["encoder"] == row["units"]["model"] == "jepa"


def test_text_has_neither_units_nor_a_ceiling_of_speech(tmp_path: Path) -> None:
    recipe = load_recipe(ROOT / "recipes/s2st_mboshi/text.yaml", [], tmp_path)
    scores = {**SCORES, "unit_error_rate": None, "asr_bleu": None}
    rows = {"autoregressive": scores, "retrieval": scores}
    figures = {"head": "autoregressive", "pairs": 1, "rows": rows, "text_normalisation": {}}
    row = record(recipe, "mboshi", figures, 1.0)
    assert row["asr_bleu_best_path"] is None and row["unit_error_rate_best_path"] is None
    assert row["streaming"] is None and row["units"] is None
    assert row["asr_bleu_ceiling"] is None and row["laal_ms"] is None
