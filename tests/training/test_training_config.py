"""Settings that cannot work are refused by name, before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest

from speechjepa.errors import ConfigError
from speechjepa.training.config import (
    CollapseConfig,
    ContrastiveConfig,
    FinetuneConfig,
    JepaConfig,
    PretrainConfig,
    ReconstructConfig,
)


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
