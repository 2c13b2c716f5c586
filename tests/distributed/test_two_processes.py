"""Two processes that share a batch train as one process does on the whole of it."""

from __future__ import annotations

import copy
import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from speechjepa.data.batches import Batch
from speechjepa.errors import CollapseError
from speechjepa.models.bundle import build_encoder, load_bundle
from speechjepa.models.future import FutureConfig
from speechjepa.models.speech_encoder import SpeechEncoderConfig
from speechjepa.models.wav2vec2 import Wav2Vec2Config
from speechjepa.training.config import (
    CollapseConfig,
    ContrastiveConfig,
    JepaConfig,
    PretrainConfig,
    ReconstructConfig,
)
from speechjepa.training.objectives import build_objective
from speechjepa.training.processes import pick_strategy

NATIVE = SpeechEncoderConfig(width=32, num_layers=2, num_heads=2, ffn_width=64, kernel_size=5)
WAV2VEC2 = Wav2Vec2Config(
    conv_widths=(16,) * 7,
    width=32,
    num_layers=2,
    num_heads=2,
    ffn_width=64,
    position_kernel=8,
    position_groups=4,
    dropout=0.0,
    attention_dropout=0.0,
    input_dropout=0.0,
    layerdrop=0.0,
)
JEPA = JepaConfig(average_top_k_layers=2, predictor_width=16, projection_width=8, anchor_weight=0.0)
CONTRASTIVE = PretrainConfig(
    objective="contrastive",
    contrastive=ContrastiveConfig(num_negatives=10, num_codes=8, output_width=16),
)
CASES = {
    "jepa": (NATIVE, PretrainConfig(jepa=JEPA)),
    "anchored": (
        NATIVE,
        PretrainConfig(jepa=replace(JEPA, anchor_weight=1.0, anchor_clusters=4)),
    ),
    "sigreg": (NATIVE, PretrainConfig(jepa=replace(JEPA, regularizer="sigreg"))),
    "vicreg": (NATIVE, PretrainConfig(jepa=replace(JEPA, regularizer="vicreg"))),
    "contrastive": (NATIVE, CONTRASTIVE),
    "contrastive-wav2vec2": (WAV2VEC2, CONTRASTIVE),
    "jepa-wav2vec2": (WAV2VEC2, PretrainConfig(jepa=JEPA)),
    "future": (
        NATIVE,
        PretrainConfig(objective="future", future=FutureConfig(width=16, num_channels=8)),
    ),
    "reconstruct": (
        NATIVE,
        PretrainConfig(objective="reconstruct", reconstruct=ReconstructConfig(predictor_width=16)),
    ),
}
# Rank 0 gets rows 0, 2, 4, rank 1 rows 1, 3: unlike in number, in length and in padding.
SECONDS = (1.4, 0.9, 0.5, 1.1, 0.7)


def share(rank: int, world: int) -> Batch:
    """Return rows rank, rank + world, ... of the batch, padded to their own longest."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for seconds in SECONDS:
        sweep = torch.linspace(0, 40 * seconds, int(16000 * seconds)).square().sin()
        rows.append(0.3 * sweep + 0.1 * torch.randn(len(sweep), generator=generator))
    mine = range(rank, len(rows), world)
    return Batch(
        torch.nn.utils.rnn.pad_sequence([rows[i] for i in mine], batch_first=True),
        torch.tensor([len(rows[i]) for i in mine]),
        torch.tensor(list(mine)),
        torch.tensor([1000 + i for i in mine]),
    )


def losses_and_gradients(case: str, rank: int, world: int) -> dict[str, torch.Tensor]:
    """Return total, parts and averaged gradients of one training step, as one process sees it."""
    encoder, config = CASES[case]
    torch.manual_seed(0)
    objective = build_objective(build_encoder(encoder), config).train()
    objective.fit(list(share(0, 1).waveform), seed=0)
    torch.manual_seed(rank)  # whatever the process draws for itself must not matter
    output = objective(share(rank, world), 0.3, 7)
    output.total.backward()
    found = {"total": output.total.detach(), **output.parts}
    for name, parameter in objective.named_parameters():
        if parameter.grad is not None:
            gradient = parameter.grad.clone()
            if world > 1:
                dist.all_reduce(gradient)
            found[f"gradient of {name}"] = gradient / world
    return found


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    address = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    for case in CASES:
        torch.save(losses_and_gradients(case, rank, 2), f"{folder}/{case}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_two(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    mp.spawn(work, args=(str(folder),), nprocs=2)
    return folder


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES)
def test_two_processes_have_the_loss_and_the_gradients_of_one(of_two, case):
    alone = losses_and_gradients(case, 0, 1)
    assert any(name.startswith("gradient") for name in alone)
    for rank in (0, 1):
        found = torch.load(of_two / f"{case}-{rank}.pt", weights_only=True)
        assert set(found) == set(alone)
        for name, value in alone.items():
            scale = float(value.abs().max())
            torch.testing.assert_close(
                found[name],
                value,
                rtol=1e-4,
                atol=1e-4 * scale + 1e-7,
                msg=lambda text, name=name: f"{name}: {text}",
            )


def test_a_share_alone_would_not_have_that_loss(of_two):
    encoder, config = CASES["sigreg"]
    torch.manual_seed(0)
    objective = build_objective(build_encoder(encoder), config).train()
    half = objective(share(0, 2), 0.3, 7)
    found = torch.load(of_two / "sigreg-0.pt", weights_only=True)
    for part, value in half.parts.items():
        assert found[part].item() != pytest.approx(value.item(), rel=1e-3), part


def losses(run_dir: Path) -> dict[int, float]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["loss/total"]]
    return {int(row["step"]): float(row["loss/total"]) for row in rows}


@pytest.mark.timeout(300)
def test_a_run_of_two_processes_equals_a_run_of_one_with_twice_the_batch(tmp_path):
    # Imported here: the processes of the tests above would import Lightning too.
    from speechjepa.training.pretrain import pretrain
    from tests.training.corpus import SMALL, make_corpus

    pool = make_corpus(tmp_path / "audio")
    config = replace(
        CONTRASTIVE,
        minutes=None,
        max_steps=11,
        learning_rate=1e-3,
        batch_seconds=3.0,
        precision="float32",
        accelerator="cpu",
        monitor_every=5,
        min_seconds=0.1,
    )
    folder, cache = tmp_path / "two", tmp_path / "cache"
    bundle = pretrain(
        replace(config, devices=2, strategy="ddp"), pool, folder, encoder=SMALL, cache_dir=cache
    )
    one = pretrain(
        replace(config, batch_seconds=6.0), pool, tmp_path / "one", encoder=SMALL, cache_dir=cache
    )
    expected = losses(tmp_path / "one")
    assert set(expected) == {0, 10}
    assert losses(folder) == pytest.approx(expected, rel=1e-3)
    two = load_bundle(bundle)
    for name, tensor in load_bundle(one).encoder.state_dict().items():
        torch.testing.assert_close(two.encoder.state_dict()[name], tensor, rtol=0, atol=2e-3)
    training = two.training["pretrain"]
    assert training["steps"] == 11 and training["audio_hours_seen"] > 0
    assert (folder / "snapshot.npz").exists()


@pytest.mark.timeout(300)
def test_skipped_layers_do_not_stop_two_processes_and_a_collapse_is_told_as_by_one(tmp_path):
    from speechjepa.training.pretrain import pretrain
    from tests.training.corpus import make_corpus

    config = PretrainConfig(
        minutes=None,
        max_steps=20,
        batch_seconds=3.0,
        precision="float32",
        accelerator="cpu",
        devices=2,
        checkpoint_minutes=0.0,
        monitor_every=1,
        collapse=CollapseConfig(grace_steps=4, patience=2, min_rankme=1e9),
        jepa=JEPA,
    )
    with pytest.raises(CollapseError, match="rankme fell to .* last healthy checkpoint is") as told:
        pretrain(
            config,
            make_corpus(tmp_path / "audio"),
            tmp_path / "run",
            encoder=replace(WAV2VEC2, layerdrop=0.5),
            cache_dir=tmp_path / "cache",
        )
    assert "step 5" in str(told.value) and "Traceback" not in str(told.value)


def test_the_strategy_looks_for_idle_parameters_only_where_there_are_any():
    native, wav2vec2 = build_encoder(NATIVE), build_encoder(WAV2VEC2)
    skipping = build_encoder(replace(WAV2VEC2, layerdrop=0.1))
    two, contrastive = PretrainConfig(devices=2), replace(CONTRASTIVE, devices=2)
    assert pick_strategy(PretrainConfig(), wav2vec2) == "auto"
    assert pick_strategy(two, native) == "ddp_spawn"
    assert pick_strategy(contrastive, wav2vec2) == "ddp_spawn"
    assert pick_strategy(contrastive, skipping) == "ddp_spawn_find_unused_parameters_true"
    assert pick_strategy(two, wav2vec2) == "ddp_spawn_find_unused_parameters_true"
    assert pick_strategy(replace(two, strategy="fsdp"), native) == "fsdp"


def test_wav2vec2_arrives_in_another_process_as_it_was_sent():
    encoder = build_encoder(WAV2VEC2).eval()
    encoder.positions.convolution.bias.requires_grad_(False)
    before = torch.get_rng_state()
    received = copy.deepcopy(encoder)  # by way of what pickling sends, as a process is started
    assert torch.equal(torch.get_rng_state(), before)
    batch = share(0, 1)
    expected = encoder(batch.waveform, batch.lengths).features
    assert torch.equal(received(batch.waveform, batch.lengths).features, expected)
    for name, parameter in encoder.named_parameters():
        assert received.get_parameter(name).requires_grad == parameter.requires_grad, name
    assert not any(module.training for module in received.modules())
