"""The outside row: `transformers` pretrains its own model, and everything after that is ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from speechjepa.data.readers import read_corpus
from speechjepa.data.utterance import Utterance
from speechjepa.errors import CollapseError
from speechjepa.models.bundle import load_init
from speechjepa.training.config import PretrainConfig
from tools import benchmark_learning, learning_results, learning_transformers
from tools.learning_transformers import Run, pretrain_transformers, read_account

SMALL = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"intermediate_size": 64, "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16},
    **{"codevector_dim": 32, "proj_codevector_dim": 32, "num_codevectors_per_group": 16},
}


def settings(**changes: Any) -> PretrainConfig:
    """Return four steps of a few utterances each."""
    given = {"minutes": None, "max_steps": 4, "batch_seconds": 4.0, "precision": "float32"}
    return PretrainConfig(**{**given, **changes})


def make_split(folder: Path, number: int) -> list[Utterance]:
    """Write utterances of 0.5 to 1.4 s, two letters as tones, with their transcripts."""
    generator = np.random.default_rng(len(folder.name))
    (folder / "audio").mkdir(parents=True)
    utterances, rows = [], []
    for index in range(number):
        word = "".join(generator.choice(list("ab"), size=4))
        seconds = generator.uniform(0.12, 0.35)
        time = np.arange(round(seconds * 16000)) / 16000
        tones = [0.3 * np.sin(2 * np.pi * (300 if c == "a" else 700) * time) for c in word]
        samples = np.concatenate(tones) + generator.normal(0, 0.01, 4 * len(time))
        path = folder / "audio" / f"{index:02d}.wav"
        soundfile.write(path, samples.astype(np.float32), 16000)
        utterances.append(Utterance(id=path.stem, audio_path=path, text=word))
        rows.append({"file_name": f"audio/{path.name}", "transcription": word})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(lines)
    return utterances


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_transformers, "SIZES", SMALL)


@pytest.fixture
def pool(tmp_path: Path) -> list[Utterance]:
    return make_split(tmp_path / "pool", 12)


def test_both_libraries_read_the_model_and_hear_the_same(pool, tmp_path) -> None:
    from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    bundle = pretrain_transformers(settings(), pool, tmp_path / "run", cache_dir=tmp_path / "cache")
    theirs = Wav2Vec2ForCTC.from_pretrained(bundle).wav2vec2.eval()
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(bundle)
    samples, _ = soundfile.read(pool[0].audio_path, dtype="float32")
    given = extractor(samples, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        expected = theirs(given.input_values).last_hidden_state
        found = load_init(bundle)(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
    torch.testing.assert_close(found.features, expected, atol=1e-4, rtol=1e-4)


def test_the_account_counts_steps_and_audio_and_a_second_call_repeats_nothing(
    pool, tmp_path, monkeypatch
) -> None:
    folder = tmp_path / "run"
    bundle = pretrain_transformers(settings(), pool, folder, cache_dir=tmp_path / "cache")
    account = read_account(bundle)
    heard = sum(soundfile.info(u.audio_path).duration for u in pool)
    assert account["steps"] == 4 and account["minutes"] > 0
    assert account["unlabelled_hours"] == pytest.approx(heard / 3600, rel=1e-3)
    assert 0 < account["audio_hours_seen"] <= 4 * 4.0 / 3600
    assert np.isfinite(account["loss"]) and account["code_perplexity"] >= 1
    monkeypatch.setattr(Run, "step", lambda *_: pytest.fail("a step of a run that is done"))
    assert pretrain_transformers(settings(), pool, folder, cache_dir=tmp_path / "cache") == bundle


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(pool, tmp_path, monkeypatch) -> None:
    config = settings(checkpoint_minutes=0.0)
    step = Run.step

    def interrupted(run: Run, *given: Any) -> None:
        if run.account.steps == 2:
            raise KeyboardInterrupt
        step(run, *given)

    monkeypatch.setattr(Run, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain_transformers(config, pool, tmp_path / "b", cache_dir=tmp_path / "cache")
    monkeypatch.setattr(Run, "step", step)
    whole, resumed = (
        load_init(
            pretrain_transformers(config, pool, tmp_path / name, cache_dir=tmp_path / "cache")
        ).state_dict()
        for name in "ab"
    )
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, msg=name)
    assert read_account(tmp_path / "b" / "bundle")["steps"] == 4
    assert not (tmp_path / "b" / "checkpoint.pt").exists()


def test_another_seed_gives_another_model(pool, tmp_path) -> None:
    first, second = (
        load_init(
            pretrain_transformers(
                settings(seed=seed, max_steps=1), pool, tmp_path / str(seed), cache_dir=tmp_path
            )
        )
        for seed in (0, 1)
    )
    assert not torch.equal(first.feature_projection.weight, second.feature_projection.weight)


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_no_model(
    pool, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(learning_transformers, "LEARNING_RATE", 1e38)
    with pytest.raises(CollapseError, match="diverged: at step 2"):
        pretrain_transformers(settings(), pool, tmp_path / "run", cache_dir=tmp_path / "cache")
    assert not (tmp_path / "run" / "bundle").exists()


def test_the_cell_says_what_the_other_rows_say(tmp_path, monkeypatch) -> None:
    for split, number in (("train", 12), ("dev", 4)):
        folder = tmp_path / "mboshi" / split
        make_split(folder, number)
        ids = [u.id for u in read_corpus(str(folder))]
        (folder / "10min.txt").write_text("\n".join(ids) + "\n")
    given = ["--rows", "transformers", "--columns", "mboshi-10min", "--pool", "mboshi"]
    given += ["--budget", "0.02", "--outside_minutes", "0.05", "--finetune_steps", "4"]
    given += ["--data-root", str(tmp_path), "--work", str(tmp_path / "work")]
    given += ["--results", str(tmp_path / "results"), "--set", "pretrain.batch_seconds=4"]
    given += ["pretrain.precision=float32", "finetune.precision=float32", "language_model=null"]
    benchmark_learning.main(given)
    path = tmp_path / "results/mboshi-10min/transformers-0.json"
    cell = json.loads(path.read_text())
    assert set(learning_results.FIELDS) <= set(cell)
    assert [name for name, value in cell.items() if value is None] == [
        *("cer_lm", "wer_lm", "accuracy", "shipped_encoder", "normalization_prior_seconds")
    ]
    assert (cell["row"], cell["budget_minutes"]) == ("transformers", 0.02)
    assert 1 <= cell["finetuning_steps"] <= 4 and cell["pretraining_steps"] >= 1
    assert cell["pitch"] is False  # it hears the waveform
    assert cell["parameters"] < 100_000  # the small model's, not those of our own
