"""Units: found, applied, kept on disk, and refused when damaged."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from speechjepa.errors import ConfigError, DataError, ModelError
from speechjepa.units.kmeans import Units, fit_units, load_units


def _two_sounds(num_frames: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Return frames around two far points, and which of them each frame is at."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.arange(num_frames) % 2
    noise = 0.1 * torch.randn(num_frames, 3, generator=generator)
    return noise + kinds[:, None] * torch.tensor([10.0, 0.0, -4.0]), kinds


def test_two_sounds_become_two_units() -> None:
    frames, kinds = _two_sounds()
    found = fit_units(frames, 2)(frames)
    assert found.dtype == torch.int64
    assert torch.equal(found, kinds) or torch.equal(found, 1 - kinds)


def test_a_frame_belongs_to_the_nearest_centroid_of_standardised_channels() -> None:
    units = Units(
        centroids=torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]),
        mean=torch.tensor([10.0, 0.0]),
        scale=torch.tensor([100.0, 1.0]),
    )
    # Standardised by hand: (-0.1, 0), (0.7, 0), (0, 1.5), (0.9, 1.9): the last lies 0.9 from the
    # third and 1.9 from the second.
    frames = torch.tensor([[0.0, 0.0], [80.0, 0.0], [10.0, 1.5], [100.0, 1.9]])
    assert units(frames).tolist() == [0, 1, 2, 2]


def test_the_scale_of_a_channel_does_not_matter() -> None:
    frames, _ = _two_sounds()
    other = frames * torch.tensor([1000.0, 1.0, 0.01]) + 5
    assert torch.equal(fit_units(frames, 4)(frames), fit_units(other, 4)(other))


def test_one_seed_gives_the_same_units() -> None:
    frames, _ = _two_sounds()
    assert torch.equal(fit_units(frames, 5, seed=3).centroids, fit_units(frames, 5, 3).centroids)


def test_units_come_back_from_disk(tmp_path) -> None:
    frames, _ = _two_sounds()
    units = fit_units(frames, 3)
    again = load_units(units.save(tmp_path / "u"))
    assert torch.equal(again(frames), units(frames))
    assert (again.layer, again.frame_rate, again.num_units) == ("mel", 25.0, 3)


def test_no_frames_give_no_units() -> None:
    frames, _ = _two_sounds()
    assert fit_units(frames, 2)(frames[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("error", "message", "frames", "num_units"),
    [
        (DataError, "5 units need at least as many frames, but there are 4", torch.ones(4, 2), 5),
        (ConfigError, "`num_units` must be 2 or more, but is 1", torch.ones(4, 2), 1),
        (DataError, "not numbers", torch.full((4, 2), torch.nan), 2),
    ],
)
def test_what_cannot_be_fitted_is_refused(error, message, frames, num_units) -> None:
    with pytest.raises(error, match=message):
        fit_units(frames, num_units)


def test_frames_of_another_width_are_refused() -> None:
    frames, _ = _two_sounds()
    with pytest.raises(ModelError, match=r"`features` must be \(T, 3\), but is \(200, 2\)"):
        fit_units(frames, 2)(frames[:, :2])


def test_a_damaged_folder_is_named(tmp_path) -> None:
    frames, _ = _two_sounds()
    with pytest.raises(ModelError, match="holds no units.json"):
        load_units(tmp_path)
    folder = fit_units(frames, 2).save(tmp_path)
    settings = json.loads((folder / "units.json").read_text())
    for change, message in (
        ({"layer": "top"}, "wrong kind"),
        ({"format_version": 2}, "must be 1, but is 2"),
        ({"num_units": 7}, "must be 7 .* but is 2"),
        ({"speed": 1}, "unknown: speed"),
    ):
        (folder / "units.json").write_text(json.dumps({**settings, **change}))
        with pytest.raises(ModelError, match=message):
            load_units(folder)
    (folder / "units.json").write_text(json.dumps(settings))
    (folder / "units.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="units.safetensors: cannot be read"):
        load_units(folder)


def test_a_change_of_unit_is_made_only_where_it_pays() -> None:
    units = Units(
        centroids=torch.tensor([[0.0], [1.0]]),
        mean=torch.zeros(1),
        scale=torch.ones(1),
        change_penalty=2.0,
        distance=0.5,
    )
    # Squared distances to 0 and to 1; a change costs 2 * 0.5 = 1. Following the single frame at 1
    # would save 1 and cost 2; following the last three saves 3 and costs 1.
    frames = torch.tensor([[0.0], [1.0], [0.0], [0.0], [1.0], [1.0], [1.0]])
    assert units(frames).tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert replace(units, change_penalty=0.0)(frames).tolist() == [0, 1, 0, 0, 1, 1, 1]
