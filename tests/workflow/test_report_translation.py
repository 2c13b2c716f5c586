"""The report of a run that translates: its scores, what it sounds like, and nobody's markup."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechjepa.audio.files import write_wav
from speechjepa.errors import DataError
from speechjepa.workflow.report import write_report

HOSTILE = '<script>alert(1)</script> & "quotes"'
ROW = {
    **{"unit_error_rate": 0.429, "unit_bleu": 40.7, "bleu": 21.4, "chrf": 55.7},
    **{"asr_bleu": 8.18, "asr_chrf": 45.9, "asr_cer": 0.387, "rtf": 0.18},
    "signatures": ["nrefs:1|<b>"],
}
TUNED = {
    "tokens": {
        **{"is_used": True, "error_rate_best_path": 0.171, "error_rate": 0.152, "pairs": 75},
        **{"lm_weight": 1.5, "blank_score": -1.0, "order": 6, "sequences": 3000},
    }
}
NO_TEXT = {**ROW, "bleu": None, "chrf": None}
KINDS = ("source", "translation", "reference")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def prediction(name: str, reference: str | None, heard: str | None) -> dict[str, Any]:
    found = {"units": [1, 2, 3], "text": reference, "heard": heard}
    return {"id": name, "source": HOSTILE, "reference": reference, "ctc": found, "retrieval": found}


def write_predictions(folder: Path, *predictions: dict[str, Any]) -> None:
    lines = "".join(json.dumps(entry) + "\n" for entry in predictions)
    write(folder / "evaluate" / "predictions.jsonl", lines)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run folder as the stages leave it."""
    folder = tmp_path / "toy"
    write(
        folder / "recipe.yaml", "name: toy-<i>es-en\nlanguage: es\ntranslation:\n  language: en\n"
    )
    counts = {"pairs": 30, "with target speech": 29, "with source text": 0}
    write(folder / "check.json", json.dumps({"pairs": {"train": counts, "dev": counts}}))
    states = {
        "units": {"status": "done", "minutes": 1, "figures": {"units_per_second": {"train": 15.0}}},
        "translate": {"status": "done", "minutes": 20.0, "figures": {"pair_minutes": 12.34}},
        "language_model": {"status": "done", "minutes": 1.0, "figures": TUNED},
    }
    write(folder / "state.json", json.dumps({"stages": states}))
    steps = "".join(f"{s},{0.9 - s / 900},{9 / (1 + s)},0.8\n" for s in range(0, 300, 10))
    header = "step,dev/token_error_rate,loss/ctc,monitor/blank_ratio\n"
    write(folder / "translate" / "metrics.csv", header + steps)
    finding = {"step": 210, "code": "all_blank", "message": f"nothing but blanks {HOSTILE}"}
    write(folder / "translate" / "doctor.jsonl", json.dumps(finding) + "\n")
    streaming = {"chunk_seconds": 0.32, "al_ms": 800.0, "laal_ms": 1234.0}
    streaming |= {"al_ms_computation_aware": 900.0, "laal_ms_computation_aware": 1300.0}
    rows = {
        "ctc": ROW,
        "ctc_best_path": {**ROW, "asr_bleu": 6.5},
        "retrieval": {**ROW, "asr_bleu": 1.4, "rtf": None},
        "true_units": NO_TEXT,
        "true_speech": {**NO_TEXT, "asr_bleu": 37.1},
    }
    results = {"head": "ctc", "pairs": 2, "source_seconds": 90.0, "streaming": streaming}
    results |= {"text_normalisation": {"lowercase": True}, "rows": rows}
    write(folder / "evaluate" / "results.json", json.dumps(results))
    write_predictions(
        folder, prediction("a", "six hundred", "sax hund"), prediction("b<", "one", "")
    )
    for kind in KINDS:
        path = folder / "evaluate" / "examples" / f"a-{kind}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_wav(path, 0.1 * np.sin(np.arange(16000) / 20, dtype=np.float32))
    return folder


def page_of(run_dir: Path) -> tuple[str, ET.Element]:
    page = write_report(run_dir).read_text(encoding="utf-8")
    content = page.split("<!-- begin -->")[1].split("<!-- end -->")[0]
    return page, ET.fromstring(f"<body>{content}</body>")


def test_the_page_is_well_formed_and_has_every_part(run_dir: Path) -> None:
    page, body = page_of(run_dir)
    assert [title.text for title in body.iter("h2")] == [
        *("Data", "Training", "What the doctor said", "Scores", "Examples"),
        *("The worst translations", "Settings"),
    ]
    tiles = {tile[1].text: tile[0].text for tile in body.findall(".//div[@class='tile']")}
    assert tiles["ASR-BLEU"] == "8.2" and tiles["Unit error rate (%)"] == "42.9"
    assert tiles["of true speech"] == "22%"  # 8.18 of 37.1
    assert tiles["behind the speaker"] == "1.23 s"
    assert "12.3 minutes of source speech to learn from; 15.0 units a second" in page
    assert "29" in [cell.text for cell in body.findall(".//section[@id='data']//td")]
    charts = body.findall(".//section[@id='curves']//svg")
    assert len(charts) == 3 and ">60</text>" not in page.split('id="data"')[0]
    assert "nothing but blanks" in page


def test_the_scores_stand_in_one_table_with_what_is_not_known_left_open(run_dir: Path) -> None:
    _, body = page_of(run_dir)
    table, late, tuned = body.findall(".//section[@id='scores']//table")
    head = [cell.text or "" for cell in table.iter("th")]
    rows = {row[0].text: [cell.text for cell in row] for row in table.findall(".//tbody/tr")}
    column = head.index("ASR-BLEU"), head.index("BLEU"), head.index("Real-time factor")
    assert [rows["Translator, all at once (CTC)"][c] for c in column] == ["8.2", "21.4", "0.18"]
    assert [rows["True speech"][c] for c in column] == ["37.1", "–", "0.18"]
    assert rows["The same without its language model (best path)"][column[0]] == "6.5"
    assert [cell.text for cell in tuned.findall(".//tbody/tr/td")] == [
        *("what is spoken or written", "17.1", "15.2", "1.5", "-1", "yes")
    ]
    assert rows["Nearest known utterance"][column[2]] == "–"
    (best,) = table.findall(".//tr[@class='best']")
    assert best[0].text == "Translator, all at once (CTC)"
    assert [cell.text for cell in late.findall(".//tbody/tr[2]/td")][1:] == ["1234.0", "1300.0"]


def test_examples_can_be_seen_and_heard_beside_each_other(run_dir: Path) -> None:
    _, body = page_of(run_dir)
    (example,) = body.findall(".//section[@id='examples']/article")
    figures = example.findall(".//figure")
    titles = [figure.find("figcaption/b").text for figure in figures]  # type: ignore[union-attr]
    assert titles == ["Source", "True target", "Translation"]
    assert len(example.findall(".//audio")) == len(example.findall(".//img")) == 3
    assert [cell.text for cell in example.findall(".//span[@class='labels']/span")] == [
        *("true", "written", "true", "heard")
    ]
    (run_dir / "evaluate/examples/a-translation.wav").unlink()
    (run_dir / "evaluate/examples/a-reference.wav").write_bytes(b"no audio")
    page, body = page_of(run_dir)
    assert "says nothing" in page and "no player" in page and len(body.findall(".//audio")) == 1


def test_the_worst_come_first(run_dir: Path) -> None:
    _, body = page_of(run_dir)
    names = [b.text for b in body.findall(".//section[@id='worst']/article/header/b/bdi")]
    assert names == ["b<", "a"]
    write_predictions(run_dir, prediction("a", "six", "six"))
    assert "every translation is as it should be" in page_of(run_dir)[0]
    write_predictions(run_dir, prediction("a", None, None))
    page, _ = page_of(run_dir)
    assert "There is no text to tell them by" in page and "units 1 2 3" in page


def test_text_of_other_people_cannot_become_markup_and_nothing_is_fetched(run_dir: Path) -> None:
    page, _ = page_of(run_dir)
    assert "<script>alert" not in page and page.count("<script") == 1
    assert "toy-<i>" not in page and "nrefs:1|<b>" not in page
    loaded = re.findall(r"""(?:src|href)=["']([^"']{0,40})""", page)
    assert all(target.startswith(("data:", "#")) for target in loaded), loaded


def test_a_run_that_has_just_begun_says_so_in_words(tmp_path: Path) -> None:
    write(tmp_path / "recipe.yaml", "name: t\ntranslation: {}\n")
    page, _ = page_of(tmp_path)
    for words in ("were not looked at", "no trained translator", "has not been evaluated"):
        assert words in page


@pytest.mark.parametrize(
    ("path", "content", "says"),
    [
        ("check.json", '{"pairs": 3}', r"check\.json: is damaged"),
        ("translate/doctor.jsonl", '{"step": 1}\n', r"doctor\.jsonl:1: lacks message"),
        ("evaluate/predictions.jsonl", "{}\n{", r"predictions\.jsonl:1: lacks id"),
    ],
)
def test_a_damaged_file_is_named(run_dir: Path, path: str, content: str, says: str) -> None:
    write(run_dir / path, content)
    with pytest.raises(DataError, match=says):
        write_report(run_dir)
