"""Pretraining as a user gets it: every objective, a collapse, a kill and a resume."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speechjepa.errors import CollapseError
from speechjepa.models.bundle import load_bundle
from speechjepa.training import pretrain as pretraining
from speechjepa.training.config import CollapseConfig, JepaConfig, PretrainConfig
from tests.training.corpus import SMALL, make_corpus

CONFIG = PretrainConfig(
    minutes=None,
    max_steps=6,
    batch_seconds=6.0,
    precision="float32",
    accelerator="cpu",
    monitor_every=1,
    jepa=JepaConfig(anchor_clusters=8, predictor_width=16),
)


def run(tmp_path: Path, config: PretrainConfig, name: str = "run", **options: Any) -> Path:
    pool = options.pop("pool", None) or make_corpus(tmp_path / "audio")
    options.setdefault("encoder", SMALL)
    return pretraining.pretrain(
        config, pool, tmp_path / name, cache_dir=tmp_path / "cache", **options
    )


def column(run_dir: Path, name: str) -> dict[int, float]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return {int(row["step"]): float(row[name]) for row in csv.DictReader(file) if row[name]}


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "jepa"},
        {"jepa": replace(CONFIG.jepa, regularizer="sigreg", anchor_weight=0.0)},
        {"jepa": replace(CONFIG.jepa, regularizer="vicreg", anchor_weight=0.0)},
        {"objective": "contrastive"},
        {"objective": "reconstruct"},
    ],
    ids=["jepa", "sigreg", "vicreg", "contrastive", "reconstruct"],
)
def test_every_objective_trains_logs_its_monitors_and_leaves_a_bundle(tmp_path, changes):
    bundle = run(tmp_path, replace(CONFIG, **changes))
    folder = tmp_path / "run"
    with (folder / "metrics.csv").open() as file:
        names = set(next(csv.reader(file)))
    wanted = {"loss/total", "learning_rate"}
    wanted |= {
        f"monitor/{name}" for name in ("target_std", "prediction_std", "rankme", "dead_dimensions")
    }
    if changes.get("objective") == "contrastive":
        wanted.add("monitor/code_perplexity")
    assert wanted <= names
    assert load_bundle(bundle).training["pretrain"]["steps"] == 6
    snapshot = np.load(folder / "snapshot.npz")
    assert snapshot["span_mask"].shape == snapshot["similarity"].shape
    assert np.isnan(snapshot["similarity"]).sum() == (~snapshot["span_mask"]).sum()


def test_a_collapse_stops_the_run_and_keeps_the_last_healthy_checkpoint(tmp_path, monkeypatch):
    # Without a teacher, a regulariser or an anchor the best prediction is a constant.
    config = replace(
        CONFIG,
        max_steps=400,
        learning_rate=3e-2,
        checkpoint_minutes=0.0,
        jepa=replace(
            CONFIG.jepa,
            regularizer="sigreg",
            sigreg_weight=0.0,
            anchor_weight=0.0,
            context_std_weight=0.0,
            context_cov_weight=0.0,
        ),
        collapse=CollapseConfig(grace_steps=4, patience=3),
    )
    with pytest.raises(CollapseError, match="fell to .* sigreg_weight|fell to .* learning_rate"):
        run(tmp_path, config)
    kept = tmp_path / "run" / "checkpoints" / "last.ckpt"
    healthy = torch.load(kept, weights_only=True)
    stopped = max(column(tmp_path / "run", "monitor/rankme"))
    assert healthy["global_step"] <= stopped - 2  # nothing was kept while readings were bad


@pytest.mark.parametrize("steps, devices", [(2, 1), (6, 1), (6, 2)])
def test_a_run_that_diverges_stops_at_once_and_keeps_nothing_of_it(tmp_path, steps, devices):
    config = replace(
        CONFIG,
        max_steps=steps,
        learning_rate=1e30,
        checkpoint_minutes=0.0,
        monitor_every=50,
        devices=devices,
    )
    with pytest.raises(CollapseError, match=r"at step 2 the loss is .*pretrain.learning_rate"):
        run(tmp_path, config)
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 1  # the first step has a learning rate of 0
    assert not (tmp_path / "run" / "bundle").exists()


def test_weights_without_a_finite_loss_are_not_kept_when_a_run_is_stopped(tmp_path, monkeypatch):
    optimizer_step = pretraining.PretrainModule.optimizer_step

    def ruined(self, *args, **kwargs):
        optimizer_step(self, *args, **kwargs)
        if self.global_step == 3:
            next(iter(self.objective.model.encoder.parameters())).data.fill_(float("inf"))
            raise KeyboardInterrupt

    monkeypatch.setattr(pretraining.PretrainModule, "optimizer_step", ruined)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, replace(CONFIG, checkpoint_minutes=0.0))
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 3


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    run(tmp_path, CONFIG, "whole")
    step = pretraining.PretrainModule.training_step

    def killed(self, batch, index):
        if self.global_step == 3:
            raise KeyboardInterrupt
        return step(self, batch, index)

    monkeypatch.setattr(pretraining.PretrainModule, "training_step", killed)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(tmp_path, CONFIG, "parts")
    monkeypatch.setattr(pretraining.PretrainModule, "training_step", step)
    bundle = run(tmp_path, CONFIG, "parts")
    whole = load_bundle(tmp_path / "whole" / "bundle").encoder.state_dict()
    parts = load_bundle(bundle).encoder.state_dict()
    for name, tensor in whole.items():
        assert torch.allclose(tensor, parts[name], atol=1e-6), name
    assert column(tmp_path / "parts", "monitor/rankme") == pytest.approx(
        column(tmp_path / "whole", "monitor/rankme"), rel=1e-3
    )


def test_the_teacher_moves_once_per_optimizer_step_not_per_batch(tmp_path, monkeypatch):
    calls = []
    objective = pretraining.build_objective

    def watched(encoder, config):
        built = objective(encoder, config)
        after_step = built.after_step
        built.after_step = lambda progress: (calls.append(progress), after_step(progress))
        return built

    monkeypatch.setattr(pretraining, "build_objective", watched)
    run(tmp_path, replace(CONFIG, accumulate=2, max_steps=3))
    assert len(calls) == 3


def test_continued_pretraining_starts_from_the_bundle(tmp_path, monkeypatch):
    first = run(tmp_path, CONFIG, "first")
    second = run(
        tmp_path,
        replace(CONFIG, max_steps=1, learning_rate=0.0),
        "second",
        encoder=None,
        init=first,
    )
    before = load_bundle(first).encoder.state_dict()
    after = load_bundle(second).encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_unreadable_recording_is_left_out_and_listed(tmp_path):
    pool = make_corpus(tmp_path / "audio")
    pool[3].audio_path.write_text("this is no audio")
    run(tmp_path, replace(CONFIG, max_steps=1), pool=pool)
    listed = (tmp_path / "run" / "skipped.jsonl").read_text()
    assert '"003"' in listed
    assert listed.count("\n") == 1


def test_a_run_stopped_while_it_goes_bad_keeps_the_healthy_state_from_before(tmp_path, monkeypatch):
    step = pretraining.PretrainModule.training_step

    def stopped(self, batch, index):
        if self.global_step == 3:
            self.monitor.bad_readings = 1
        if self.global_step == 4:
            raise KeyboardInterrupt
        return step(self, batch, index)

    monkeypatch.setattr(pretraining.PretrainModule, "training_step", stopped)
    monkeypatch.setattr(pretraining.CollapseMonitor, "check", lambda *readings: None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, replace(CONFIG, checkpoint_minutes=0.0))
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 3


def test_a_recording_longer_than_a_batch_is_no_obstacle(tmp_path):
    bundle = run(tmp_path, replace(CONFIG, batch_seconds=0.5, max_steps=1))
    assert bundle.exists()


def test_progress_is_said_in_plain_words_without_notes_from_libraries(tmp_path, caplog, capfd):
    with caplog.at_level("INFO"):
        run(tmp_path, CONFIG)
    said = [record for record in caplog.records if record.name.startswith("speechjepa")]
    assert said == caplog.records
    assert "pretrain:  17% step 1, loss " in caplog.text
    assert "under 1 min left" in caplog.text
    assert f": {tmp_path / 'run' / 'bundle'}" in said[-1].getMessage()
    assert capfd.readouterr().err == ""


def test_a_run_killed_between_the_batches_of_a_step_begins_the_step_again(tmp_path, monkeypatch):
    config = replace(CONFIG, accumulate=3, max_steps=3, batch_seconds=4.0)
    run(tmp_path, config, "whole")
    step, begun = pretraining.PretrainModule.training_step, []

    def killed(self, batch, index):
        begun.append(index)
        if len(begun) == 5:  # the second batch of the second step
            raise KeyboardInterrupt
        return step(self, batch, index)

    with monkeypatch.context() as patched:
        patched.setattr(pretraining.PretrainModule, "training_step", killed)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run(tmp_path, config, "parts")
    parts = load_bundle(run(tmp_path, config, "parts")).encoder.state_dict()
    for name, tensor in load_bundle(tmp_path / "whole" / "bundle").encoder.state_dict().items():
        assert torch.allclose(tensor, parts[name], atol=1e-6), name


def test_a_run_stopped_after_its_last_step_is_finished_by_the_next(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    config = replace(CONFIG, checkpoint_minutes=1e-6)
    with monkeypatch.context() as patched:
        patched.setattr(pretraining, "save_bundle", full)
        with pytest.raises(OSError, match="No space"):
            run(tmp_path, config)
    assert load_bundle(run(tmp_path, config)).training["pretrain"]["steps"] == 6
