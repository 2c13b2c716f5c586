"""A head learns by itself, on what the encoder gives as it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from speechjepa.data.cache import build_cache
from speechjepa.errors import CollapseError, ConfigError
from speechjepa.models.bundle import Bundle, build_encoder, load_bundle, save_bundle
from speechjepa.models.ctc import CtcModel
from speechjepa.text.normalize import TextConfig
from speechjepa.training import finetune as finetuning
from speechjepa.training import head_start
from speechjepa.training.head_start import level_blank, train_head
from speechjepa.training.labelled import LabelledItems, greedy_error_rates
from speechjepa.training.translation_config import TranslateConfig
from tests.training.corpus import SMALL, make_corpus
from tests.training.test_finetune import CONFIG, killed_run, run


@pytest.fixture
def data(tmp_path):
    return LabelledItems(build_cache(make_corpus(tmp_path / "a"), tmp_path / "c"), TextConfig())


def model(data):
    torch.manual_seed(0)
    return CtcModel(build_encoder(SMALL), len(data.vocabulary), upsample=2).train()


def weights(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_the_head_learns_to_spell_and_nothing_else_changes(data):
    network = model(data)
    before, randomness = weights(network), torch.random.get_rng_state()
    train_head(network, data, 1000)
    after = weights(network)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head.weight", "head.bias"}
    assert torch.equal(torch.random.get_rng_state(), randomness)
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert greedy_error_rates(network.eval(), data, 12).cer < 0.6  # of an untrained encoder


def test_it_is_repeatable_and_the_seed_orders_the_batches(data, monkeypatch):
    monkeypatch.setattr(head_start, "BATCH_SECONDS", 3.0)
    found = []
    for seed in (0, 0, 1):
        network = model(data)
        train_head(network, data, 5, seed=seed)
        found.append(network.head.weight.detach().clone())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_the_head_hears_frames_of_which_a_part_is_dropped(data, monkeypatch):
    network, heard = model(data), []
    logits = network.head_logits
    monkeypatch.setattr(network, "head_logits", lambda x: heard.append(x) or logits(x))
    train_head(network, data, 2)
    whole = torch.cat(head_start.encode_items(network.encoder, data.items, list(range(12))))
    present = [float((x != 0).sum()) / whole.numel() for x in heard]
    assert present == pytest.approx([0.7, 0.7], abs=0.02)
    assert not torch.equal(heard[0] != 0, heard[1] != 0)  # another part in each step
    size = float(heard[0].abs().sum()) / whole.numel()
    assert size == pytest.approx(float(whole.abs().mean()), rel=0.05)


def test_a_new_heads_blank_is_as_likely_as_transcripts_leave_frames_without_a_symbol(data):
    network = model(data)
    torch.nn.init.zeros_(network.head.weight)
    level_blank(network, data)
    frames = int(network.output_lengths(torch.tensor(data.items.lengths)).sum())
    symbols = sum(len(ids) for ids in data.token_ids)
    probabilities = network.head_logits(torch.zeros(1, 1, 32)).softmax(dim=-1)[0]  # (2, V)
    other = symbols / frames / (len(data.vocabulary) - 1)
    expected = torch.tensor([1 - symbols / frames, *[other] * (len(data.vocabulary) - 1)])
    torch.testing.assert_close(probabilities, expected.expand(2, -1))


def test_where_symbols_fill_the_frames_a_blank_is_as_likely_as_any(data):
    network = model(data)
    frames = network.output_lengths(torch.tensor(data.items.lengths)).tolist()
    data.token_ids[:] = [torch.ones(number, dtype=torch.long) for number in frames]
    level_blank(network, data)
    torch.testing.assert_close(network.head.bias, torch.zeros_like(network.head.bias))


def test_a_head_that_knows_some_of_its_symbols_keeps_its_blank(tmp_path, monkeypatch):
    levelled = []
    monkeypatch.setattr(finetuning, "level_blank", lambda model, data: levelled.append(data))
    tuned = run(tmp_path, CONFIG, "fresh")
    assert len(levelled) == 1
    run(tmp_path, CONFIG, "another_round", init=tuned)
    spelt = make_corpus(tmp_path / "spelt")
    spelt = [replace(u, text=(u.text or "").replace("c", "d")) for u in spelt]  # a and b are known
    run(tmp_path, CONFIG, "another_spelling", init=tuned, train=spelt)
    assert len(levelled) == 1
    run(tmp_path, replace(CONFIG, inherit_head=False), "anew", init=tuned)
    assert len(levelled) == 2


def test_labels_that_are_left_out_do_not_count(tmp_path, monkeypatch):
    levelled = []
    monkeypatch.setattr(
        finetuning, "level_blank", lambda model, data: levelled.append(list(data.texts))
    )
    utterances = make_corpus(tmp_path / "a")
    utterances[0] = replace(utterances[0], text="a" * 1000)
    run(tmp_path, CONFIG, "run", train=utterances)
    assert len(levelled[0]) == len(utterances) - 1


def test_of_much_audio_a_part_is_heard_that_the_seed_draws(data, monkeypatch):
    lengths = data.items.lengths
    assert sorted(head_start._sample(lengths, 0)) == list(range(12))
    monkeypatch.setattr(head_start, "MOST_SECONDS", float(lengths[0]) / 16000 * 4.5)
    drawn = [head_start._sample(lengths, seed) for seed in (0, 0, 1)]
    assert [len(set(items)) for items in drawn] == [4, 4, 4]
    assert drawn[0] == drawn[1] != drawn[2]
    monkeypatch.setattr(head_start, "MOST_SECONDS", 0.1)
    assert len(head_start._sample(lengths, 0)) == 1


def test_an_encoder_whose_weights_are_broken_is_said_to_be(data):
    network = model(data)
    network.encoder.blocks[0].ffn_in.weight.data.fill_(float("nan"))
    with pytest.raises(CollapseError, match="start from another model"):
        train_head(network, data, 1)


def counted(monkeypatch):
    calls = []

    def train(network, data, steps, *, seed=0):
        calls.append((steps, seed))
        train_head(network, data, min(steps, 3), seed=seed)

    monkeypatch.setattr(finetuning, "train_head", train)
    return calls


def test_it_comes_first_where_the_encoder_was_trained_and_once_in_a_run(tmp_path, monkeypatch):
    calls = counted(monkeypatch)
    chosen = replace(CONFIG, head_steps=None)
    run(tmp_path, chosen, "fresh")
    assert calls == []  # of fresh weights there is nothing to learn from
    start = save_bundle(Bundle(encoder=build_encoder(SMALL)), tmp_path / "start")
    tuned = run(tmp_path, replace(chosen, seed=5), "pretrained", init=start)
    assert calls == [(1000, 5)]
    run(tmp_path, chosen, "another_round", init=tuned)  # the head knows all that it could learn
    assert len(calls) == 1
    run(tmp_path, replace(chosen, inherit_head=False), "anew", init=tuned)
    assert len(calls) == 2
    run(tmp_path, replace(chosen, upsample=3), "other_shape", init=tuned)  # its head is fresh
    assert len(calls) == 3
    monkeypatch.setattr(
        finetuning, "MOST_WEIGHTS", 32 * 5 - 1
    )  # D V of SMALL and blank, |, a, b, c
    run(tmp_path, chosen, "huge", init=start)
    assert len(calls) == 3
    killed_run(tmp_path, monkeypatch, replace(CONFIG, head_steps=7))
    run(tmp_path, replace(CONFIG, head_steps=7), "parts", dev=[])
    assert calls[3:] == [(7, 0)]


def test_the_average_begins_with_the_head_that_was_trained(tmp_path, monkeypatch):
    counted(monkeypatch)
    heads = []

    def begin(self):
        heads.append((self.model.head.weight.clone(), self.average.head.weight.clone()))

    monkeypatch.setattr(finetuning.FinetuneModule, "on_train_start", begin)
    config = replace(CONFIG, head_steps=3, average_decay=0.9, max_steps=1)
    bundle = run(tmp_path, config, dev=[])
    assert load_bundle(bundle).training["finetune"]["finetune"]["head_steps"] == 3
    assert torch.equal(*heads[0])


def test_a_translator_says_that_it_has_no_such_head():
    with pytest.raises(ConfigError, match="`head_steps` has no meaning for a translator"):
        TranslateConfig(head_steps=5)
