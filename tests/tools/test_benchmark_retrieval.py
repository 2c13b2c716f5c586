"""What answers by the nearest known prompt are worth, on three prompts whose answers are plain."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from speechjepa.audio.files import write_wav
from tools.benchmark_retrieval import Prompts, likenesses

TEXTS = {
    "train": {"a": ("press one", "pulse uno"), "b": ("goodbye", "adios")},
    "dev": {"c": ("press two", "pulse dos")},
}


@pytest.fixture
def prompts(tmp_path: Path) -> Prompts:
    for split, texts in TEXTS.items():
        folder = tmp_path / "prompts-en" / split
        folder.mkdir(parents=True)
        rows = []
        for key, (source, target) in texts.items():
            write_wav(folder / f"{key}.wav", np.zeros(16000, np.float32), 16000)
            row = {"file_name": f"{key}.wav", "id": key, "text": source, "duration": 1.0}
            rows.append({**row, "translation": {"es": target}})
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "metadata.jsonl").write_text(lines, encoding="utf-8")
    return Prompts(tmp_path, "en", "es")


def test_nobody_answers_itself_and_answers_are_scored_by_split(prompts: Prompts) -> None:
    assert (prompts.num_known, len(prompts.pairs)) == (2, 3)
    alike = prompts.scores(np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]], np.float32))
    assert alike["train_as_by_text"] == 1.0  # of two, the other one is nearest in any way
    assert alike["dev_as_by_text"] == 1.0 and alike["dev_chrf"] > 35
    other = prompts.scores(np.array([[1.0, 0.0], [0.0, 1.0], [0.1, 0.9]], np.float32))
    assert other["dev_as_by_text"] == 0.0 and other["dev_chrf"] < 20
    assert other["train_chrf"] == alike["train_chrf"] < 30


def test_both_ways_find_what_was_said_again() -> None:
    generator = torch.Generator().manual_seed(0)
    frames = [torch.randn(size, 6, generator=generator) for size in (9, 2, 12)]
    again = [one + 0.01 for one in frames]
    for likeness in likenesses(frames + again, 25.0, num_known=3).values():
        assert likeness.shape == (6, 3)
        assert likeness.argmax(axis=1).tolist() == [0, 1, 2, 0, 1, 2]
