"""The generated documents say what results/ says, and are up to date."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from speechjepa.errors import DataError
from tools import learning_results, translation_results
from tools.make_results import README_BEGIN, README_END, ROOT, documents, main, read_results

RECIPE_RESULT = {
    **{"what": "dev CER of toy-asr", "figure": 12.3, "unit": "% CER", "recipe": "toy-asr"},
    **{"split": "dev", "cer": 0.123, "wer": 0.4567, "cer_lm": 0.1, "wer_lm": None},
    **{"label_minutes": 10.04, "pretraining_minutes": 25.25, "unlabelled_hours": 9.9},
    **{
        "parameters": 4_100_000,
        "shipped_encoder": None,
        "command": "speechjepa run recipes/toy/asr.yaml",
        "seed": 3,
    },
    **{"commit": "0123456789ab", "hardware": "2 cores of Abacus", "date": "2026-11-23"},
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "recipes" / "toy"
    folder.mkdir(parents=True)
    (folder / "asr.yaml").write_text("name: toy-asr\ntitle: A toy\n")
    (folder / "asr_1h.yaml").write_text("name: toy-asr-1h\ntitle: A bigger toy\n")
    _write(tmp_path / "results" / "recipes" / "toy-asr-3.json", RECIPE_RESULT)
    return tmp_path


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_a_recipe_shows_its_rates_in_percent_and_how_they_were_measured(project: Path) -> None:
    page = documents(project)[project / "recipes" / "toy" / "RESULTS.md"]
    row = next(line for line in page.splitlines() if line.startswith("| toy-asr |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:11] == ["10.0", "dev", "12.3", "45.7", "10.0", "–", "3", "25.2", "9.9", "4.1"]
    assert "`speechjepa run recipes/toy/asr.yaml` at commit 0123456789ab" in page
    assert "2 cores of Abacus" in page


def test_a_recipe_without_a_result_says_that_it_was_not_run(project: Path) -> None:
    pages = documents(project)
    page = pages[project / "recipes" / "toy" / "RESULTS.md"]
    assert "not run" in page.split("## toy-asr-1h")[1]
    overview = pages[project / "docs" / "RESULTS.md"]
    row = next(line for line in overview.splitlines() if line.startswith("| toy-asr-1h |"))
    assert "not run" in row
    assert len({line.count("|") for line in overview.splitlines() if line.startswith("| toy")}) == 1


@pytest.mark.parametrize(("began_from", "mark"), [("aaaa", "†"), ("bbbb", ""), (None, "")])
def test_what_an_earlier_shipped_encoder_gave_is_marked(
    project: Path, began_from: str | None, mark: str
) -> None:
    assets = project / "speechjepa" / "assets" / "tiny"
    assets.mkdir(parents=True)
    (assets / "SHA256SUMS").write_text("bbbb0123  model.safetensors\n")
    result = {**RECIPE_RESULT, "shipped_encoder": began_from}
    _write(project / "results" / "recipes" / "toy-asr-3.json", result)
    overview = documents(project)[project / "docs" / "RESULTS.md"]
    assert f"| toy-asr{mark} | 10.0 |" in overview


def test_seeds_of_two_shipped_encoders_are_not_averaged(project: Path) -> None:
    assets = project / "speechjepa" / "assets" / "tiny"
    assets.mkdir(parents=True)
    (assets / "SHA256SUMS").write_text("bbbb0123  model.safetensors\n")
    cell = {**dict.fromkeys(learning_results.FIELDS), "row": "shipped", "column": "toy-10min"}
    cell |= {"interval": [0.1, 0.3], "cer_lm": 0.2, "head_dropout": 0.3}
    for seed, (version, cer) in enumerate([("aaaa", 0.5), ("bbbb", 0.3), ("bbbb", 0.4)]):
        cell |= {"seed": seed, "shipped_encoder": version, "cer": cer}
        _write(project / "results" / "learning" / "toy-10min" / f"shipped-{seed}.json", cell)
    pages = documents(project)
    overview = pages[project / "docs" / "RESULTS.md"]
    assert "| shipped | **35.0** [10.0, 30.0], LM 20.0, n=2 |" in overview
    assert "| toy-10min | shipped† | 0 | 50.0 |" in overview
    assert pages[project / "docs" / "learning.svg"].count("<circle") == 2
    (assets / "SHA256SUMS").write_text("cccc0123  model.safetensors\n")  # a third one ships
    overview = documents(project)[project / "docs" / "RESULTS.md"]
    assert "| shipped | **50.0**† [10.0, 30.0], LM 20.0, n=1 |" in overview


def test_a_row_whose_pretraining_had_other_minutes_is_a_row_of_its_own(project: Path) -> None:
    cell = {**dict.fromkeys(learning_results.FIELDS), "row": "jepa_ema", "column": "toy-10min"}
    cell |= {"interval": [0.1, 0.3], "cer_lm": 0.2, "blank_levelled": True}
    fast, slow = "a processor, AVX512 with bfloat16", "a processor, AVX2"
    measured = [(45.0, 0.5, slow), (12.0, 0.3, fast), (12.0, 0.4, fast), (12.0, 0.7, slow)]
    for seed, (minutes, cer, device) in enumerate(measured):
        cell |= {"seed": seed, "budget_minutes": minutes, "cer": cer, "device": device}
        _write(project / "results" / "learning" / "toy-10min" / f"jepa_ema-{seed}.json", cell)
    pages = documents(project)
    overview = pages[project / "docs" / "RESULTS.md"]
    assert "| jepa_ema | **35.0** [10.0, 30.0], LM 20.0, n=2 |" in overview
    assert "| jepa_ema, 45 min, AVX2 | **50.0** [10.0, 30.0], LM 20.0, n=1 |" in overview
    assert "| jepa_ema, AVX2 | **70.0** [10.0, 30.0], LM 20.0, n=1 |" in overview
    assert ">jepa_ema, 45 min, AVX2</text>" in pages[project / "docs" / "learning.svg"]


def test_what_is_no_longer_made_so_is_marked_and_gives_way(project: Path) -> None:
    cell = {**dict.fromkeys(learning_results.FIELDS), "column": "toy-10min", "cer_lm": 0.2}
    cell |= {"interval": [0.1, 0.3]}
    dropout, level = {"head_dropout": 0.3}, {"blank_levelled": True}
    measured: list[tuple[str, int, float, dict[str, Any]]] = [
        ("labels_only", 0, 0.5, {}),  # neither was counted at first
        ("labels_only", 1, 0.4, level),
        ("jepa_ema", 0, 0.6, dropout),
        ("jepa_ema", 1, 0.9, {}),
        ("contrastive", 0, 0.7, level),
    ]
    for row, seed, cer, new in measured:
        cell |= {"row": row, "seed": seed, "cer": cer}
        _write(project / "results" / "learning" / "toy-10min" / f"{row}-{seed}.json", cell | new)
    overview = documents(project)[project / "docs" / "RESULTS.md"]
    assert "| labels_only | **40.0** [10.0, 30.0], LM 20.0, n=1 |" in overview
    assert "| jepa_ema | **60.0**‡ [10.0, 30.0], LM 20.0, n=1 |" in overview
    assert "| contrastive | **70.0** [10.0, 30.0], LM 20.0, n=1 |" in overview
    assert "| toy-10min | labels_only‡ | 0 | 50.0 |" in overview


def test_every_other_figure_is_in_the_overview(project: Path) -> None:
    keys = ("commit", "hardware", "date", "seed")
    figure = {
        "what": "pretraining speed a|b",
        "figure": 212.346,
        "unit": "s of audio per s",
        "command": "python tools/benchmark.py",
        **{key: RECIPE_RESULT[key] for key in keys},
    }
    _write(project / "results" / "speed.json", figure)
    overview = documents(project)[project / "docs" / "RESULTS.md"]
    assert "| pretraining speed a\\|b | 212.35 | s of audio per s |" in overview
    assert "(../results/speed.json)" in overview


def test_a_result_of_a_recipe_that_is_gone_is_still_listed(project: Path) -> None:
    _write(project / "results" / "recipes" / "old-0.json", {**RECIPE_RESULT, "recipe": "old"})
    assert "| old |" in documents(project)[project / "docs" / "RESULTS.md"]


def test_the_readme_shows_the_results_and_keeps_the_rest(project: Path) -> None:
    readme = project / "README.md"
    readme.write_text(f"Before\n{README_BEGIN}old table\n{README_END}\nAfter\n")
    lines = documents(project)[readme].splitlines()
    assert (lines[0], lines[-1]) == ("Before", "After")
    row = "| [toy-asr](results/recipes/toy-asr-3.json) | 10.0 | 12.3 | 45.7 | 10.0 | – | 9.9 |"
    assert row in lines and "old table" not in lines


def test_a_result_without_its_hardware_is_refused_by_name(project: Path) -> None:
    incomplete = {key: value for key, value in RECIPE_RESULT.items() if key != "hardware"}
    _write(project / "results" / "recipes" / "toy-asr-3.json", incomplete)
    with pytest.raises(DataError, match=r"toy-asr-3\.json: lacks hardware"):
        read_results(project)


def test_check_fails_until_the_documents_are_written(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--check"], root=project) == 1
    assert "docs/RESULTS.md: differs" in capsys.readouterr().out
    assert main([], root=project) == 0
    assert main(["--check"], root=project) == 0


def test_the_documents_of_this_repository_are_up_to_date() -> None:
    assert main(["--check"], root=ROOT) == 0, "run `make results` and commit what it writes"


def test_translations_have_a_table_of_their_own(project: Path) -> None:
    (project / "recipes/toy/s2st.yaml").write_text("name: toy-s2st\ntranslation: {language: en}\n")
    row = {
        **dict.fromkeys(translation_results.FIELDS),
        **{"row": "toy", "recipe": "toy-s2st", "head": "ctc", "encoder": "shipped"},
        **{"units": {"layer": 8, "k": 100}, "asr_bleu": 41.26, "share_of_ceiling": 0.5},
        **{"retrieval": {"asr_bleu": 3.0, "chrf": None}, "seed": 0, "commit": "0123"},
    }
    _write(project / "results" / "translation" / "toy-0.json", row)
    pages = documents(project)
    overview = pages[project / "docs" / "RESULTS.md"]
    (line,) = [line for line in overview.splitlines() if line.startswith("| toy | toy-s2st |")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[4:9] == ["layer 8, 100", "41.3", "–", "–", "50.0"] and cells[12] == "3.0"
    assert line.count("|") == len(translation_results.HEADER) + 1
    assert "| toy-s2st | –" not in overview  # no row among the recognisers
    assert "toy-0.json" in pages[project / "recipes" / "toy" / "RESULTS.md"]
    del row["retrieval"]
    _write(project / "results" / "translation" / "toy-0.json", row)
    with pytest.raises(DataError, match="lacks retrieval"):
        documents(project)
