"""What frames tell apart: vectors between frames, figures of one layer, and the whole command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechjepa.models.bundle import Bundle, build_encoder, save_bundle
from speechjepa.models.ctc import CtcModel
from speechjepa.models.speech_encoder import SpeechEncoderConfig
from speechjepa.text.normalize import TextConfig
from speechjepa.text.vocabulary import Vocabulary
from tools.benchmark_representation import frames_at, layer_figures, main
from tools.make_results import documents

SMALL = SpeechEncoderConfig(
    width=16, num_layers=2, num_heads=2, ffn_width=32, kernel_size=5, frame_rate=25
)


def test_a_vector_lies_between_the_two_frames_around_its_time() -> None:
    layer = np.array([[0.0], [10.0], [30.0]], np.float32)  # middles at 0.02, 0.06, 0.10 s
    times = np.array([0.0, 0.02, 0.03, 0.06, 0.09, 0.5])
    assert frames_at(layer, times, 25.0)[:, 0].tolist() == pytest.approx([0, 0, 2.5, 10, 25, 30])


def test_classes_that_lie_apart_have_no_errors_and_those_that_do_not_have_half() -> None:
    rng = np.random.default_rng(0)
    classes = np.array(["a", "b"] * 200)
    trains = np.arange(400) % 4 < 2
    noise = rng.normal(size=(400, 8)).astype(np.float32)
    chance = layer_figures(noise, classes, trains)
    assert chance["abx"] == pytest.approx(0.5, abs=0.05)
    assert chance["probe_error"] == pytest.approx(0.5, abs=0.12)
    assert chance["rank_me"] == pytest.approx(8, abs=0.2)
    apart = noise * 0.1
    apart += np.where(classes == "a", 5, -5)[:, None]
    found = layer_figures(apart, classes, trains)
    assert found["abx"] == 0 and found["probe_error"] == 0
    assert found["rank_me"] < 3  # the direction that tells them apart is most of what there is


def test_one_command_measures_every_layer_of_every_encoder_and_fresh_weights(
    tmp_path: Path,
) -> None:
    data = tmp_path / "corpus" / "dev"
    data.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for index in range(12):
        soundfile.write(data / f"{index}.wav", rng.normal(0, 0.1, 32000), 16000)
        rows.append({"file_name": f"{index}.wav", "text": "abababab"})
    (data / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    vocabulary = Vocabulary.build(["ab"])
    encoder = build_encoder(SMALL)
    head = CtcModel(encoder, len(vocabulary), 1)
    aligner = Bundle(encoder=encoder, ctc=head, vocabulary=vocabulary, text=TextConfig())
    save_bundle(aligner, tmp_path / "aligner")
    save_bundle(Bundle(encoder=build_encoder(SMALL)), tmp_path / "one")
    output = tmp_path / "results" / "representation.json"
    given = ["--aligner", str(tmp_path / "aligner"), "--data", str(data), "-o", str(output)]
    main([*given, "--utterances", "10", "--models", f"one={tmp_path / 'one'}"])
    record = json.loads(output.read_text())
    assert list(record["layers"]) == ["fresh", "one", "aligner"]
    assert [len(layers) for layers in record["layers"].values()] == [3, 3, 3]
    assert (record["utterances"], record["characters"]) == (10, 80)
    assert record["figure"] == 100 * min(layer["abx"] for layer in record["layers"]["one"])
    page = documents(tmp_path)[tmp_path / "docs" / "RESULTS.md"]
    (line,) = [line for line in page.splitlines() if line.startswith("| one |")]
    best = min(record["layers"]["one"], key=lambda layer: layer["abx"])
    assert f"| {100 * best['abx']:.1f} |" in line and "10 utterances, 80 characters" in page
