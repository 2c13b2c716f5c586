"""Positions: distances fall into the published buckets, and count hidden frames too."""

from __future__ import annotations

import pytest
import torch

from speechjepa.errors import ConfigError
from speechjepa.models.wav2vec2 import Wav2Vec2
from speechjepa.nn.positions import BiasGate, RelativeBias
from tests.models.test_wav2vec2 import audio, small_config


def test_buckets_are_those_worked_out_by_hand():
    bias = RelativeBias(num_heads=1, num_buckets=16, max_distance=16)
    # Eight on each side: 0 to 3 by themselves, then one for each factor of 16/4 ^ (1/4) = 1.41.
    distances = torch.tensor([0, -1, -3, -4, -5, -6, -8, -11, -12, -99, 1, 3, 4, 8, 99])
    expected = [0, 1, 3, 4, 4, 5, 6, 6, 7, 7, 9, 11, 12, 14, 15]
    assert bias.buckets(distances).tolist() == expected


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(320, 800), (32, 128), (4, 2)])
def test_buckets_are_those_of_transformers(num_buckets, max_distance):
    from transformers.models.wavlm.modeling_wavlm import WavLMAttention

    theirs = WavLMAttention(8, 2, num_buckets=num_buckets, max_distance=max_distance)
    distances = torch.arange(-2000, 2001)
    ours = RelativeBias(2, num_buckets, max_distance).buckets(distances)
    assert torch.equal(ours, theirs._relative_positions_bucket(distances))


def test_a_gate_is_what_was_worked_out_by_hand():
    gate = BiasGate(head_dim=1, num_heads=2)
    torch.nn.init.zeros_(gate.projection.weight)
    torch.nn.init.zeros_(gate.projection.bias)
    gate.scale.data = torch.tensor([1.0, 4.0]).view(1, 2, 1, 1)
    # Both sigmoids are 1/2: 2 + (c / 2 - 1) / 2 with c = 1 and c = 4.
    assert gate(torch.randn(1, 3, 2))[0, :, :, 0].tolist() == [[1.75] * 3, [2.5] * 3]


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    encoder = Wav2Vec2(small_config("base", bias_buckets=16, bias_distance=12)).eval()
    for parameter in encoder.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return encoder


def test_distances_count_the_frames_that_are_hidden(encoder):
    waveform, lengths = audio(8000)
    features, frames = encoder.extract_features(waveform, lengths)
    seen = torch.arange(features.shape[1])[None] % 3 != 1
    with torch.no_grad():
        packed = encoder.contextualize(features, frames, context_mask=seen).features
        places = torch.arange(features.shape[1])[None]
        bias = encoder.relative_bias(places)
        # The same with every frame in its place and the hidden ones masked out of the attention.
        x = features.masked_fill(~seen[:, :, None], 0.0)
        x = encoder.norm(x + encoder.positions(x, seen))
        for block in encoder.blocks:
            x, _ = block(x, seen[:, None, None, :], bias)
    torch.testing.assert_close(packed[0], x[0, seen[0]], atol=1e-5, rtol=0)


def test_the_bias_learns_and_padding_changes_no_gradient(encoder):
    waveform, lengths = audio(5000)
    gradients = []
    for samples in (waveform, torch.nn.functional.pad(waveform, (0, 3000))):
        encoder.zero_grad()
        output = encoder(samples, lengths)
        output.features[:, : int(output.lengths[0])].square().sum().backward()
        gradients.append({n: p.grad for n, p in encoder.named_parameters() if p.grad is not None})
    for name in ("relative_bias.table.weight", "blocks.1.attention.gate.scale"):
        plain, padded = (found[name] for found in gradients)
        assert plain.abs().max() > 0
        torch.testing.assert_close(padded, plain, atol=1e-4 * float(plain.abs().max() + 1), rtol=0)


def test_buckets_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match=r"less than four times `bias_distance` \(4\), but is 16"):
        small_config("base", bias_buckets=16, bias_distance=4)
