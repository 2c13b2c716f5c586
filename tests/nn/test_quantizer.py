"""The quantizer picks codebook entries, lets gradients through, and ignores padding."""

from __future__ import annotations

import pytest
import torch

from speechjepa.nn.quantizer import GumbelQuantizer, code_perplexity


def small(**options) -> GumbelQuantizer:
    torch.manual_seed(0)
    return GumbelQuantizer(6, 8, num_codebooks=2, num_codes=5, **options)


def frames() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 9, 6, generator=generator), torch.tensor([9, 4, 1])


def test_vectors_are_the_chosen_entries_of_each_codebook():
    for training in (True, False):
        quantizer = small().train(training)
        features, lengths = frames()
        output = quantizer(features, lengths)
        for frame in range(4):
            first, second = output.codes[1, frame].tolist()
            expected = torch.cat([quantizer.codebooks[0, first], quantizer.codebooks[1, second]])
            assert torch.equal(output.vectors[1, frame], expected)


def test_evaluation_takes_the_most_likely_entry_without_noise():
    quantizer = small().eval()
    features, lengths = frames()
    output = quantizer(features, lengths)
    expected = quantizer.logits(features).view(3, 9, 2, 5).argmax(-1)
    assert torch.equal(output.codes[0], expected[0])
    assert torch.equal(output.codes, quantizer(features, lengths).codes)


def test_training_samples_entries_by_their_probability():
    quantizer = small()
    features = torch.randn(1, 1, 6).expand(1, 20000, 6)
    output = quantizer(features, torch.tensor([20000]))
    counts = torch.bincount(output.codes[0, :, 0], minlength=5) / 20000
    torch.testing.assert_close(counts, output.probabilities[0].detach(), atol=0.02, rtol=0)


def test_gradients_pass_straight_through_to_logits_codebooks_and_features():
    quantizer = small()
    features, lengths = frames()
    features.requires_grad_()
    output = quantizer(features, lengths)
    output.vectors.square().sum().backward()
    assert features.grad[0].abs().min(dim=-1).values.max() > 0
    assert features.grad[1, 4:].abs().max() == 0
    assert quantizer.logits.weight.grad.abs().max() > 0
    used = torch.zeros(2, 5, dtype=torch.bool)
    for b, length in enumerate(lengths.tolist()):
        used[0, output.codes[b, :length, 0]] = True
        used[1, output.codes[b, :length, 1]] = True
    assert torch.equal(quantizer.codebooks.grad.abs().sum(-1) > 0, used)


def test_padding_and_batch_change_nothing():
    quantizer = small().eval()
    features, lengths = frames()
    whole = quantizer(features, lengths)
    features[1, 4:] = torch.nan
    features[2, 1:] = 1e6
    noisy = quantizer(features, lengths)
    torch.testing.assert_close(noisy.probabilities, whole.probabilities)
    assert torch.equal(noisy.vectors, whole.vectors) and torch.equal(noisy.usage, whole.usage)
    alone = quantizer(features[1:2, :4], torch.tensor([4]))
    torch.testing.assert_close(alone.vectors, whole.vectors[1:2, :4])


def test_statistics_weighted_by_count_add_up_over_ranks():
    quantizer = small().eval()
    features, lengths = frames()
    whole = quantizer(features, lengths)
    parts = [quantizer(features[i], lengths[i]) for i in (slice(0, 1), slice(1, 3))]
    total = sum(part.count * part.probabilities for part in parts) / whole.count
    torch.testing.assert_close(total, whole.probabilities)


def test_perplexity_counts_the_entries_in_use():
    assert code_perplexity(torch.tensor([[1.0, 0, 0, 0]])).item() == pytest.approx(1)
    assert code_perplexity(torch.full((1, 4), 0.25)).item() == pytest.approx(4, rel=1e-5)
    quantizer = small().eval()
    with torch.no_grad():
        quantizer.logits.weight.zero_()
    features, lengths = frames()
    assert quantizer(features, lengths).perplexity.item() == pytest.approx(1)


def test_the_temperature_changes_the_gradient_and_not_the_choice():
    features, lengths = frames()
    quantizer = small()
    noise = torch.randn(3, 9, 2, 5, generator=torch.Generator().manual_seed(3))
    valid = torch.arange(9) < lengths[:, None]
    outputs = []
    for temperature in (2.0, 0.5):
        quantizer.zero_grad()
        output = quantizer(features, lengths, temperature=temperature, noise=noise)
        output.vectors.sum().backward()
        outputs.append(output)
        logits = quantizer.logits(features).view(3, 9, 2, 5).detach().requires_grad_()
        soft = torch.softmax((logits + noise) / temperature, dim=-1)
        torch.einsum("btgv,gvc->btgc", soft, quantizer.codebooks.detach())[valid].sum().backward()
        expected = torch.einsum("btn,btf->nf", logits.grad.flatten(2), features)
        torch.testing.assert_close(quantizer.logits.weight.grad, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(outputs[0].codes, outputs[1].codes)
    assert torch.equal(outputs[0].vectors, outputs[1].vectors)


def test_published_shape_has_the_published_number_of_parameters():
    quantizer = GumbelQuantizer(512, 256)
    assert sum(p.numel() for p in quantizer.parameters()) == 512 * 640 + 640 + 640 * 128


def test_uneven_codebooks_are_refused():
    with pytest.raises(
        ValueError, match="must be divisible by `num_codebooks` \\(3\\), but is 256"
    ):
        GumbelQuantizer(6, 256, num_codebooks=3)
