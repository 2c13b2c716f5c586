"""Sequences of units: each once, and frame by frame again."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechjepa.units.sequences import deduplicate, repeat


def test_a_unit_that_lasts_is_kept_once_with_its_duration() -> None:
    units, durations = deduplicate(torch.tensor([5, 5, 5, 2, 2, 5]))
    assert units.tolist() == [5, 2, 5]
    assert durations.tolist() == [3, 2, 1]


@given(st.lists(st.integers(0, 3), max_size=30))
def test_repeat_undoes_deduplicate(sequence: list[int]) -> None:
    frames = torch.tensor(sequence, dtype=torch.int64)
    units, durations = deduplicate(frames)
    assert torch.equal(repeat(units, durations), frames)
    assert (units[1:] != units[:-1]).all()


def test_durations_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2,\) and \(1,\)"):
        repeat(torch.tensor([1, 2]), torch.tensor([1]))
    with pytest.raises(ValueError, match="0 or more, but one is -1"):
        repeat(torch.tensor([1, 2]), torch.tensor([1, -1]))
