"""Recipes that translate: what they say, which stages they have, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from speechjepa.config import load_yaml
from speechjepa.errors import ConfigError, DataError, ModelError
from speechjepa.workflow.outcome import summary_line
from speechjepa.workflow.recipe import Recipe, build_recipe, load_recipe, save_recipe
from speechjepa.workflow.run import StageState
from speechjepa.workflow.stages import Plan, run_recipe
from speechjepa.workflow.translation_data import read_units, units_model, write_units
from tests.data.corpora import audio, rows
from tests.translation_bundle import bundle

SETTINGS: dict[str, Any] = {
    "name": "t",
    "data": {"train": "c/train", "dev": "c/dev"},
    "encoder": {"frame_rate": 25},
    "translation": {"language": "yy"},
}


def corpus(root: Path, *, target_audio: bool = True) -> None:
    for split in ("train", "dev"):
        folder = root / "c" / split
        content = []
        for number in range(2):
            audio(folder / f"audio/{number}.wav", 0.3)
            row: dict[str, object] = {
                "file_name": f"audio/{number}.wav",
                "id": f"{split}-{number}",
                "translation": {"yy": f"{split} text {number}"},
            }
            if target_audio:
                audio(folder / f"target/{number}.wav", 0.3)
                row["target_audio"] = {"yy": f"target/{number}.wav"}
            content.append(row)
        rows(folder / "metadata.jsonl", *content)


def recipe(root: Path, *overrides: str) -> Recipe:
    return build_recipe(SETTINGS, overrides, root)


LAST = ("language_model", "evaluate", "report")


def names(found: Recipe, folder: Path) -> list[str]:
    return [stage.name for stage in Plan(found, folder, folder, None).stages()]


def test_a_recipe_that_translates_trains_no_recogniser_of_the_source(tmp_path: Path) -> None:
    found = recipe(tmp_path)
    assert found.pretrain is None and found.finetune is None and found.language_model is None
    assert names(found, tmp_path) == ["check", "units", "voice", "translate", *LAST]
    assert names(recipe(tmp_path, "translation.voice=null"), tmp_path)[2] == "translate"
    text = recipe(tmp_path, "translation.writes=characters")
    assert names(text, tmp_path) == ["check", "translate", *LAST]
    more = recipe(tmp_path, "translation.recogniser={}", "translation.phrases={}")
    assert names(more, tmp_path)[0] == "prepare" and "recogniser" in names(more, tmp_path)


def test_only_ctc_that_can_be_tuned_gets_a_language_model(tmp_path: Path) -> None:
    for override in (
        "translation.language_model=null",
        "translation.train.translator.head=autoregressive",
        "data.dev=null",
    ):
        assert "language_model" not in names(recipe(tmp_path, override), tmp_path)
    with pytest.raises(ConfigError, match="`order` must be between 2 and 6, but is 7"):
        recipe(tmp_path, "translation.language_model.order=7")


def test_what_is_missing_for_a_language_model_is_said_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus(tmp_path)
    monkeypatch.setitem(sys.modules, "flashlight.lib.text", None)
    with pytest.raises(ModelError, match=r'pip install "speechjepa\[lm\]"'):
        run_recipe(recipe(tmp_path), tmp_path / "run", only=["check"])
    without = recipe(tmp_path, "translation.language_model=null")
    run_recipe(without, tmp_path / "run", only=["check"])


def test_a_language_model_is_tuned_kept_and_measured_beside_the_best_path(tmp_path: Path) -> None:
    pytest.importorskip("flashlight.lib.text.decoder")
    corpus(tmp_path)
    run = tmp_path / "run"
    trained = bundle(run / "translate/bundle", voice=False)
    for split in ("train", "dev"):
        targets = {f"{split}-{n}": ([n, 2, 3, 1], [1, 1, 1, 1]) for n in range(2)}
        (run / "units").mkdir(exist_ok=True)
        write_units(targets, run / f"units/{split}.jsonl")
    found = recipe(tmp_path, "translation.voice=null")
    states = run_recipe(found, run, only=["language_model", "evaluate", "report"])
    tuned, scores = states["language_model"].figures, states["evaluate"].figures["rows"]
    assert tuned["tokens"]["is_used"] and tuned["tokens"]["pairs"] == 2 and "text" in tuned
    assert scores["ctc"]["unit_error_rate"] == tuned["tokens"]["error_rate"]
    assert scores["ctc_best_path"]["unit_error_rate"] == tuned["tokens"]["error_rate_best_path"]
    assert scores["ctc"]["unit_error_rate"] < scores["ctc_best_path"]["unit_error_rate"]
    assert (trained / "translator/lm.arpa").is_file()
    assert "Language model" in (run / "report.html").read_text(encoding="utf-8")
    # Without the setting it is not left behind in the bundle.
    without = recipe(tmp_path, "translation.voice=null", "translation.language_model=null")
    states = run_recipe(without, run, only=["evaluate"])
    assert not (trained / "translator/decoder.json").exists()
    assert "ctc_best_path" not in states["evaluate"].figures["rows"]


def test_a_recipe_that_translates_comes_back_from_disk(tmp_path: Path) -> None:
    found = recipe(tmp_path, "translation.train.translator.head=autoregressive")
    save_recipe(found, tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml", data_root=tmp_path) == found
    assert load_yaml(tmp_path / "recipe.yaml")["translation"]["units"]["num_units"] == 100


def test_what_belongs_to_other_recipes_is_refused(tmp_path: Path) -> None:
    for override, reason in (
        ("finetune={}", "`finetune` and `translation` are two recipes"),
        ("pretrain={}", "`pretrain` and `translation` are two recipes"),
        ("translation.train.upsample=2", "`upsample` has no meaning"),
        ("translation.max_dev_pairs=0", "`max_dev_pairs` must be at least 1"),
        ("translation.voice_minutes=0", "`voice_minutes` must be more than 0"),
        ("translation.unit=3", "unknown key `translation.unit`; did you mean"),
    ):
        with pytest.raises(ConfigError, match=reason):
            recipe(tmp_path, override)


def test_pairs_are_counted_before_anything_is_trained(tmp_path: Path) -> None:
    corpus(tmp_path)
    run_recipe(recipe(tmp_path), tmp_path / "run", only=["check", "report"])
    said = json.loads((tmp_path / "run/check.json").read_text(encoding="utf-8"))
    assert said["pairs"]["train"]["with target speech"] == 2
    report = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "with target speech" in report and "no trained translator" in report
    (tmp_path / "c/train/target/1.wav").unlink()
    with pytest.raises(DataError, match=r"metadata.jsonl:2: the target audio .*1.wav is not there"):
        run_recipe(recipe(tmp_path), tmp_path / "run2", only=["check"])


def test_text_alone_is_no_speech_unless_it_is_spoken(tmp_path: Path) -> None:
    corpus(tmp_path, target_audio=False)
    with pytest.raises(DataError, match=r"translation\.spoken_by.*or `translation\.writes"):
        run_recipe(recipe(tmp_path), tmp_path / "run", only=["check"])
    run_recipe(recipe(tmp_path, "translation.writes=characters"), tmp_path / "b", only=["check"])
    spoken = recipe(tmp_path, "translation.spoken_by=en-us")
    plan = Plan(spoken, tmp_path / "c", tmp_path, None)
    from speechjepa.workflow.translation import TranslationPlan

    pairs = TranslationPlan(spoken, tmp_path / "run", tmp_path, plan.corpora).pairs
    assert pairs.synthesise() == 4 and pairs.synthesise() == 0
    assert all(p.target is not None and p.target.audio_path.exists() for p in pairs.train)


def test_units_of_a_start_without_any_are_refused(tmp_path: Path) -> None:
    corpus(tmp_path)
    with pytest.raises(ConfigError, match="must then be a run of translation"):
        run_recipe(
            recipe(tmp_path, "translation.units=null"), tmp_path / "r", only=["check", "units"]
        )


def test_units_come_back_from_disk(tmp_path: Path) -> None:
    write_units({"a": ([1, 2], [3, 4]), "b": ([], [])}, tmp_path / "train.jsonl")
    assert read_units(tmp_path / "train.jsonl") == {"a": [1, 2], "b": []}
    with pytest.raises(DataError, match="does not say which encoder"):
        units_model(tmp_path)


def test_a_run_ends_with_its_scores_beside_the_baseline_and_the_ceiling(tmp_path: Path) -> None:
    row = {"unit_error_rate": 0.25, "bleu": None, "chrf": 30.0, "asr_bleu": 40.0}
    figures = {
        "head": "ctc",
        "rows": {
            "ctc": row,
            "retrieval": {**row, "unit_error_rate": 0.5, "chrf": 10.0, "asr_bleu": 1.0},
            "true_speech": {"asr_bleu": 90.0},
        },
    }
    state = StageState(fingerprint="", inputs={}, minutes=2.0, figures=figures)
    assert summary_line(recipe(tmp_path), {"evaluate": state}) == (
        "t: unit error rate 25.0 % (retrieval 50.0 %), chrF 30.0 (retrieval 10.0), "
        "ASR-BLEU 40.0 (retrieval 1.0), true speech has ASR-BLEU 90.0; 2.0 min in all"
    )


QUICK = (
    "translation.units={num_units: 4, phases: 1}",
    "translation.voice=null",
    "translation.language_model=null",
    "translation.train.max_steps=2",
    "translation.train.evaluate_every=1",
)


def test_what_a_run_spoke_itself_is_no_reason_to_train_again(tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO")
    corpus(tmp_path, target_audio=False)
    settings = recipe(tmp_path, *QUICK, "translation.spoken_by=en-us")
    stages = ["check", "units", "translate"]
    run_recipe(settings, tmp_path / "run", only=stages)
    caplog.clear()
    run_recipe(settings, tmp_path / "run", only=stages)
    assert [f"{name}: unchanged" in caplog.text for name in stages] == [True] * 3


def test_pairs_of_dev_may_have_the_ids_of_train_but_not_their_sound(tmp_path: Path) -> None:
    corpus(tmp_path)
    for split in ("train", "dev"):
        path = tmp_path / "c" / split / "metadata.jsonl"
        path.write_text(path.read_text().replace(f'"{split}-', '"'))
    run_recipe(recipe(tmp_path), tmp_path / "run", only=["check"])
    said = json.loads((tmp_path / "run/check.json").read_text(encoding="utf-8"))
    assert said["pairs"]["dev"]["pairs"] == 2
    with pytest.raises(DataError, match="every pair of `data.dev` is one of train"):
        run_recipe(recipe(tmp_path, "data.dev=c/train"), tmp_path / "same", only=["check"])


def test_the_seed_reaches_every_stage_that_draws(tmp_path: Path) -> None:
    corpus(tmp_path)
    assert recipe(tmp_path, "seed=5").translation.train.seed == 5
    assert recipe(tmp_path, "seed=5", "translation.train.seed=7").translation.train.seed == 7

    def units(seed: int) -> bytes:
        run_recipe(
            recipe(tmp_path, *QUICK, f"seed={seed}"), tmp_path / "r", only=["check", "units"]
        )
        return (tmp_path / "r/units/units.safetensors").read_bytes()

    assert units(0) != units(5)
