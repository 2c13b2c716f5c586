"""Settings that cannot work are refused by name, before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from speechjepa.errors import ConfigError
from speechjepa.training.callbacks import make_trainer
from speechjepa.training.config import (
    CollapseConfig,
    ContrastiveConfig,
    FinetuneConfig,
    JepaConfig,
    PretrainConfig,
    ReconstructConfig,
)
from speechjepa.training.schedule import Budget


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        (JepaConfig, "mask_prob", 1.5),
        (JepaConfig, "mask_prob", 0.0),
        (JepaConfig, "num_masks", 0),
        (JepaConfig, "anchor_weight", -1.0),
        (JepaConfig, "anchor_weight", float("nan")),
        (JepaConfig, "anchor_end_weight", 0.0),
        (JepaConfig, "ema_decay", 1.5),
        (JepaConfig, "sigreg_slices", 0),
        (ReconstructConfig, "mask_prob", 1.0),
        (ContrastiveConfig, "gumbel_anneal", 0.0),
        (ContrastiveConfig, "gumbel_end_temp", 0.0),
        (ContrastiveConfig, "latent_temp", 0.0),
        (ContrastiveConfig, "num_negatives", 0),
        (ContrastiveConfig, "num_codebooks", 3),
        (CollapseConfig, "patience", 0),
        (PretrainConfig, "monitor_every", 0),
        (PretrainConfig, "minutes", None),
        (PretrainConfig, "warmup", 2.0),
        (FinetuneConfig, "evaluate_every", 0),
        (FinetuneConfig, "mask_prob", 1.0),
        (FinetuneConfig, "schedule", (0.0, 0.0, 0.0)),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(section: Any, name: str, value: Any):
    with pytest.raises(ConfigError, match=f"`{name}` .*must.*, but (is|both)"):
        section(**{name: value})


@pytest.mark.parametrize(
    "changes",
    [
        {"devices": 0},
        {"accelerator": "abacus"},
        {"accelerator": "mps", "devices": 9},
        {"strategy": "no_such_strategy"},
    ],
)
def test_what_this_machine_cannot_train_on_is_a_plain_error(tmp_path: Path, changes: Any):
    config = replace(PretrainConfig(accelerator="cpu"), **changes)
    budget = Budget(1, None)
    with pytest.raises(ConfigError, match="do not work on this machine; accelerator=auto"):
        make_trainer(
            "pretrain",
            config,
            tmp_path,
            budget,
            start_step=0,
            checkpoint_minutes=1.0,
            devices=config.devices,
            strategy=config.strategy,
        )
