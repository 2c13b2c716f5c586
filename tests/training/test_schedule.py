"""Learning rates, budgets and optimizer groups, on values worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from speechjepa.training.schedule import (
    Budget,
    cosine,
    parameter_groups,
    set_learning_rate,
    tri_stage,
)


def test_cosine_rises_linearly_then_falls_to_the_final_share():
    assert cosine(0.05, 0.1, 0.02) == pytest.approx(0.5)
    assert cosine(0.1, 0.1, 0.02) == pytest.approx(1.0)
    assert cosine(0.55, 0.1, 0.02) == pytest.approx(0.02 + 0.98 / 2)
    assert cosine(1.0, 0.1, 0.02) == pytest.approx(0.02)


def test_tri_stage_rises_holds_and_falls_exponentially():
    stages = (0.1, 0.4, 0.5)
    assert tri_stage(0.05, stages, 0.05) == pytest.approx(0.5)
    assert tri_stage(0.3, stages, 0.05) == 1.0
    assert tri_stage(0.75, stages, 0.05) == pytest.approx(0.05**0.5)
    assert tri_stage(1.0, stages, 0.05) == pytest.approx(0.05)


def test_the_budget_that_ends_first_counts():
    budget = Budget(max_steps=100, minutes=1.0)
    budget.start(earlier_seconds=30.0)
    assert budget.progress(10) == pytest.approx(0.5, abs=0.01)
    assert budget.progress(80) == pytest.approx(0.8)
    assert budget.progress(200) == 1.0


def test_a_budget_needs_an_end():
    with pytest.raises(ValueError, match="needs `max_steps` or `minutes`"):
        Budget(None, None)


def test_vectors_are_not_decayed_and_frozen_weights_are_left_out():
    layer = nn.Linear(2, 3)
    layer.extra = nn.Parameter(torch.zeros(2, 2), requires_grad=False)
    groups = parameter_groups(layer.named_parameters(), 1e-3, 0.1)
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 0.1), (1, 0.0)]


def test_the_factor_applies_to_each_groups_own_peak():
    layer = nn.Linear(2, 3)
    optimizer = torch.optim.SGD(parameter_groups(layer.named_parameters(), 0.4, 0.0))
    assert set_learning_rate(optimizer, 0.25) == pytest.approx(0.1)
