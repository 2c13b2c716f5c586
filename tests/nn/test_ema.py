"""The target encoder follows the source at its own pace and is never trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from speechjepa.nn.ema import ema_decay_at, target_copy, update_ema


def test_an_update_by_hand():
    source, target = nn.Linear(1, 1), nn.Linear(1, 1)
    nn.init.constant_(source.weight, 2.0)
    nn.init.constant_(target.weight, 1.0)
    update_ema(target, source, 0.75)
    assert target.weight.item() == pytest.approx(1.25)
    assert source.weight.item() == 2.0


@pytest.mark.parametrize("decay, follows", [(0.0, True), (1.0, False)])
def test_the_ends_of_the_decay_copy_and_keep(decay, follows):
    source, target = nn.Linear(3, 3), nn.Linear(3, 3)
    kept = target.weight.clone()
    update_ema(target, source, decay)
    assert torch.equal(target.weight, source.weight if follows else kept)


def test_a_constant_source_is_reached_at_the_decay_to_the_number_of_updates():
    source, target = nn.Linear(1, 1), nn.Linear(1, 1)
    nn.init.zeros_(source.weight)
    nn.init.ones_(target.weight)
    for _ in range(10):
        update_ema(target, source, 0.9)
    assert target.weight.item() == pytest.approx(0.9**10, rel=1e-5)


def test_the_copy_is_frozen_and_in_evaluation_mode_and_its_own():
    source = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    target = target_copy(source)
    assert not target.training and not target[1].training and source.training
    assert not any(p.requires_grad for p in target.parameters())
    assert all(p.requires_grad for p in source.parameters())
    source[0].weight.data += 1.0
    assert not torch.equal(target[0].weight, source[0].weight)


def test_buffers_are_copied():
    source, target = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    source(torch.randn(8, 2) + 5.0)
    update_ema(target, source, 0.99)
    assert torch.equal(target.running_mean, source.running_mean)


def test_the_decay_is_annealed_and_then_stays():
    found = [ema_decay_at(p, 0.9, 1.0, 0.5) for p in (0.0, 0.25, 0.5, 1.0)]
    assert found == pytest.approx([0.9, 0.95, 1.0, 1.0])
    assert ema_decay_at(0.0, 0.9, 1.0, 0.0) == 1.0
