"""The report shows what a run folder holds, says what it lacks, and trusts nobody's text."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from speechjepa.errors import DataError
from speechjepa.metrics.error_rate import error_rates
from speechjepa.workflow.report import write_report
from speechjepa.workflow.report_confidence import confidence
from speechjepa.workflow.report_errors import confusion, utterances
from speechjepa.workflow.report_representation import _apart, principal_components
from speechjepa.workflow.report_svg import Line, number, thin, ticks
from speechjepa.workflow.report_training import read_metrics

HOSTILE = '<script>alert(1)</script> & "quotes"'
TEXTS = ["wa bana kɔmɔ", "moro a vandi", "ngá ayéi", HOSTILE, "bisi lekyeme", "ya o mboa la"]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run folder as the stages leave it, of three seconds of noise per utterance."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "toy-run"
    _write_text(folder / "recipe.yaml", "name: toy-asr\ntitle: A <b>toy</b>\nseed: 3\n")
    steps = range(0, 2000, 10)
    rows = ["step,loss/total,loss/regression,monitor/target_std,monitor/rankme,monitor/probe_cer"]
    for step in steps:
        probe = f"{0.9 - step / 8000:.3f}" if step % 500 == 0 else ""
        rows.append(
            f"{step},{1 / (1 + step / 300):.4f},0.5,{0.5 + step / 9000:.3f},{step / 20},{probe}"
        )
    _write_text(folder / "pretrain" / "metrics.csv", "\n".join(rows) + "\n")
    rows = ["step,loss/ctc,dev/cer,dev/wer,monitor/blank_ratio"]
    rows += [f"{s},{3 / (1 + s / 400):.3f},{0.9 - s / 4000},{1.0 - s / 5000},0.8" for s in steps]
    _write_text(folder / "finetune" / "metrics.csv", "\n".join(rows) + "\n")
    mask = np.zeros(100, bool)
    mask[20:60] = True
    similarity = np.where(mask, rng.uniform(-0.1, 0.9, 100), np.nan).astype(np.float32)
    np.savez_compressed(
        folder / "pretrain" / "snapshot.npz",
        spectrogram=rng.standard_normal((200, 80)).astype(np.float32),
        span_mask=mask,
        similarity=similarity,
        hop_seconds=0.02,
        id="utt<1>",
    )
    _write_bundle(folder / "finetune" / "bundle")
    _write_predictions(folder, tmp_path, rng)
    return folder


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _write_bundle(folder: Path) -> None:
    from speechjepa.models.bundle import Bundle, save_bundle
    from speechjepa.models.ctc import CtcModel
    from speechjepa.models.speech_encoder import PRESETS, SpeechEncoder
    from speechjepa.text.vocabulary import Vocabulary

    torch.manual_seed(0)
    encoder = SpeechEncoder(PRESETS["tiny"])
    vocabulary = Vocabulary.build(["abc de"])
    ctc = CtcModel(encoder, len(vocabulary))
    torch.nn.init.normal_(ctc.head.weight, std=1.0)  # so that it does not only write blanks
    save_bundle(Bundle(encoder=encoder, ctc=ctc, vocabulary=vocabulary), folder)


def _write_predictions(folder: Path, data: Path, rng: np.random.Generator) -> None:
    lines = []
    for index, text in enumerate(TEXTS):
        audio = data / f"{index}.wav"
        soundfile.write(audio, 0.1 * rng.standard_normal(16000), 16000)
        heard = text.replace("a", "e").replace("m", "", 1)
        lines.append(_prediction(f"utt-{index}", audio, text, heard, f"speaker {index % 2}"))
    path = folder / "evaluate" / "predictions.jsonl"
    _write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    group = {"num_utterances": 3, "cer": 0.25, "wer": 0.5, "cer_lm": 0.2, "wer_lm": 0.4}
    results = {
        **{"num_utterances": 6, "audio_seconds": 6.0, "cer": 0.25, "wer": 0.5, "num_skipped": 0},
        **{"cer_interval": [0.2, 0.3], "cer_lm": 0.2, "wer_lm": None, "language_model": None},
        "by_speaker": {"speaker 0": group, "<i>speaker 1": group},
        "by_duration": {"0-1 s": group},
    }
    _write_text(folder / "evaluate" / "results.json", json.dumps(results))


def _prediction(
    name: str, audio: Path, said: str, heard: str, speaker: str | None
) -> dict[str, Any]:
    return {
        **{"id": name, "audio_path": str(audio), "start": 0.0, "duration": 1.0},
        **{"speaker": speaker, "reference": said, "hypothesis": heard, "hypothesis_lm": heard},
        **{"cer": error_rates([said], [heard]).cer, "cer_lm": error_rates([said], [heard]).cer},
    }


def _body(page: str) -> ET.Element:
    """Parse what Python wrote strictly: every tag closed, every attribute quoted."""
    content = page.split("<!-- begin -->")[1].split("<!-- end -->")[0]
    return ET.fromstring(f"<body>{content}</body>")


def test_the_page_is_well_formed_and_has_every_part(run_dir: Path) -> None:
    page = write_report(run_dir).read_text(encoding="utf-8")
    body = _body(page)
    titles = [title.text for title in body.iter("h2")]
    assert titles == [
        *("Training", "What pretraining predicts", "The representation"),
        *("Errors by speaker and by length", "Can the scores be trusted?", "Utterances"),
        *("Characters", "Settings"),
    ]
    assert len(body.findall(".//figure")) >= 7
    assert len(body.findall(".//image")) == 1, "the spectrogram"
    assert len(body.findall(".//svg[@class='scatter']//circle")) > 100
    assert len(body.findall(".//audio")) == len(TEXTS)
    assert "25.0%" in page and "20.0% to 30.0%" in page


def test_the_page_needs_no_network(run_dir: Path) -> None:
    page = write_report(run_dir).read_text(encoding="utf-8")
    loaded = re.findall(r"""(?:src|href)=["']([^"']{0,40})""", page)
    assert all(target.startswith(("data:", "#")) for target in loaded), loaded
    assert "url(" not in page.replace("url(#hatch)", "")
    assert "@import" not in page and "fetch(" not in page
    assert set(re.findall(r"https?://[^\s\"']+", page)) == {"http://www.w3.org/2000/svg"}


def test_text_of_other_people_cannot_become_markup(run_dir: Path) -> None:
    page = write_report(run_dir).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<b>toy</b>" not in page and "<i>speaker" not in page and "utt<1>" not in page
    assert page.count("<script") == 1


def test_a_run_without_anything_says_so_in_words(tmp_path: Path) -> None:
    page = write_report(tmp_path).read_text(encoding="utf-8")
    _body(page)
    for words in (
        "no pretraining",
        "no fine-tuning",
        "has not been evaluated",
        "no pretrained model",
    ):
        assert words in page


def test_pretraining_alone_is_reported(run_dir: Path) -> None:
    shutil.rmtree(run_dir / "finetune")
    shutil.rmtree(run_dir / "evaluate")
    page = write_report(run_dir).read_text(encoding="utf-8")
    assert "no fine-tuning" in page and "<image" in page
    assert "no pretraining" not in page


def test_a_model_without_pretraining_shows_none_of_an_earlier_recipe(run_dir: Path) -> None:
    state = {"pretrain": {"status": "done", "minutes": 3, "figures": {"unlabelled_hours": 1.5}}}
    _write_text(run_dir / "state.json", json.dumps({"stages": state}))
    assert "unlabelled audio" in write_report(run_dir).read_text(encoding="utf-8")
    _write_text(run_dir / "recipe.yaml", "name: toy-asr\npretrain: null\n")
    page = write_report(run_dir).read_text(encoding="utf-8")
    assert "unlabelled audio" not in page
    assert "retraining" not in page.split("<header>")[1].split('id="settings"')[0]


def test_a_damaged_snapshot_is_named(run_dir: Path) -> None:
    path = run_dir / "pretrain" / "snapshot.npz"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"snapshot\.npz: is damaged"):
        write_report(run_dir)


def test_an_utterance_whose_audio_is_gone_keeps_its_place(run_dir: Path) -> None:
    (run_dir.parent / "0.wav").unlink()
    page = write_report(run_dir).read_text(encoding="utf-8")
    assert len(_body(page).findall(".//audio")) == len(TEXTS) - 1
    assert "no player:" in page


def test_a_damaged_file_is_named_with_its_line(run_dir: Path) -> None:
    path = run_dir / "evaluate" / "predictions.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + "{broken\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"predictions\.jsonl:7: is not JSON"):
        write_report(run_dir)


def test_a_word_that_is_no_number_in_the_log_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,loss/total\n0,1.0\n10,much\n")
    with pytest.raises(DataError, match=r"metrics\.csv:3"):
        read_metrics(tmp_path / "metrics.csv")


def test_the_alignment_marks_each_kind_of_error(tmp_path: Path) -> None:
    page = utterances([_prediction("u", tmp_path / "none.wav", "abcd", "axcde", None)])
    body = ET.fromstring(f"<body>{page}</body>")
    kinds = [cell.attrib["class"] for cell in body.iter("span") if "cell" in cell.get("class", "")]
    kinds = [kind.split()[1] for kind in kinds]
    assert kinds == ["equal", "substitute", "equal", "equal", "insert"]


def test_bare_marks_and_spaces_can_be_seen_in_the_alignment(tmp_path: Path) -> None:
    page = utterances([_prediction("u", tmp_path / "none.wav", "a b", "a\u0301b", None)])
    assert "◌\u0301" in page and "␣" in page


def test_scores_are_drawn_before_and_after_calibration() -> None:
    bins = [
        {"low": 0.2, "high": 0.3, "count": 30, "confidence": 0.25, "accuracy": 0.5},
        {"low": 0.9, "high": 1.0, "count": 10, "confidence": 1.0, "accuracy": 0.0},
    ]
    figures = {"num_words": 40, "accuracy": 0.375, "area_under_roc": 0.8}
    figures |= {"ece_mean_posterior": 0.4375, "ece_held_out": 0.021}
    figures |= {"bins_mean_posterior": bins, "bins_held_out": bins[:1]}
    drawn = confidence({"confidence": {"greedy": figures, "lm": None}})
    assert drawn.count("<circle") == 3
    assert 'cx="346.0" cy="274.0"' in drawn  # score 1, never right: the lower right corner
    assert "0.438" in drawn and "0.021" in drawn and "38% of 40 words" in drawn
    assert "With the language model: too few words" in drawn
    assert "not measured" in confidence({"cer": 0.5})


def test_the_worst_come_first_and_perfect_ones_do_not_count(tmp_path: Path) -> None:
    audio = tmp_path / "none.wav"
    heard = {"perfect": "abcd", "bad": "ab", "worst": ""}
    page = utterances(
        [_prediction(name, audio, "abcd", text, None) for name, text in heard.items()]
    )
    worst = page.split("Typical")[0]
    assert worst.index("worst") < worst.index("bad")
    assert "perfect" not in worst
    nothing_wrong = utterances([_prediction("perfect", audio, "abcd", "abcd", None)])
    assert "without an error" in nothing_wrong


def test_confusions_are_counted_with_their_share(tmp_path: Path) -> None:
    audio = tmp_path / "none.wav"
    page = confusion([_prediction("u", audio, "aabb", "aebb", None)])
    assert "<b>a</b> heard as <b>e</b></td><td>1</td><td>50% of a</td>" in page
    assert "a heard as e: 1 of 2" in page


def test_principal_components_find_the_widest_directions() -> None:
    rng = np.random.default_rng(1)
    hidden = rng.standard_normal((500, 2)) * [10.0, 3.0]
    turn = np.linalg.qr(rng.standard_normal((8, 8)))[0][:, :2]
    places, explained = principal_components(hidden @ turn.T + 5.0)
    assert explained == pytest.approx(1.0)
    assert np.abs(np.corrcoef(places[:, 0], hidden[:, 0])[0, 1]) > 0.99
    assert places.std(axis=0) == pytest.approx([10.0, 3.0], rel=0.15)


def test_labels_are_moved_apart() -> None:
    moved = _apart(np.array([[0.0, 0.0], [1.0, 0.0], [200.0, 0.0]]))
    assert np.linalg.norm(moved[0] - moved[1]) > 26
    assert np.abs(moved[2] - [200, 0]).max() < 3


def test_long_lines_are_thinned_but_keep_their_end() -> None:
    line = thin(Line("x", list(range(10_000)), [float(i) for i in range(10_000)]))
    assert len(line.x) <= 300
    assert (line.x[-1], line.y[-1]) == (9999, 9999.0)
    assert thin(Line("x", [0, 1], [float("nan"), 2.0])).y == [2.0]


def test_ticks_and_numbers_are_round() -> None:
    assert ticks(0.0, 1.0) == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])
    assert ticks(3.0, 3.0) == [3.0]
    assert [number(x) for x in (0.25, 12345, 3.2e6, 0.0004, 0)] == [
        "0.25",
        "12.3k",
        "3.2M",
        "4.0e-4",
        "0",
    ]


def test_the_page_runs_in_a_browser_without_errors(run_dir: Path, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if browser is None:
        pytest.skip("chromium is not installed")
    page = write_report(run_dir)
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
    command += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command += [
        "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr",
    ]
    command += ["--virtual-time-budget=2000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    assert "</html>" in done.stdout
