"""When a run is called collapsed, and what the doctor of fine-tuning says."""

from __future__ import annotations

import json
import math

import pytest
import torch

from speechjepa.errors import CollapseError
from speechjepa.training.config import CollapseConfig
from speechjepa.training.doctor import BLANK_READINGS, CtcDoctor
from speechjepa.training.monitors import CollapseMonitor

HEALTHY = {"target_std": 0.5, "prediction_std": 0.4, "rankme": 40.0}


def monitor() -> CollapseMonitor:
    return CollapseMonitor(CollapseConfig(grace_steps=10, patience=2))


def test_nothing_is_judged_in_the_grace_period():
    watched = monitor()
    for step in range(10):
        watched.check(step, {"rankme": 1.0})
    assert watched.bad_readings == 0


def test_one_good_reading_forgives_the_bad_ones_before_it():
    watched = monitor()
    for readings in ({"rankme": 1.0}, HEALTHY, {"rankme": 1.0}):
        watched.check(20, readings)
    assert watched.bad_readings == 1


@pytest.mark.parametrize("value", [1.0, math.nan])
def test_readings_that_stay_bad_stop_the_run_and_say_what_to_try(value):
    watched = monitor()
    watched.check(20, {**HEALTHY, "rankme": value})
    with pytest.raises(CollapseError, match=r"step 30: rankme fell to .*at least 3.*sigreg_weight"):
        watched.check(30, {**HEALTHY, "rankme": value})


def codes(doctor: CtcDoctor) -> list[str]:
    return [json.loads(line)["code"] for line in doctor.path.read_text().splitlines()]


def test_the_doctor_tells_blanks_only_and_a_loss_that_stands_still(tmp_path):
    doctor = CtcDoctor(tmp_path / "doctor.jsonl")
    blank = torch.zeros(1, 10, 3)
    blank[:, :, 0] = 5.0
    for step in range(5 * BLANK_READINGS):
        share = doctor.watch(step, 2.9, blank, torch.tensor([10]))
    assert share == 1.0
    assert codes(doctor) == ["all_blank", "loss_plateau"]


def test_the_doctor_counts_valid_frames_alone(tmp_path):
    doctor = CtcDoctor(tmp_path / "doctor.jsonl")
    logits = torch.zeros(1, 10, 3)
    logits[:, :4, 1] = 5.0
    logits[:, 4:, 0] = 5.0
    assert doctor.watch(0, 1.0, logits, torch.tensor([8])) == pytest.approx(0.5)


def test_a_loss_that_is_not_finite_is_said_once(tmp_path):
    doctor = CtcDoctor(tmp_path / "doctor.jsonl")
    for step in range(3):
        doctor.watch(step, math.inf, torch.rand(1, 4, 3), torch.tensor([4]))
    assert codes(doctor) == ["loss_not_finite"]
