"""The native encoder: what it outputs depends on the utterance and on what is visible, alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from speechjepa.errors import ConfigError
from speechjepa.models.bundle import num_parameters
from speechjepa.models.ctc import CtcModel
from speechjepa.models.speech_encoder import (
    PRESETS,
    SpeechEncoder,
    SpeechEncoderConfig,
    preset_config,
)
from speechjepa.shapes import padding_mask

SMALL = SpeechEncoderConfig(width=32, num_layers=3, num_heads=2, ffn_width=48, kernel_size=5)
STREAMING = replace(SMALL, normalization="global", causal_convolution=True, chunk_frames=8)


def encoder(config: SpeechEncoderConfig = SMALL) -> SpeechEncoder:
    torch.manual_seed(0)
    network = SpeechEncoder(config).eval()
    for parameter in network.parameters():  # far enough from its start for every part to matter
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network


def speech(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name, millions", [("tiny", 4), ("small", 20), ("base", 90)])
def test_presets_have_about_the_parameters_they_are_said_to_have(name, millions):
    one, two = (num_parameters(SpeechEncoder(preset_config(name, num_layers=n))) for n in (1, 2))
    parameters = one + (PRESETS[name].num_layers - 1) * (two - one)  # every block is alike
    assert parameters / 1e6 == pytest.approx(millions, rel=0.12)


@pytest.mark.parametrize(
    "config",
    [SMALL, replace(SMALL, frame_rate=25), STREAMING, replace(STREAMING, left_chunks=1)],
    ids=["50Hz", "25Hz", "chunks", "left"],
)
@torch.no_grad()
def test_padding_and_the_rest_of_the_batch_change_nothing(config):
    network = encoder(config)
    waveform = speech(3, 9000)
    lengths = torch.tensor([9000, 6100, 3333])
    together = network(waveform, lengths, return_layers=True)
    for row, samples in enumerate(lengths.tolist()):
        alone = network(
            waveform[row : row + 1, :samples], lengths[row : row + 1], return_layers=True
        )
        frames = samples // network.hop
        assert alone.lengths.tolist() == [frames] == [int(together.lengths[row])]
        assert alone.features.shape == (1, frames, 32)
        assert torch.allclose(together.features[row, :frames], alone.features[0], atol=1e-4)
        for ours, theirs in zip(together.layers, alone.layers, strict=True):
            assert torch.allclose(ours[row, :frames], theirs[0], atol=1e-4)


@torch.no_grad()
def test_an_utterance_without_a_frame_leaves_the_others_alone():
    network = encoder()
    waveform = speech(2, 6400)
    together = network(waveform, torch.tensor([6400, 100]))
    alone = network(waveform[:1], torch.tensor([6400]))
    assert together.lengths.tolist() == [20, 0]
    assert together.features.isfinite().all()
    assert torch.allclose(together.features[:1], alone.features, atol=1e-4)
    nothing = network(waveform[:, :100], torch.tensor([100, 0]))
    assert nothing.lengths.tolist() == [0, 0]
    assert nothing.features.isfinite().all()


@torch.no_grad()
def test_every_layer_is_given_when_asked_for():
    network = encoder()
    features, lengths = network.extract_features(speech(1, 6400), torch.tensor([6400]))
    output = network.contextualize(features, lengths, return_layers=True, return_ffn=True)
    assert len(output.layers) == network.num_layers + 1 == 4
    assert len(output.ffn_outputs) == 3
    assert torch.equal(output.layers[0], features)
    assert torch.equal(network.norm(output.layers[-1]), output.features)
    plain = network.contextualize(features, lengths)
    assert plain.layers is None and plain.ffn_outputs is None
    assert torch.equal(plain.features, output.features)


@torch.no_grad()
def test_a_context_mask_that_hides_nothing_changes_nothing():
    network = encoder()
    features, lengths = network.extract_features(speech(2, 6400), torch.tensor([6400, 4000]))
    whole = network.contextualize(features, lengths)
    seen = network.contextualize(
        features, lengths, context_mask=torch.ones(features.shape[:2], dtype=torch.bool)
    )
    assert torch.equal(seen.lengths, whole.lengths)
    valid = ~padding_mask(lengths, features.shape[1])
    assert torch.allclose(seen.features[valid], whole.features[valid], atol=1e-5)


@pytest.mark.parametrize("config", [SMALL, STREAMING], ids=["full", "chunks"])
@torch.no_grad()
def test_hidden_frames_are_dropped_and_have_no_influence(config):
    network = encoder(config)
    features, lengths = network.extract_features(speech(2, 9600), torch.tensor([9600, 6400]))
    visible = torch.ones(2, 30, dtype=torch.bool)
    visible[0, 5:15] = False
    visible[1, 2:4] = False
    before = network.contextualize(features, lengths, context_mask=visible, return_ffn=True)
    assert before.lengths.tolist() == [20, 18]
    assert before.features.shape == (2, 20, 32)
    assert before.ffn_outputs[0].shape == (2, 20, 32)
    changed = torch.where(visible[:, :, None], features, torch.randn_like(features) * 100)
    after = network.contextualize(changed, lengths, context_mask=visible)
    assert torch.equal(after.features[0], before.features[0])
    assert torch.equal(after.features[1, :18], before.features[1, :18])


@torch.no_grad()
def test_a_hidden_frame_is_not_the_same_as_a_zero_frame():
    network = encoder()
    features, lengths = network.extract_features(speech(1, 6400), torch.tensor([6400]))
    visible = torch.ones(1, 20, dtype=torch.bool)
    visible[0, 8:12] = False
    dropped = network.contextualize(features, lengths, context_mask=visible).features[0]
    zeroed = network.contextualize(features * visible[:, :, None], lengths).features[0, visible[0]]
    assert not torch.allclose(dropped, zeroed, atol=1e-3)


@torch.no_grad()
def test_packed_frames_keep_the_positions_of_the_full_sequence():
    network = encoder()
    features, lengths = network.extract_features(speech(1, 9600), torch.tensor([9600]))
    near, far = torch.zeros(2, 1, 30, dtype=torch.bool).unbind()
    near[0, [0, 1, 2, 3, 4, 5]] = True
    far[0, [0, 1, 2, 20, 21, 22]] = True
    moved = features.clone()
    moved[:, 20:23] = features[:, 3:6]  # the same six frames, with a gap in the middle
    together = network.contextualize(features, lengths, context_mask=near).features
    apart = network.contextualize(moved, lengths, context_mask=far).features
    assert not torch.allclose(together, apart, atol=1e-3)


@torch.no_grad()
def test_results_under_a_mask_do_not_depend_on_the_batch():
    network = encoder()
    features, lengths = network.extract_features(speech(2, 9600), torch.tensor([9600, 6400]))
    visible = torch.rand(2, 30, generator=torch.Generator().manual_seed(0)) < 0.5
    both = network.contextualize(features, lengths, context_mask=visible)
    alone = network.contextualize(features[1:, :20], lengths[1:], context_mask=visible[1:, :20])
    count = int(alone.lengths)
    assert torch.allclose(both.features[1, :count], alone.features[0, :count], atol=1e-5)


@pytest.mark.parametrize("rate", [50, 25])
@torch.no_grad()
def test_a_chunk_does_not_hear_beyond_the_look_ahead_of_the_front_end(rate):
    network = encoder(replace(STREAMING, frame_rate=rate))
    frames = 2 * 8  # two chunks
    end = frames * network.hop + network.feature_encoder.look_ahead
    waveform = speech(1, end + 8000)
    later = waveform.clone()
    later[:, end:] = torch.randn(1, 8000)
    size = torch.tensor([waveform.shape[1]])
    before, after = (network(x, size).features for x in (waveform, later))
    assert torch.allclose(before[:, :frames], after[:, :frames], atol=1e-5)
    assert not torch.allclose(before[:, frames:], after[:, frames:], atol=1e-3)


@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_no_layer_hears_a_later_chunk(masked):
    network = encoder(STREAMING)
    features, lengths = speech(2, 40, 32), torch.tensor([40, 33])
    visible = torch.rand(2, 40, generator=torch.Generator().manual_seed(0)) < 0.6
    for changed_frame in (8, 19, 31):
        visible[:, changed_frame] = True
        changed = features.clone()
        changed[:, changed_frame] += 50 * speech(2, 32)
        before, after = (
            network.contextualize(
                x,
                lengths,
                context_mask=visible if masked else None,
                return_layers=True,
                return_ffn=True,
            )
            for x in (features, changed)
        )
        first = changed_frame // 8 * 8  # frames before this one's chunk
        counts = visible[:, :first].sum(dim=1).tolist() if masked else [first, first]
        heard = zip(
            [*before.layers, *before.ffn_outputs, before.features],
            [*after.layers, *after.ffn_outputs, after.features],
            strict=True,
        )
        for ours, theirs in heard:
            for row, count in enumerate(counts):
                assert torch.equal(ours[row, :count], theirs[row, :count])
            assert not torch.equal(ours, theirs)


@torch.no_grad()
def test_a_stream_cut_after_the_look_ahead_gives_the_frames_of_the_whole():
    network = encoder(STREAMING)
    waveform = speech(1, 16000)
    frames = 16
    cut = frames * network.hop + network.feature_encoder.look_ahead + 40  # 3 whole mel frames
    whole = network(waveform, torch.tensor([16000])).features
    part = network(waveform[:, :cut], torch.tensor([cut])).features
    assert torch.allclose(whole[:, :frames], part[:, :frames], atol=1e-5)


@torch.no_grad()
def test_attention_to_the_past_is_limited_to_the_left_chunks():
    network = encoder(replace(STREAMING, left_chunks=1, num_layers=1, kernel_size=1))
    features = torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(0))
    changed = features.clone()
    changed[:, :8] *= torch.linspace(-1.0, 1.0, 32)  # a shift alone would be normalised away
    before, after = (
        network.contextualize(x, torch.tensor([32])).features for x in (features, changed)
    )
    assert not torch.allclose(before[:, 8:16], after[:, 8:16], atol=1e-4)
    assert torch.equal(before[:, 16:], after[:, 16:])


def test_gradients_do_not_depend_on_padding():
    network = encoder().train()
    waveform = speech(1, 6400)
    found = []
    for extra in (0, 3200):
        padded = torch.nn.functional.pad(waveform, (0, extra))
        network.zero_grad()
        output = network(padded, torch.tensor([6400]))
        output.features[0, :20].square().sum().backward()
        found.append([p.grad.clone() for p in network.parameters()])
    for short, long in zip(*found, strict=True):
        assert torch.allclose(short, long, atol=1e-3, rtol=1e-3)


def test_set_dropout_reaches_every_part_and_the_settings():
    network = encoder()
    network.set_dropout(0.25, 0.5)
    assert network.config.dropout == 0.25
    assert [block.drop_path.probability for block in network.blocks] == [0.0, 0.25, 0.5]
    assert {block.dropout.p for block in network.blocks} == {0.25}
    assert {block.attention.dropout for block in network.blocks} == {0.25}
    assert network.feature_encoder.dropout.p == 0.25


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"width": 32}, "`width` must be divisible by twice `num_heads` .6., but is 32"),
        ({"kernel_size": 4}, "`kernel_size` must be odd, but is 4"),
        ({"num_layers": 0}, "`num_layers` must be at least 1, but is 0"),
        ({"dropout": 1.0}, "`dropout` must be at least 0 and below 1, but is 1.0"),
        ({"chunk_frames": 0}, "`chunk_frames` must be at least 1, but is 0"),
        ({"left_chunks": 2}, "`left_chunks` has no meaning without `chunk_frames`"),
    ],
)
def test_sizes_that_cannot_work_are_refused(changes, message):
    if "width" in changes:
        changes = {**changes, "num_heads": 3}
    with pytest.raises(ConfigError, match=message):
        preset_config("tiny", **changes)


def test_ctc_logits_are_float32_with_their_lengths():
    model = CtcModel(encoder(), 7).eval()
    lengths = torch.tensor([6400, 3300])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, frames = model(speech(2, 6400), lengths)
    assert logits.shape == (2, 20, 7)
    assert logits.dtype == torch.float32
    assert frames.tolist() == [20, 10] == model.output_lengths(lengths).tolist()


@torch.no_grad()
def test_upsampling_splits_each_frame_into_consecutive_logit_frames():
    model = CtcModel(encoder(), 7, upsample=2).eval()
    features = torch.randn(2, 5, 32)
    logits = model.head_logits(features)
    assert logits.shape == (2, 10, 7)
    by_hand = features @ model.head.weight.T
    assert torch.allclose(logits[:, 0::2], by_hand[:, :, :7], atol=1e-5)
    assert torch.allclose(logits[:, 1::2], by_hand[:, :, 7:], atol=1e-5)
    assert model.output_lengths(torch.tensor([3200])).tolist() == [20]


def test_no_frames_give_no_logits():
    assert CtcModel(encoder(), 7, upsample=2).head_logits(torch.zeros(2, 0, 32)).shape == (2, 0, 7)
