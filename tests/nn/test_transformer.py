"""Rotary positions are relative, chunks do not see the future, and layouts lose no frame."""

from __future__ import annotations

import math

import pytest
import torch

from speechjepa.nn.packing import FrameLayout
from speechjepa.nn.transformer import (
    Attention,
    Block,
    ConvolutionModule,
    DropPath,
    chunk_causal_mask,
    rotary_angles,
    rotate,
)


def everything(frames: int, batch: int = 1) -> FrameLayout:
    return FrameLayout(torch.ones(batch, frames, dtype=torch.bool), None, frames)


def test_rotation_by_hand():
    cos, sin = rotary_angles(torch.tensor([[0, 3]]), 2)  # one pair of channels, wavelength 2 pi
    x = torch.tensor([1.0, 0.0]).expand(1, 1, 2, 2)
    rotated = rotate(x, cos, sin)[0, 0]
    assert torch.allclose(rotated[0], torch.tensor([1.0, 0.0]))
    assert rotated[1].tolist() == pytest.approx([math.cos(3.0), math.sin(3.0)])


def test_scores_depend_on_the_distance_of_two_frames_alone():
    query, key = torch.randn(2, 1, 1, 1, 16).unbind()

    def score(i: int, j: int) -> float:
        return float(
            (
                rotate(query, *rotary_angles(torch.tensor([[i]]), 16))
                * rotate(key, *rotary_angles(torch.tensor([[j]]), 16))
            ).sum()
        )

    assert score(7, 3) == pytest.approx(score(1007, 1003), abs=1e-3)
    assert score(7, 3) != pytest.approx(score(7, 4), abs=1e-3)


def test_attention_is_the_same_wherever_the_sequence_starts():
    torch.manual_seed(0)
    attention = Attention(16, 2, 0.0).eval()
    x = torch.randn(1, 6, 16)
    steps = torch.arange(6)[None]
    here = attention(x, rotary_angles(steps, 8), None)
    there = attention(x, rotary_angles(steps + 500, 8), None)
    assert torch.allclose(here, there, atol=1e-5)
    stretched = attention(x, rotary_angles(3 * steps, 8), None)
    assert not torch.allclose(here, stretched, atol=1e-4)


def test_chunk_causal_mask_by_hand():
    mask = chunk_causal_mask(torch.arange(6)[None], 2, 1)[0, 0].int().tolist()
    assert mask == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 1],
        [0, 0, 1, 1, 1, 1],
    ]
    whole_past = chunk_causal_mask(torch.arange(6)[None], 2, None)[0, 0]
    assert whole_past[5].all()


def test_chunks_follow_positions_not_places_in_the_packed_sequence():
    mask = chunk_causal_mask(torch.tensor([[0, 3, 4]]), 2, None)[0, 0].int().tolist()
    assert mask == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_a_causal_convolution_sees_only_the_past():
    torch.manual_seed(0)
    x = torch.randn(1, 20, 8)
    later = x.clone()
    later[:, 10:] += 1.0
    causal, centred = ConvolutionModule(8, 5, True), ConvolutionModule(8, 5, False)
    assert torch.equal(causal(x)[:, :10], causal(later)[:, :10])
    assert torch.allclose(centred(x)[:, :8], centred(later)[:, :8], atol=1e-6)
    assert not torch.allclose(centred(x)[:, 8:10], centred(later)[:, 8:10], atol=1e-4)


def test_drop_path_skips_whole_utterances_and_keeps_the_mean():
    torch.manual_seed(0)
    drop = DropPath(0.25).train()
    rows = drop(torch.ones(4000, 3, 2)).flatten(1)
    assert torch.equal(rows.amin(dim=1), rows.amax(dim=1))
    assert sorted(rows.unique().tolist()) == pytest.approx([0.0, 1 / 0.75])
    assert float(rows.mean()) == pytest.approx(1.0, abs=0.03)


def test_drop_path_does_nothing_in_evaluation():
    x = torch.randn(3, 2, 2)
    assert torch.equal(DropPath(0.9).eval()(x), x)


def test_a_block_whose_branches_are_all_dropped_is_the_identity():
    torch.manual_seed(0)
    block = Block(16, 2, 32, 5, 0.0, 0.999999, False).train()
    x = torch.randn(2, 7, 16)
    rotary = rotary_angles(torch.arange(7)[None].expand(2, -1), 8)
    assert torch.equal(block(x, rotary, None, everything(7, 2))[0], x)


def test_the_block_adds_its_feed_forward_output():
    torch.manual_seed(0)
    block = Block(16, 2, 32, 5, 0.0, 0.0, False).eval()
    x = torch.randn(1, 7, 16)
    rotary = rotary_angles(torch.arange(7)[None], 8)
    y, ffn = block(x, rotary, None, everything(7))
    block.ffn_out.weight.data.zero_()
    block.ffn_out.bias.data.zero_()
    assert torch.allclose(y - ffn, block(x, rotary, None, everything(7))[0], atol=1e-6)


def test_sizes_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="width 10 must divide into 3 heads"):
        Attention(10, 3, 0.0)
    with pytest.raises(ValueError, match="must be odd, but is 4"):
        ConvolutionModule(8, 4, False)
