"""wav2vec 2.0 equals the published architecture, and its results do not depend on padding."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from speechjepa.errors import ConfigError
from speechjepa.models.pretraining import ContrastiveModel
from speechjepa.models.published import published_name
from speechjepa.models.wav2vec2 import PRESETS, Wav2Vec2, Wav2Vec2Config, preset_config
from speechjepa.nn.quantizer import GumbelQuantizer
from speechjepa.nn.waveform_encoder import normalize_waveform
from speechjepa.objectives.contrastive import contrastive_loss, diversity_loss, sample_distractors

STYLES = ("base", "large")


def small_config(style: str, **changes: object) -> Wav2Vec2Config:
    return preset_config(
        style,
        conv_widths=(16,) * 7,
        width=32,
        num_layers=3,
        num_heads=4,
        ffn_width=48,
        **{"position_kernel": 16, "position_groups": 4, **changes},
    )


def small_encoder(style: str, **changes: object) -> Wav2Vec2:
    torch.manual_seed(0)
    encoder = Wav2Vec2(small_config(style, **changes)).eval()
    for parameter in encoder.parameters():  # every bias and norm takes part in the comparison
        parameter.data += 0.2 * parameter.data.std().nan_to_num(0.5) * torch.randn_like(parameter)
        parameter.data += 0.02 * torch.randn_like(parameter)
    return encoder


def published_model(config: Wav2Vec2Config):
    from transformers import Wav2Vec2Config as PublishedConfig
    from transformers import Wav2Vec2Model

    return Wav2Vec2Model(
        PublishedConfig(
            conv_dim=list(config.conv_widths),
            conv_kernel=list(config.conv_kernels),
            conv_stride=list(config.conv_strides),
            conv_bias=config.conv_bias,
            feat_extract_norm=config.conv_norm,
            hidden_size=config.width,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            intermediate_size=config.ffn_width,
            do_stable_layer_norm=config.pre_norm,
            num_conv_pos_embeddings=config.position_kernel,
            num_conv_pos_embedding_groups=config.position_groups,
        )
    )


def published_twin(encoder: Wav2Vec2):
    """The `transformers` model with the weights of `encoder`; every one of its weights is set."""
    model = published_model(encoder.config).eval()
    model.load_state_dict({published_name(k): v for k, v in encoder.state_dict().items()})
    return model


def run_published(model, values: torch.Tensor, **inputs: torch.Tensor) -> list[torch.Tensor]:
    """Return the input of the first block and the output of every block."""
    layers: list[torch.Tensor] = []
    blocks = model.encoder.layers
    handles = [
        blocks[0].register_forward_pre_hook(lambda _, args: layers.append(args[0])),
        *(b.register_forward_hook(lambda *call: layers.append(call[2])) for b in blocks),
    ]
    with torch.no_grad():
        output = model(values, **inputs)
    for handle in handles:
        handle.remove()
    layers = [layer[0] if isinstance(layer, tuple) else layer for layer in layers]
    return [*layers, output.last_hidden_state]


def audio(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(len(lengths))
    waveform = torch.randn(len(lengths), max(lengths), generator=generator) * 0.1
    return waveform, torch.tensor(lengths)


@pytest.mark.parametrize(
    "changes", [{}, {"position_kernel": 15}, {"conv_norm": "layer"}, {"conv_norm": "group"}]
)
@pytest.mark.parametrize("style", STYLES)
def test_every_layer_equals_the_published_model(style, changes):
    encoder = small_encoder(style, **changes)
    waveform, lengths = audio(8000, 8000)
    expected = run_published(published_twin(encoder), normalize_waveform(waveform, lengths))
    with torch.no_grad():
        output = encoder(waveform, lengths, return_layers=True)
    assert len(expected) == encoder.num_layers + 2
    for ours, theirs in zip([*output.layers, output.features], expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert output.layers[-1].std() > 0.1, "a vanishing output would equal anything"


@pytest.mark.parametrize("style", STYLES)
def test_gradients_equal_those_of_the_published_model(style):
    encoder = small_encoder(style, feature_grad_mult=1.0)
    waveform, lengths = audio(8000, 8000)
    twin = published_twin(encoder)
    twin(normalize_waveform(waveform, lengths)).last_hidden_state.square().sum().backward()
    encoder(waveform, lengths).features.square().sum().backward()
    expected = {name: p.grad for name, p in twin.named_parameters()}
    for name, parameter in encoder.named_parameters():
        if name == "mask_embedding":  # nothing is masked
            assert parameter.grad is None
            continue
        theirs = expected[published_name(name)]
        # A key's bias shifts all scores of a query alike: its gradient is rounding around 0.
        scale = 1.0 if name.endswith("key.bias") else float(theirs.abs().max())
        torch.testing.assert_close(parameter.grad, theirs, atol=1e-3 * scale, rtol=0, msg=name)


@pytest.mark.parametrize("style", STYLES)
def test_layer_norm_convolutions_equal_the_published_model_with_its_attention_mask(style):
    encoder = small_encoder(style, conv_norm="layer")
    waveform, lengths = audio(8000, 5000)
    values = normalize_waveform(waveform, lengths)
    mask = (torch.arange(8000) < lengths[:, None]).long()
    expected = run_published(published_twin(encoder), values, attention_mask=mask)
    with torch.no_grad():
        output = encoder(waveform, lengths, return_layers=True)
    for ours, theirs in zip([*output.layers, output.features], expected, strict=True):
        for row, frames in enumerate(output.lengths.tolist()):
            torch.testing.assert_close(ours[row, :frames], theirs[row, :frames], atol=1e-4, rtol=0)


def test_waveform_normalisation_equals_the_published_preprocessing():
    from transformers import Wav2Vec2FeatureExtractor

    waveform, lengths = audio(3000, 2000)
    waveform = waveform * 0.01 + 0.3
    rows = [waveform[i, :n].numpy() for i, n in enumerate(lengths.tolist())]
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    expected = extractor(rows, sampling_rate=16000, padding=True, return_tensors="pt").input_values
    torch.testing.assert_close(normalize_waveform(waveform, lengths), expected, atol=1e-4, rtol=0)


def test_pretraining_equals_the_published_model():
    from transformers import Wav2Vec2ForPreTraining

    encoder = small_encoder("base")
    quantizer = GumbelQuantizer(16, 24, num_codebooks=2, num_codes=7)
    ours = ContrastiveModel(encoder, quantizer, 12).eval()
    config = published_model(encoder.config).config
    config.update({"num_codevectors_per_group": 7, "codevector_dim": 24})
    config.update({"proj_codevector_dim": 12, "num_negatives": 5})
    theirs = Wav2Vec2ForPreTraining(config).eval()
    theirs.wav2vec2.load_state_dict(published_twin(encoder).state_dict())
    theirs.quantizer.weight_proj.load_state_dict(quantizer.logits.state_dict())
    theirs.quantizer.codevectors.data = quantizer.codebooks.data.reshape(1, 14, 12).clone()
    theirs.project_hid.load_state_dict(ours.project_prediction.state_dict())
    theirs.project_q.load_state_dict(ours.project_target.state_dict())

    waveform, lengths = audio(16000, 16000)
    frames = int(encoder.output_lengths(lengths)[0])
    mask = torch.rand(2, frames, generator=torch.Generator().manual_seed(0)) < 0.4
    number = mask.sum(dim=1)
    drawn = sample_distractors(number, int(number.max()), 5)  # as places among the masked frames
    negatives = torch.zeros(2, frames, 5, dtype=torch.long)
    for row in range(2):
        places = mask[row].nonzero()[:, 0] + row * frames
        negatives[row, mask[row]] = places[drawn[row, : int(number[row])]]
    with torch.no_grad():
        expected = theirs(
            normalize_waveform(waveform, lengths),
            mask_time_indices=mask,
            sampled_negative_indices=negatives,
        )
        predictions, targets, counted, quantized, _ = ours(
            encoder.front_end(waveform, lengths), mask, 1.0
        )
        found = contrastive_loss(
            predictions, targets, counted, codes=quantized.codes, distractors=drawn
        )
    torch.testing.assert_close(found.loss_sum, expected.contrastive_loss, atol=1e-3, rtol=0)
    # In evaluation theirs takes the share of each chosen entry for its probability.
    diversity = diversity_loss(quantized.usage) * mask.sum()
    torch.testing.assert_close(diversity, expected.diversity_loss)


@pytest.mark.parametrize(("style", "millions"), [("base", 94.37), ("large", 315.44)])
def test_presets_have_the_published_number_of_parameters(style, millions):
    with torch.device("meta"):
        ours = sum(p.numel() for p in Wav2Vec2(PRESETS[style]).parameters())
        theirs = sum(p.numel() for p in published_model(PRESETS[style]).parameters())
    assert ours == theirs
    assert ours / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("style", STYLES)
def test_padding_and_batch_change_no_valid_frame(style):
    encoder = small_encoder(style)
    waveform, lengths = audio(9000, 5123, 400)
    for row, length in enumerate(lengths.tolist()):
        waveform[row, length:] = torch.nan
    with torch.no_grad():
        together = encoder(waveform, lengths, return_layers=True)
        for row, length in enumerate(lengths.tolist()):
            alone = encoder(
                waveform[row : row + 1, :length], lengths[row : row + 1], return_layers=True
            )
            frames = alone.features.shape[1]
            assert together.lengths[row] == alone.lengths[0] == frames
            for a, b in zip(alone.layers, together.layers, strict=True):
                torch.testing.assert_close(b[row : row + 1, :frames], a, atol=1e-5, rtol=0)
    assert together.features.isfinite().all()


@pytest.mark.parametrize("style", STYLES)
def test_padding_changes_no_gradient(style):
    encoder = small_encoder(style)
    waveform, lengths = audio(5000)
    gradients = []
    for samples in (waveform, torch.nn.functional.pad(waveform, (0, 3000))):
        encoder.zero_grad()
        output = encoder(samples, lengths)
        output.features[:, : int(output.lengths[0])].square().sum().backward()
        gradients.append([p.grad.clone() for p in encoder.parameters() if p.grad is not None])
    for plain, padded in zip(*gradients, strict=True):
        torch.testing.assert_close(padded, plain, atol=1e-4 * float(plain.abs().max() + 1), rtol=0)


@pytest.mark.parametrize("style", STYLES)
def test_frame_counts_are_what_the_convolutions_give(style):
    encoder = small_encoder(style)
    for samples in (400, 719, 720, 16000, 16001):
        lengths = torch.tensor([samples])
        features, frames = encoder.extract_features(torch.zeros(1, samples), lengths)
        assert features.shape[1] == frames.item() == encoder.output_lengths(lengths).item()
    assert encoder.hop == 320 and encoder.output_lengths(torch.tensor([16000])).item() == 49


@pytest.mark.parametrize("style", STYLES)
def test_an_utterance_shorter_than_one_frame_has_no_frames_and_harms_nobody(style):
    encoder = small_encoder(style)
    for lengths in ([6000, 100], [100, 0]):
        waveform, lengths = audio(*lengths)
        output = encoder(waveform, lengths)
        assert output.lengths.tolist()[1] == 0
        assert output.features.isfinite().all()


@pytest.mark.parametrize("style", STYLES)
def test_hidden_frames_influence_nothing_and_are_dropped(style):
    encoder = small_encoder(style)
    waveform, lengths = audio(9000, 6000)
    features, lengths = encoder.extract_features(waveform, lengths)
    context_mask = torch.rand(features.shape[:2], generator=torch.Generator().manual_seed(3)) < 0.5
    changed = torch.where(context_mask[:, :, None], features, torch.nan)
    outputs = [
        encoder.contextualize(x, lengths, context_mask=context_mask, return_layers=True)
        for x in (features, changed)
    ]
    expected = [int(context_mask[i, :n].sum()) for i, n in enumerate(lengths.tolist())]
    assert outputs[0].lengths.tolist() == expected
    assert outputs[0].features.shape[1] == max(expected)
    for layer, same in zip(outputs[0].layers, outputs[1].layers, strict=True):
        assert torch.equal(layer, same)


@pytest.mark.parametrize("style", STYLES)
def test_visible_frames_keep_the_positions_of_the_full_sequence(style):
    encoder = small_encoder(style)
    features, lengths = encoder.extract_features(*audio(9000))
    context_mask = torch.zeros(features.shape[:2], dtype=torch.bool)
    context_mask[:, [2, 3, 11, 20]] = True
    packed = encoder.contextualize(features, lengths, context_mask=context_mask, return_layers=True)
    zeroed = features * context_mask[:, :, None]
    full = encoder.contextualize(zeroed, lengths, return_layers=True)
    torch.testing.assert_close(packed.layers[0], full.layers[0][:, [2, 3, 11, 20]])


def test_a_mask_that_shows_everything_changes_nothing():
    encoder = small_encoder("base")
    features, lengths = encoder.extract_features(*audio(9000, 6000))
    plain = encoder.contextualize(features, lengths)
    shown = encoder.contextualize(
        features, lengths, context_mask=torch.ones(features.shape[:2], dtype=torch.bool)
    )
    assert torch.equal(plain.lengths, shown.lengths)
    frames = int(plain.lengths[1])
    torch.testing.assert_close(shown.features[0], plain.features[0])
    torch.testing.assert_close(shown.features[1, :frames], plain.features[1, :frames])


def test_ffn_outputs_are_those_of_every_block_before_the_residual():
    encoder = small_encoder("large")
    features, lengths = encoder.extract_features(*audio(6000))
    output = encoder.contextualize(features, lengths, return_layers=True, return_ffn=True)
    assert len(output.ffn_outputs) == 3 and len(output.layers) == 4
    block, x = encoder.blocks[1], output.layers[1]
    x = x + block.attention(block.attention_norm(x), None)
    torch.testing.assert_close(output.layers[2], x + output.ffn_outputs[1])


def test_layerdrop_skips_blocks_in_training_only():
    encoder = small_encoder("base", layerdrop=1 - 1e-9, dropout=0.0)
    features, lengths = encoder.extract_features(*audio(6000))
    output = encoder.train().contextualize(features, lengths, return_layers=True, return_ffn=True)
    assert all(torch.equal(layer, output.layers[0]) for layer in output.layers)
    assert all(ffn.abs().max() == 0 for ffn in output.ffn_outputs)
    output = encoder.eval().contextualize(features, lengths, return_layers=True)
    assert not torch.equal(output.layers[0], output.layers[1])


def test_the_gradient_into_the_convolutions_is_scaled_and_the_value_is_not():
    outputs, gradients = [], []
    for factor in (1.0, 0.1):
        encoder = small_encoder("base", feature_grad_mult=factor)
        features, _ = encoder.convolve(*audio(6000))
        features.square().sum().backward()
        outputs.append(features.detach())
        gradients.append(encoder.feature_encoder.convolutions[3].weight.grad)
    assert torch.equal(*outputs)
    torch.testing.assert_close(gradients[1], 0.1 * gradients[0])


def test_a_copy_for_a_moving_average_has_the_same_output():
    encoder = small_encoder("base")
    twin = copy.deepcopy(encoder)
    waveform, lengths = audio(6000)
    assert torch.equal(encoder(waveform, lengths).features, twin(waveform, lengths).features)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_say_their_sizes(name):
    with torch.device("meta"):
        encoder = Wav2Vec2(PRESETS[name])
    assert encoder.width == PRESETS[name].width
    assert encoder.num_layers == len(encoder.blocks)
    assert encoder.hop == 320 and encoder.feature_encoder.receptive_field == 400


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="divisible by `num_heads` \\(5\\), but is 768"):
        replace(PRESETS["base"], num_heads=5)
    with pytest.raises(ConfigError, match="one value per convolution, but have 7, 2 and 7"):
        replace(PRESETS["base"], conv_kernels=(10, 3))
    with pytest.raises(ConfigError, match="`conv_strides` must be at least 1, but is 0"):
        replace(PRESETS["base"], conv_strides=(5, 2, 2, 2, 2, 2, 0))
    with pytest.raises(ConfigError, match="`layerdrop` must be at least 0 and below 1, but is 1.5"):
        replace(PRESETS["base"], layerdrop=1.5)
