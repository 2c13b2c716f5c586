"""Settings that are left open are chosen from the minutes of labels and from the start."""

from __future__ import annotations

from dataclasses import replace

import pytest

from speechjepa.training.config import FinetuneConfig
from speechjepa.training.presets import resolve_presets

NATIVE = {"pretrained": True, "frame_rate": 25, "waveform_front_end": False}
FRESH = {"pretrained": False, "frame_rate": 50, "waveform_front_end": True}


@pytest.mark.parametrize("waveform", [True, False])
def test_only_a_front_end_of_waveform_convolutions_is_kept_as_pretrained(waveform):
    start = NATIVE | {"waveform_front_end": waveform}
    assert resolve_presets(FinetuneConfig(), 10, **start).freeze_feature_encoder is waveform
    kept = replace(FinetuneConfig(), freeze_feature_encoder=True)
    assert resolve_presets(kept, 10, **start).freeze_feature_encoder is True


@pytest.mark.parametrize("minutes, steps", [(2, 1500), (10, 3000), (60, 6000), (220, 12000)])
def test_presets_follow_the_minutes_of_labels(minutes, steps):
    config = resolve_presets(FinetuneConfig(), minutes, **NATIVE)
    assert config.max_steps == steps
    assert config.upsample == 2


def test_from_scratch_nothing_is_frozen_and_layers_learn_alike():
    config = resolve_presets(FinetuneConfig(), 10, **FRESH)
    assert config.layer_decay == 1.0
    assert config.freeze_finetune_updates == 0.0
    assert not config.freeze_feature_encoder
    assert config.upsample == 1


@pytest.mark.parametrize(
    ("start", "given", "expected"),
    [
        (NATIVE, {}, (1000, 0.0)),
        (NATIVE, {"head_steps": 0}, (0, 0.05)),
        (NATIVE, {"freeze_finetune_updates": 0.2}, (1000, 0.2)),
        (FRESH, {}, (0, 0.0)),
        (FRESH, {"head_steps": 50}, (50, 0.0)),
        (NATIVE | {"head_is_new": False}, {}, (0, 0.05)),
        (NATIVE, {"reset_top_layers": 1}, (0, 0.05)),
    ],
)
def test_a_head_that_learned_by_itself_is_waited_for_no_more(start, given, expected):
    config = resolve_presets(FinetuneConfig(**given), 10, **start)
    assert (config.head_steps, config.freeze_finetune_updates) == expected


def test_layers_that_were_fine_tuned_before_learn_alike():
    assert resolve_presets(FinetuneConfig(), 10, **NATIVE).layer_decay == 0.9
    assert resolve_presets(FinetuneConfig(), 10, **NATIVE, fine_tuned=True).layer_decay == 1.0


def test_what_the_recipe_says_is_not_changed():
    config = FinetuneConfig(max_steps=7, layer_decay=0.5, mask_prob=0.0)
    resolved = resolve_presets(config, 10, **NATIVE)
    assert (resolved.max_steps, resolved.layer_decay, resolved.mask_prob) == (7, 0.5, 0.0)
