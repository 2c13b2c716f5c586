"""Which number format training takes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from speechjepa.training import precision
from speechjepa.training.precision import autocast, pick_precision

CPU = torch.device("cpu")


def never() -> Tensor:
    raise AssertionError("nothing is to be measured")


@pytest.mark.parametrize("wanted", ["float32", "bfloat16"])
def test_what_the_recipe_says_is_taken_without_measuring(wanted):
    assert pick_precision(wanted, CPU, never) == wanted


@pytest.mark.parametrize("name, dtype", [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_matrix_product_runs_in_the_format_that_is_named(name, dtype):
    with autocast(CPU, name):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize("faster", ["float32", "bfloat16"])
def test_auto_takes_the_faster_by_its_best_step_after_the_first(faster, monkeypatch):
    clock = [0.0]
    steps = {"float32": 0, "bfloat16": 0}
    weight = torch.ones(1, requires_grad=True)

    def step() -> Tensor:
        name = "bfloat16" if torch.is_autocast_enabled("cpu") else "float32"
        steps[name] += 1
        # The faster one is slow at first, and disturbed once by other load.
        slow = name != faster or steps[name] == 2
        first = 0.1 if name != faster else 9.0
        clock[0] += first if steps[name] == 1 else 2.0 if slow else 1.0
        return weight.sum()

    monkeypatch.setattr(precision.time, "perf_counter", lambda: clock[0])
    assert pick_precision("auto", CPU, step, repeats=2) == faster
    assert steps == {"float32": 3, "bfloat16": 3}
    assert weight.grad is not None  # the backward pass is timed too


def test_a_clear_difference_is_not_measured_again(monkeypatch):
    clock, steps = [0.0], []

    def step() -> Tensor:
        steps.append(torch.is_autocast_enabled("cpu"))
        clock[0] += 3.1 if steps[-1] else 1.0
        return torch.ones(1, requires_grad=True).sum()

    monkeypatch.setattr(precision.time, "perf_counter", lambda: clock[0])
    assert pick_precision("auto", CPU, step) == "float32"
    assert steps == [False, True] * 2  # once to warm up, once in earnest
