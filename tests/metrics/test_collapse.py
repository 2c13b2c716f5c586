"""The collapse readings have their hand-computed values and fall when a cloud collapses."""

from __future__ import annotations

import math

import pytest
import torch

from speechjepa.metrics.collapse import dead_dimensions, mean_std, rankme


def test_rankme_counts_equal_directions():
    corners = torch.cat([torch.eye(3), -torch.eye(3)])
    assert rankme(corners) == pytest.approx(3.0, rel=1e-4)


def test_rankme_is_the_entropy_of_singular_values():
    cloud = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    p = [0.75, 0.25]  # singular values 3 sqrt(2) and sqrt(2)
    assert rankme(cloud) == pytest.approx(math.exp(-sum(x * math.log(x) for x in p)), rel=1e-4)


def test_rankme_of_a_line_is_one_whatever_its_offset():
    line = torch.linspace(-1, 1, 50)[:, None] * torch.tensor([[1.0, 2.0, 3.0]])
    assert rankme(line) == pytest.approx(1.0, abs=1e-3)
    assert rankme(line + 100.0) == pytest.approx(1.0, abs=1e-2)


def test_rankme_falls_as_a_cloud_collapses():
    cloud = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    squeezed = cloud * torch.logspace(0, -4, 16)
    assert rankme(cloud) > 15
    assert rankme(squeezed) < 6


def test_a_constant_cloud_is_read_as_collapsed_not_as_nan():
    constant = torch.ones(20, 4)
    assert rankme(constant) == pytest.approx(1.0, abs=1e-4)
    assert mean_std(constant) == 0.0


def test_mean_std_by_hand():
    cloud = torch.tensor([[0.0, 5.0], [2.0, 5.0]])
    assert mean_std(cloud) == pytest.approx(math.sqrt(2.0) / 2)


def test_dead_dimensions_are_those_that_hardly_vary():
    cloud = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    cloud[:, 1] = 3.0
    cloud[:, 4] *= 1e-4
    assert dead_dimensions(cloud) == 2
    assert dead_dimensions(torch.randn(100, 5)) == 0


def test_rankme_of_what_is_not_finite_is_nan_not_an_error():
    cloud = torch.randn(20, 4)
    cloud[3, 1] = math.nan
    assert math.isnan(rankme(cloud))
    assert math.isnan(rankme(torch.full((20, 4), math.inf)))
