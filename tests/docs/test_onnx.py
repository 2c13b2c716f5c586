"""The example of docs/ONNX.md runs, and decodes what the model itself does."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from tests.docs.test_readme import ROOT, _blocks
from tests.models.test_export_onnx import native

pytest.importorskip("onnxruntime", reason="needs the extra onnx")
pytest.importorskip("onnx", reason="needs the extra onnx")


def test_the_example_for_onnxruntime_runs(tmp_path, monkeypatch):
    from speechjepa.cli.main import main
    from speechjepa.inference.model import load
    from speechjepa.models.bundle import save_bundle

    save_bundle(native(frame_rate=25), tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    samples = np.random.default_rng(0).normal(0, 0.1, 24000).astype(np.float32)
    soundfile.write("interview.wav", samples, 16000, subtype="FLOAT")
    assert main(["convert", "model", "for_onnxruntime", "--to", "onnx"]) == 0
    (example,) = _blocks((ROOT / "docs" / "ONNX.md").read_text(encoding="utf-8"), "python")
    names = {}
    exec(example, names)  # noqa: S102
    model = load("model")
    logits, _ = model.logits(torch.from_numpy(samples)[None])
    assert names["text"] == model.vocabulary.decode_ctc(logits[0].argmax(dim=1).tolist()).strip()
    assert len(set(names["text"])) > 3


def test_int8_is_for_onnx_alone(tmp_path, capsys):
    from speechjepa.cli.main import main

    assert main(["convert", str(tmp_path), str(tmp_path / "new"), "--int8"]) == 2
    assert "--int8 goes with --to onnx" in capsys.readouterr().err
