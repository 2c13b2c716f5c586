"""Fine-tuning as a user gets it: it learns, it can be interrupted, it names what it leaves out."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from speechjepa.data.batches import Batch
from speechjepa.errors import CollapseError, DataError
from speechjepa.models.bundle import Bundle, build_encoder, load_bundle, save_bundle
from speechjepa.models.ctc import CtcModel
from speechjepa.text.normalize import TextConfig
from speechjepa.text.vocabulary import Vocabulary
from speechjepa.training import finetune as finetuning
from speechjepa.training import head_module
from speechjepa.training.config import FinetuneConfig
from speechjepa.training.doctor import CtcDoctor
from speechjepa.training.schedule import Budget
from tests.training.corpus import SMALL, make_corpus

CONFIG = FinetuneConfig(
    max_steps=6,
    batch_seconds=6.0,
    precision="float32",
    accelerator="cpu",
    evaluate_every=3,
    dropout=0.0,
    drop_path=0.0,
    head_steps=0,
)


def run(tmp_path: Path, config: FinetuneConfig, name: str = "run", **options: Any) -> Path:
    train = options.pop("train", None) or make_corpus(tmp_path / "audio")
    dev = options.pop("dev", train[:4])
    options.setdefault("encoder", SMALL)
    return finetuning.finetune(
        config,
        train,
        dev,
        tmp_path / name,
        text=TextConfig(),
        cache_dir=tmp_path / "cache",
        **options,
    )


def findings(run_dir: Path) -> dict[str, str]:
    lines = (run_dir / "doctor.jsonl").read_text().splitlines()
    return {entry["code"]: entry["message"] for entry in map(json.loads, lines)}


def test_it_learns_to_spell_tones(tmp_path):
    config = replace(
        CONFIG,
        max_steps=250,
        evaluate_every=50,
        learning_rate=3e-3,
        batch_seconds=20.0,
        mask_prob=0.0,
        mask_channel_prob=0.0,
        speed_perturbation=0.0,
        head_learning_rate_factor=2.0,
    )
    bundle = load_bundle(run(tmp_path, config))
    assert bundle.results["dev_while_training"]["cer"] < 0.3
    assert bundle.vocabulary.to_list() == ["<blank>", "|", "a", "b", "c"]
    assert bundle.languages == ("xx",)


def killed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: FinetuneConfig) -> None:
    """Leave a run in `parts` as Ctrl-C after four steps leaves it."""
    step = finetuning.FinetuneModule.training_step

    def killed(self, batch, index):
        if self.global_step == 4:
            raise KeyboardInterrupt
        return step(self, batch, index)

    with monkeypatch.context() as patched:
        patched.setattr(finetuning.FinetuneModule, "training_step", killed)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run(tmp_path, config, "parts", dev=[])  # the last state is kept, not an earlier one


@pytest.mark.parametrize(("average_decay", "dropout"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.3)])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    tmp_path, monkeypatch, average_decay, dropout
):
    config = replace(CONFIG, average_decay=average_decay, dropout=dropout, drop_path=dropout)
    run(tmp_path, config, "whole", dev=[])
    killed_run(tmp_path, monkeypatch, config)
    bundle = run(tmp_path, config, "parts", dev=[])
    whole = load_bundle(tmp_path / "whole" / "bundle").ctc.state_dict()
    for name, tensor in load_bundle(bundle).ctc.state_dict().items():
        assert torch.allclose(tensor, whole[name], atol=1e-6), name


def test_the_average_of_the_weights_is_what_is_kept(tmp_path, monkeypatch):
    biases = []
    end_step = finetuning.FinetuneModule.end_step

    def end(self):
        biases.append(self.model.head.bias.detach().clone())
        end_step(self)

    monkeypatch.setattr(finetuning.FinetuneModule, "end_step", end)
    monkeypatch.setattr(finetuning, "level_blank", lambda model, data: None)
    config = replace(CONFIG, max_steps=3, average_decay=0.25)
    kept = load_bundle(run(tmp_path, config, dev=[])).ctc.head.bias
    # Decays: (1 + t) / (10 + t) before step t, at most 0.25. The head begins with biases of 0, as
    # its blank is not levelled.
    wanted = 0.9 * biases[0]
    wanted = 2 / 11 * wanted + 9 / 11 * biases[1]
    wanted = 0.25 * wanted + 0.75 * biases[2]
    assert torch.allclose(kept, wanted, atol=1e-6)
    assert not torch.allclose(kept, biases[-1], atol=1e-5)


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.5), (0.5, 0.0)])
def test_a_run_goes_on_with_an_average_that_it_began_without_and_the_other_way(
    tmp_path, monkeypatch, before, after
):
    killed_run(tmp_path, monkeypatch, replace(CONFIG, average_decay=before))
    config = replace(CONFIG, average_decay=after)
    bundle = load_bundle(run(tmp_path, config, "parts", dev=[]))
    assert bundle.training["finetune"]["steps"] == 6


@pytest.fixture
def pretrained(tmp_path) -> Path:
    torch.manual_seed(0)
    return save_bundle(Bundle(encoder=build_encoder(SMALL)), tmp_path / "pretrained")


def test_a_frozen_encoder_stays_as_it_was_and_the_head_does_not(tmp_path, pretrained):
    config = replace(CONFIG, freeze_encoder=True)
    tuned = load_bundle(run(tmp_path, config, encoder=None, init=pretrained))
    before = load_bundle(pretrained).encoder.state_dict()
    after = tuned.encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert bool(tuned.ctc.head.bias.detach().any())


def test_a_frozen_front_end_stays_as_pretrained_and_the_blocks_learn(tmp_path, pretrained):
    config = replace(CONFIG, freeze_feature_encoder=True)
    tuned = load_bundle(run(tmp_path, config, encoder=None, init=pretrained)).encoder
    before = load_bundle(pretrained).encoder.state_dict()
    same = {n for n, tensor in tuned.state_dict().items() if torch.equal(before[n], tensor)}
    assert {n for n in before if n.startswith("feature_encoder")} <= same
    assert "blocks.0.ffn_in.weight" not in same


def test_an_utterance_whose_label_does_not_fit_is_named_and_left_out(tmp_path):
    train = make_corpus(tmp_path / "audio")
    train[2] = replace(train[2], text="abc" * 100, source="metadata.jsonl:3")
    run(tmp_path, replace(CONFIG, max_steps=1), train=train)
    message = findings(tmp_path / "run")["label_longer_than_frames"]
    assert message.startswith("metadata.jsonl:3: 002 is left out")
    assert "300 frames" in message


def test_without_dev_data_the_last_step_is_kept(tmp_path):
    bundle = load_bundle(run(tmp_path, CONFIG, dev=[]))
    assert bundle.results["dev_while_training"] == {"cer": None, "wer": None, "step": 6}


def test_unlabelled_training_data_is_an_error_before_training(tmp_path):
    train = [replace(u, text=None) for u in make_corpus(tmp_path / "audio")]
    with pytest.raises(DataError, match="none of the 12 training utterances has a transcript"):
        run(tmp_path, CONFIG, train=train)


def make_module(config: FinetuneConfig) -> finetuning.FinetuneModule:
    model = CtcModel(build_encoder(SMALL), vocabulary_size=5)
    return finetuning.FinetuneModule(model, None, None, config, Budget(10, None), None)


def test_the_head_learns_fastest_and_each_block_slower_than_the_one_above():
    config = FinetuneConfig(learning_rate=1e-3, head_learning_rate_factor=8.0, layer_decay=0.5)
    module = make_module(config)
    peaks = {
        id(parameter): group["peak"]
        for group in module.configure_optimizers().param_groups
        for parameter in group["params"]
    }
    encoder = module.encoder
    assert peaks[id(module.model.head.weight)] == pytest.approx(8e-3)
    assert {peaks[id(p)] for p in encoder.blocks[1].parameters()} == {1e-3}  # the top block
    assert {peaks[id(p)] for p in encoder.blocks[0].parameters()} == {5e-4}
    assert {peaks[id(p)] for p in encoder.feature_encoder.parameters()} == {2.5e-4}


def test_the_encoder_is_frozen_for_its_share_of_the_run_and_then_released(
    tmp_path, pretrained, monkeypatch
):
    before = load_bundle(pretrained).encoder.state_dict()
    moved = {}
    step = finetuning.FinetuneModule.training_step

    def watched(self, batch, index):
        now = self.encoder.state_dict()
        moved[self.global_step] = any(not torch.equal(before[n], now[n]) for n in before)
        return step(self, batch, index)

    monkeypatch.setattr(finetuning.FinetuneModule, "training_step", watched)
    # Tri-stage from 0: the first step after the release moves the weights already.
    config = replace(CONFIG, freeze_finetune_updates=0.5)
    run(tmp_path, config, encoder=None, init=pretrained)
    assert moved == {0: False, 1: False, 2: False, 3: False, 4: True, 5: True}


def test_the_state_with_the_lowest_dev_error_is_kept(tmp_path, monkeypatch):
    errors = iter([0.9, 0.2, 0.6])
    seen = []

    def measure(self, data):
        seen.append({n: t.clone() for n, t in self.model.state_dict().items()})
        error = next(errors)
        return SimpleNamespace(cer=error, wer=error)

    monkeypatch.setattr(finetuning.FinetuneModule, "measure", measure)
    bundle = load_bundle(run(tmp_path, replace(CONFIG, evaluate_every=2)))
    assert bundle.results["dev_while_training"] == {"cer": 0.2, "wer": 0.2, "step": 4}
    assert all(torch.equal(seen[1][n], t) for n, t in bundle.ctc.state_dict().items())


def test_it_stops_early_when_dev_no_longer_improves(tmp_path, monkeypatch):
    rates = SimpleNamespace(cer=0.5, wer=0.5)
    monkeypatch.setattr(finetuning.FinetuneModule, "measure", lambda self, data: rates)
    run(tmp_path, replace(CONFIG, max_steps=50, evaluate_every=1, patience=2))
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert rows[-1].split(",")[0] == "3"  # best at 1, then two readings that are no better


def test_logits_and_loss_are_float32_under_bfloat16():
    unmasked = replace(CONFIG, mask_prob=0.0, mask_channel_prob=0.0)
    module = make_module(replace(unmasked, learning_rate=1e-3, freeze_finetune_updates=0.0))
    module.precision_name = "bfloat16"
    vocabulary = Vocabulary(["<blank>", "|", "a", "b", "c"])
    module.train_data = SimpleNamespace(token_ids=[torch.tensor([1, 2])], vocabulary=vocabulary)
    waveform = 0.1 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    zero = torch.zeros(1, dtype=torch.long)
    batch = Batch(waveform, torch.tensor([16000]), zero, zero)
    loss, logits, _ = module.losses(batch)
    assert (loss.dtype, logits.dtype) == (torch.float32, torch.float32)


def test_an_evaluation_that_was_interrupted_is_made_up_for(tmp_path, monkeypatch):
    measure = finetuning.FinetuneModule.measure

    def interrupted(self, data):
        raise KeyboardInterrupt

    monkeypatch.setattr(finetuning.FinetuneModule, "measure", interrupted)
    before = signal.getsignal(signal.SIGINT)  # a job in the background ignores it already
    with pytest.raises(KeyboardInterrupt):  # not Lightning's SystemExit
        run(tmp_path, CONFIG)
    assert signal.getsignal(signal.SIGINT) is before
    steps = []
    monkeypatch.setattr(
        finetuning.FinetuneModule,
        "measure",
        lambda self, data: (steps.append(self.global_step), measure(self, data))[1],
    )
    run(tmp_path, CONFIG)
    assert steps == [3, 6]


def test_a_run_without_dev_that_was_stopped_goes_on_with_one(tmp_path, monkeypatch):
    killed_run(tmp_path, monkeypatch, CONFIG)  # one evaluation, of step 3, is behind it
    chosen = load_bundle(run(tmp_path, CONFIG, "parts")).results["dev_while_training"]
    assert chosen["step"] == 6
    assert chosen["cer"] >= 0.0


def test_a_batch_begun_when_the_run_was_stopped_is_seen_again(tmp_path, monkeypatch):
    config = replace(CONFIG, accumulate=2, batch_seconds=2.0)
    seen = []
    step = finetuning.FinetuneModule.training_step

    def watched(self, batch, index):
        loss = step(self, batch, index)
        if stop_at == len(seen):
            raise KeyboardInterrupt  # as in the backward pass, after the batch was counted
        seen.append(batch.items.tolist())
        return loss

    monkeypatch.setattr(finetuning.FinetuneModule, "training_step", watched)
    stop_at = None
    run(tmp_path, config, "whole")
    whole, seen, stop_at = seen, [], 4
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, config, "parts")
    stop_at = None
    run(tmp_path, config, "parts")
    assert len(whole) == 12
    assert seen == whole


def test_an_utterance_longer_than_a_batch_is_a_batch_by_itself(tmp_path):
    bundle = run(tmp_path, replace(CONFIG, batch_seconds=0.5, max_steps=2))
    assert bundle.exists()


def test_the_doctors_findings_survive_a_resume_and_are_not_repeated(tmp_path):
    path = tmp_path / "doctor.jsonl"
    doctor = CtcDoctor(path)
    doctor.heard(5, "cer", 1.5)
    doctor.heard(9, "cer", 1.5)
    resumed = CtcDoctor(path, resume_step=7)
    resumed.heard(8, "cer", 1.5)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [5]
    CtcDoctor(path)
    assert path.read_text() == ""


def test_the_step_by_which_the_precision_is_chosen_trains_the_encoder_too():
    module = make_module(replace(CONFIG, learning_rate=1e-3, freeze_finetune_updates=0.5))
    vocabulary = Vocabulary(["<blank>", "|", "a", "b", "c"])
    module.train_data = SimpleNamespace(token_ids=[torch.tensor([1, 2])], vocabulary=vocabulary)
    zero = torch.zeros(1, dtype=torch.long)
    module.whole_loss(Batch(torch.randn(1, 16000), torch.tensor([16000]), zero, zero)).backward()
    assert module.progress == 0.0
    assert all(p.grad is not None for p in module.encoder.blocks.parameters())


def diverging(monkeypatch, after: int) -> None:
    step = finetuning.FinetuneModule.optimizer_step

    def ruined(self, *args, **kwargs):
        step(self, *args, **kwargs)
        if self.global_step == after:
            self.encoder.blocks[0].ffn_in.weight.data.fill_(float("nan"))

    monkeypatch.setattr(finetuning.FinetuneModule, "optimizer_step", ruined)


def test_a_run_that_diverges_ends_with_the_best_state_before_that(tmp_path, monkeypatch):
    diverging(monkeypatch, after=4)
    config = replace(CONFIG, max_steps=100, evaluate_every=2)
    with pytest.raises(CollapseError, match=r"at step 9 the loss is nan.*of step [24], is kept"):
        run(tmp_path, config)
    bundle = load_bundle(tmp_path / "run" / "bundle")
    assert bundle.results["dev_while_training"]["step"] in (2, 4)
    assert all(bool(p.isfinite().all()) for p in bundle.ctc.parameters())
    assert "loss_not_finite" in findings(tmp_path / "run")


@pytest.mark.parametrize("with_dev", [True, False])
def test_weights_without_a_finite_loss_never_become_the_bundle(tmp_path, monkeypatch, with_dev):
    diverging(monkeypatch, after=2)
    with pytest.raises(CollapseError, match="Lower finetune.learning_rate"):
        run(tmp_path, CONFIG, **({} if with_dev else {"dev": []}))
    assert not (tmp_path / "run" / "bundle").exists()


def test_a_bundle_that_cannot_be_written_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(head_module, "CHECKPOINT_MINUTES", 1e-6)
    with monkeypatch.context() as patched:
        patched.setattr(finetuning, "save_bundle", full)
        with pytest.raises(OSError, match="No space"):
            run(tmp_path, CONFIG)
    steps = []
    step = finetuning.FinetuneModule.training_step

    def counted(self, batch, index):
        steps.append(self.global_step)
        return step(self, batch, index)

    monkeypatch.setattr(finetuning.FinetuneModule, "training_step", counted)
    assert load_bundle(run(tmp_path, CONFIG)).training["finetune"]["steps"] == 6
    assert steps == []
    assert not list((tmp_path / "run" / "checkpoints").glob("last*"))
