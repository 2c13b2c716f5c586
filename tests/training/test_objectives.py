"""Every pretraining objective: no leaks, no gradient into a teacher, gradient everywhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from speechjepa.data.batches import Batch
from speechjepa.models.bundle import build_encoder
from speechjepa.models.speech_encoder import SpeechEncoderConfig
from speechjepa.models.wav2vec2 import Wav2Vec2Config
from speechjepa.objectives.regularizers import vicreg
from speechjepa.training import objectives
from speechjepa.training.config import (
    ContrastiveConfig,
    JepaConfig,
    PretrainConfig,
    ReconstructConfig,
)

# No statistics over the whole utterance, through which hidden frames would reach visible ones.
NATIVE = SpeechEncoderConfig(
    width=32, num_layers=2, num_heads=2, ffn_width=64, kernel_size=5, normalization="global"
)
WAV2VEC2 = Wav2Vec2Config(
    conv_widths=(16,) * 7,
    conv_norm="layer",
    width=32,
    num_layers=2,
    num_heads=2,
    ffn_width=64,
    position_kernel=8,
    position_groups=4,
    normalize_waveform=False,
    dropout=0.0,
    attention_dropout=0.0,
    input_dropout=0.0,
    layerdrop=0.0,
    feature_grad_mult=1.0,
)
ENCODERS = {"native": NATIVE, "wav2vec2": WAV2VEC2}
JEPA = JepaConfig(
    num_masks=1,
    mask_length_seconds=0.4,
    average_top_k_layers=2,
    predictor_width=16,
    projection_width=8,
    context_std_weight=0.0,
    context_cov_weight=0.0,
    anchor_weight=0.0,
)
CONFIGS = {
    "jepa": PretrainConfig(jepa=JEPA),
    "anchored": PretrainConfig(jepa=replace(JEPA, anchor_weight=1.0, anchor_clusters=4)),
    "apart": PretrainConfig(jepa=replace(JEPA, context_std_weight=1.0, context_cov_weight=0.04)),
    "sigreg": PretrainConfig(jepa=replace(JEPA, regularizer="sigreg")),
    "vicreg": PretrainConfig(jepa=replace(JEPA, regularizer="vicreg")),
    "contrastive": PretrainConfig(
        objective="contrastive",
        contrastive=ContrastiveConfig(
            mask_length_seconds=0.4, num_negatives=10, num_codes=8, output_width=16
        ),
    ),
    "reconstruct": PretrainConfig(
        objective="reconstruct",
        reconstruct=ReconstructConfig(num_masks=1, mask_length_seconds=0.4, predictor_width=16),
    ),
}
TAUGHT = ("jepa", "anchored", "apart")
"""Those with an EMA teacher."""


def tones(num_samples: int, generator: torch.Generator) -> torch.Tensor:
    """Return tones of 80 ms, each of its own pitch and loudness, in a little noise."""
    number = num_samples // 1280 + 1
    hertz = 200 * 2 ** (4 * torch.rand(number, generator=generator)).repeat_interleave(1280)
    loudness = torch.rand(number, generator=generator).repeat_interleave(1280)
    phase = torch.cumsum(2 * torch.pi * hertz / 16000, dim=0)
    noise = 0.01 * torch.randn(len(phase), generator=generator)
    return (0.5 * loudness * phase.sin() + noise)[:num_samples]


def make_batch(*seconds: float, padding: float = 0.0) -> Batch:
    generator = torch.Generator().manual_seed(1)
    waveforms = [tones(int(s * 16000), generator) for s in seconds]
    lengths = torch.tensor([len(w) for w in waveforms])
    padded = torch.full((len(seconds), int(lengths.max()) + int(padding * 16000)), 0.7)
    for row, waveform in enumerate(waveforms):
        padded[row, : len(waveform)] = waveform
    return Batch(padded, lengths, torch.arange(len(seconds)), torch.arange(len(seconds)) + 5)


def build(name: str, encoder: str) -> objectives.Objective:
    torch.manual_seed(0)
    built = objectives.build_objective(build_encoder(ENCODERS[encoder]), CONFIGS[name])
    built.fit(list(make_batch(1.0, 1.2).waveform), 0)
    return built


each_objective = pytest.mark.parametrize("name", CONFIGS)
each_encoder = pytest.mark.parametrize("encoder", ENCODERS)


@each_encoder
@each_objective
@torch.no_grad()
def test_what_is_hidden_never_reaches_a_prediction(name, encoder):
    built = build(name, encoder).eval()
    batch, hop = make_batch(3.0), built.model.encoder.hop
    config = built.config
    (hidden,) = objectives.draw_masks(
        batch,
        built.model.encoder.output_lengths(batch.lengths),
        hop,
        config.mask_prob,
        config.mask_length_seconds,
    )
    # Samples that no visible frame's window touches.
    deep = ~functional.max_pool1d((~hidden).float()[None], 5, 1, 2)[0].bool()
    samples = deep.repeat_interleave(hop)
    samples = functional.pad(samples, (0, batch.waveform.shape[1] - len(samples)))
    assert 0.1 < samples.float().mean() < 0.9
    loud = torch.where(samples, torch.randn(len(samples)), batch.waveform)
    before = built(batch, 0.5)
    after = built(replace(batch, waveform=loud), 0.5)
    assert not torch.allclose(before.targets, after.targets, atol=1e-2)
    torch.testing.assert_close(after.predictions, before.predictions)
    if name in (*TAUGHT, "reconstruct"):  # elsewhere the whole view is monitored
        torch.testing.assert_close(after.representation, before.representation)


@each_encoder
@each_objective
def test_gradient_reaches_all_that_trains_and_no_teacher(name, encoder):
    built = build(name, encoder).train()
    built(make_batch(2.0, 1.5), 0.5).total.backward()
    for key, parameter in built.named_parameters():
        if not parameter.requires_grad:
            assert key.startswith("target_encoder.") and parameter.grad is None
        elif key == "model.encoder.mask_embedding" and name != "contrastive":
            assert parameter.grad is None  # hidden frames are dropped, nothing stands for them
        else:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key
    has_teacher = any(key.startswith("target_encoder.") for key, _ in built.named_parameters())
    assert has_teacher == (name in TAUGHT)


def test_a_teachers_targets_carry_no_gradient_and_are_those_of_its_evaluation_mode():
    built = build("jepa", "native").train()
    batch = make_batch(2.0)
    targets = built._taught_targets(batch)
    assert not targets.requires_grad
    assert not built.target_encoder.training
    torch.testing.assert_close(targets, built._taught_targets(batch))


def test_channels_of_the_context_are_held_apart_where_that_has_weight():
    batch = make_batch(2.0)
    free = build("jepa", "native").train()
    held = build("apart", "native").train()
    held.load_state_dict(free.state_dict())
    alone, together = free(batch, 0.5), held(batch, 0.5)
    assert set(alone.parts) == {"prediction"}
    terms = vicreg(alone.representation)
    assert terms.covariance > 0.1
    assert (together.total - alone.total).item() == pytest.approx(
        (1.0 * terms.variance + 0.04 * terms.covariance).item(), rel=1e-4
    )


@each_encoder
@each_objective
def test_padding_does_not_change_the_loss(name, encoder):
    built = build(name, encoder).train()
    plain = built(make_batch(2.0, 1.5), 0.5)
    padded = built(make_batch(2.0, 1.5, padding=0.9), 0.5)
    assert padded.total.item() == pytest.approx(plain.total.item(), rel=1e-4)
    for part, value in plain.parts.items():
        assert padded.parts[part].item() == pytest.approx(value.item(), rel=1e-4), part


@each_objective
def test_the_loss_depends_on_keys_and_not_on_the_global_seed(name):
    built = build(name, "native").train()
    batch = make_batch(2.0, 1.5)
    torch.manual_seed(3)
    first = built(batch, 0.5).total
    torch.manual_seed(4)
    assert torch.equal(built(batch, 0.5).total, first)
    other = built(replace(batch, keys=batch.keys + 100), 0.5).total
    assert not torch.equal(other, first)


def test_sigreg_looks_from_new_directions_at_each_step():
    built = build("sigreg", "native").train()
    batch = make_batch(1.0)
    values = [built(batch, 0.5, step).parts["sigreg"].item() for step in (1, 2, 1)]
    assert values[0] != values[1] and values[0] == values[2]


def test_wav2vec2_is_quantized_and_penalised_as_published():
    built = build("contrastive", "wav2vec2").train()
    encoder, batch = built.model.encoder, make_batch(2.0)
    assert built.model.mask_embedding is encoder.mask_embedding
    raw, lengths = encoder.convolve(batch.waveform, batch.lengths)
    found = encoder.front_end(batch.waveform, batch.lengths)
    assert built.model.quantizer.logits.in_features == raw.shape[2] == 16
    torch.testing.assert_close(found.quantizer_input, encoder.feature_norm(raw))
    torch.testing.assert_close(found.convolved, raw)
    projected = encoder.feature_projection(encoder.feature_norm(raw))
    torch.testing.assert_close(found.features, projected)
    output = built(batch, 0.5)
    penalty = raw[:, : int(lengths)].square().mean()
    torch.testing.assert_close(output.parts["feature_penalty"], penalty.detach())
    parts, config = output.parts, built.config
    expected = (
        parts["contrastive"]
        + config.diversity_weight * parts["diversity"]
        + config.feature_penalty * parts["feature_penalty"]
    )
    torch.testing.assert_close(output.total.detach(), expected)


def test_hidden_frames_hold_the_mask_embedding(monkeypatch):
    built = build("contrastive", "wav2vec2").eval()
    encoder, batch = built.model.encoder, make_batch(2.0)
    seen = []
    contextualize = encoder.contextualize
    monkeypatch.setattr(
        encoder, "contextualize", lambda x, lengths: (seen.append(x), contextualize(x, lengths))[1]
    )
    features, _ = encoder.extract_features(batch.waveform, batch.lengths)
    built(batch, 0.5)
    replaced = (seen[0] == encoder.mask_embedding).all(dim=-1)
    assert 0.2 < replaced.float().mean() < 0.8
    assert torch.equal(seen[0][~replaced], features[~replaced])


def test_log_mel_features_are_not_penalised():
    output = build("contrastive", "native")(make_batch(2.0), 0.5)
    assert set(output.parts) == {"contrastive", "diversity"}


@each_encoder
def test_twenty_contrastive_steps_lower_the_loss_without_collapsing_the_codes(encoder):
    built = build("contrastive", encoder).train()
    batch = make_batch(2.0, 1.5, 1.8, 1.2)
    optimizer = torch.optim.AdamW(built.parameters(), lr=1e-3)
    first = built(batch, 0.0)
    for step in range(20):
        output = built(batch, step / 20, step)
        optimizer.zero_grad()
        output.total.backward()
        optimizer.step()
    last = built(batch, 0.0)
    assert last.parts["contrastive"] < 0.95 * first.parts["contrastive"]
    assert last.extra["code_perplexity"] > 2.0  # of 8; 1 = collapsed


def test_the_teacher_follows_the_student():
    built = build("jepa", "native").train()
    with torch.no_grad():
        for parameter in built.model.encoder.parameters():
            parameter.add_(1.0)
    before = [p.clone() for p in built.target_encoder.parameters()]
    built.after_step(0.0)
    for old, new in zip(before, built.target_encoder.parameters(), strict=True):
        torch.testing.assert_close(new, old + (1 - JEPA.ema_decay), atol=1e-4, rtol=1e-4)
