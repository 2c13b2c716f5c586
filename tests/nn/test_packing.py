"""Packing drops hidden frames without moving or losing the visible ones."""

from __future__ import annotations

import pytest
import torch

from speechjepa.nn.packing import FrameLayout, gather_frames, pack_visible
from speechjepa.shapes import padding_mask


def example() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.arange(2 * 5 * 3, dtype=torch.float32).reshape(2, 5, 3)
    visible = torch.tensor([[False, True, True, False, True], [True, False, False, False, False]])
    return x, visible


def packed_example(visible: torch.Tensor) -> tuple[torch.Tensor, FrameLayout]:
    """Pack the frames of the example that are visible."""
    packed, lengths, indices = pack_visible(example()[0], visible)
    return packed, FrameLayout(~padding_mask(lengths, packed.shape[1]), indices, visible.shape[1])


def test_packed_rows_are_the_visible_frames_in_time_order():
    x, visible = example()
    packed, lengths, indices = pack_visible(x, visible)
    assert packed.shape == (2, 3, 3)
    assert lengths.tolist() == [3, 1]
    assert indices.tolist() == [[1, 2, 4], [0, 0, 0]]
    assert torch.equal(packed[0], x[0, [1, 2, 4]])
    assert torch.equal(packed[1, 0], x[1, 0])


def test_packing_agrees_with_boolean_indexing_on_random_masks():
    torch.manual_seed(0)
    x = torch.randn(6, 40, 4)
    visible = torch.rand(6, 40) < torch.linspace(0.05, 0.95, 6)[:, None]
    packed, lengths, indices = pack_visible(x, visible)
    for row in range(6):
        count = int(lengths[row])
        assert torch.equal(packed[row, :count], x[row, visible[row]])
        assert torch.equal(indices[row, :count], visible[row].nonzero()[:, 0])


def test_scatter_restores_visible_frames_and_fills_the_others():
    x, visible = example()
    packed, layout = packed_example(visible)
    fill = torch.tensor([7.0, 8.0, 9.0])
    assert torch.equal(layout.scatter(packed, fill), torch.where(visible[:, :, None], x, fill))
    assert torch.equal(layout.scatter(packed), x * visible[:, :, None])
    assert torch.equal(layout.gather(x)[layout.valid], packed[layout.valid])


def test_padding_rows_never_overwrite_a_frame():
    _, visible = example()
    visible[1] = False  # an utterance of which nothing is visible
    packed, layout = packed_example(visible)
    assert layout.valid.sum(dim=1).tolist() == [3, 0]
    packed[~layout.valid] = torch.nan
    assert torch.equal(layout.scatter(packed)[1], torch.zeros(5, 3))
    assert layout.scatter(packed).isfinite().all()


def test_without_hidden_frames_padding_alone_is_filled():
    x = torch.ones(1, 2, 1)
    layout = FrameLayout(torch.tensor([[True, False]]), None, 2)
    assert layout.scatter(x)[0, :, 0].tolist() == [1, 0]
    assert layout.scatter(x, torch.tensor([5.0]))[0, :, 0].tolist() == [1, 5]
    assert FrameLayout(torch.ones(1, 2, dtype=torch.bool), None, 2).scatter(x) is x
    assert layout.gather(x) is x


def test_gradients_reach_the_visible_frames_only():
    x, visible = example()
    x.requires_grad_()
    packed, lengths, _ = pack_visible(x, visible)
    packed[~padding_mask(lengths, 3)].sum().backward()
    assert torch.equal(x.grad, visible[:, :, None].expand(2, 5, 3).float())


def test_the_fill_receives_one_gradient_per_filled_frame():
    packed, layout = packed_example(example()[1])
    fill = torch.zeros(3, requires_grad=True)
    layout.scatter(packed, fill).sum().backward()
    assert fill.grad.tolist() == [6.0, 6.0, 6.0]


def test_gather_takes_the_named_frames():
    x, _ = example()
    assert torch.equal(gather_frames(x, torch.tensor([[4], [2]]))[:, 0], x[[0, 1], [4, 2]])


def test_a_mask_of_the_wrong_shape_or_type_is_refused():
    x, visible = example()
    with pytest.raises(ValueError, match="must be bool of shape"):
        pack_visible(x, visible[:, :4])
    with pytest.raises(ValueError, match="must be bool of shape"):
        pack_visible(x, visible.float())
