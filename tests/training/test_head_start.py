"""A head learns by itself, on what the encoder gives as it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from speechjepa.data.cache import build_cache
from speechjepa.errors import ConfigError
from speechjepa.models.bundle import Bundle, build_encoder, load_bundle, save_bundle
from speechjepa.models.ctc import CtcModel
from speechjepa.text.normalize import TextConfig
from speechjepa.training import finetune as finetuning
from speechjepa.training import head_start
from speechjepa.training.head_start import train_head
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
    train_head(network, data, 300)
    after = weights(network)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head.weight", "head.bias"}
    assert torch.equal(torch.random.get_rng_state(), randomness)
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert greedy_error_rates(network.eval(), data, 12).cer < 0.5  # of an untrained encoder


def test_it_is_repeatable_and_the_seed_orders_the_batches(data, monkeypatch):
    monkeypatch.setattr(head_start, "BATCH_SECONDS", 3.0)
    found = []
    for seed in (0, 0, 1):
        network = model(data)
        train_head(network, data, 5, seed=seed)
        found.append(network.head.weight.detach().clone())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_of_much_audio_an_even_sample_is_heard(data, monkeypatch):
    seconds = float(data.items.lengths.sum()) / 16000
    monkeypatch.setattr(head_start, "MOST_SECONDS", seconds / 3)
    features, token_ids = head_start._frames(model(data), data)
    assert [ids.tolist() for ids in token_ids] == [ids.tolist() for ids in data.token_ids[::3]]
    assert len(features) == 4


def counted(monkeypatch):
    calls = []

    def train(network, data, steps, *, seed=0):
        calls.append((steps, seed))
        train_head(network, data, min(steps, 3), seed=seed)

    monkeypatch.setattr(finetuning, "train_head", train)
    return calls


def test_it_comes_first_where_the_encoder_was_trained_and_once_in_a_run(tmp_path, monkeypatch):
    calls = counted(monkeypatch)
    run(tmp_path, CONFIG, "fresh")
    assert calls == []  # of fresh weights there is nothing to learn from
    start = save_bundle(Bundle(encoder=build_encoder(SMALL)), tmp_path / "start")
    run(tmp_path, replace(CONFIG, seed=5), "pretrained", init=start)
    assert calls == [(1000, 5)]
    run(tmp_path, replace(CONFIG, head_steps=0), "without", init=start)
    assert len(calls) == 1
    killed_run(tmp_path, monkeypatch, replace(CONFIG, head_steps=7))
    run(tmp_path, replace(CONFIG, head_steps=7), "parts", dev=[])
    assert calls[1:] == [(7, 0)]


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
