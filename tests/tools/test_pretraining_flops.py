"""FLOPs are counted forward and backward, as products worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from speechjepa.models.speech_encoder import SpeechEncoder, preset_config
from speechjepa.nn.cpu import attention, depthwise_convolution
from speechjepa.training.config import JepaConfig, PretrainConfig
from tools import benchmark_learning, learning_transformers, pretraining_flops
from tools.pretraining_flops import count_flops, objective_rate, transformers_rate


def test_a_linear_layer_is_three_products_and_two_where_its_input_has_no_gradient() -> None:
    layer = torch.nn.Linear(3, 5)
    product = 2 * 7 * 3 * 5
    x = torch.randn(7, 3)
    assert count_flops(lambda: layer(x).sum()) == 2 * product  # forward, and of the weight
    x.requires_grad_()
    assert count_flops(lambda: layer(x).sum()) == 3 * product


def test_a_network_without_gradient_costs_its_forward_pass_alone() -> None:
    teacher, student = torch.nn.Linear(3, 5), torch.nn.Linear(3, 5)
    x = torch.randn(7, 3)

    def loss() -> torch.Tensor:
        with torch.no_grad():
            wanted = teacher(x)
        return (student(x) - wanted).square().sum()

    assert count_flops(loss) == (1 + 2) * 2 * 7 * 3 * 5


def test_the_depthwise_convolution_is_counted_as_its_own_backward_computes_it() -> None:
    batch, frames, width, kernel = 2, 6, 4, 3
    x = torch.randn(batch, frames + kernel - 1, width, requires_grad=True)
    weight = torch.randn(width, 1, 1, kernel, requires_grad=True)
    bias = torch.zeros(width, requires_grad=True)
    forward = 2 * batch * frames * width * kernel
    for_x = 2 * batch * (frames + kernel - 1) * width * kernel  # over the padded frames
    # (T + K - 1, B) times (B, T), for every channel.
    for_weight = 2 * width * (frames + kernel - 1) * batch * frames
    found = count_flops(lambda: depthwise_convolution(x, weight, bias).sum())
    assert found == forward + for_x + for_weight


@pytest.mark.parametrize("groups", [1, 4])
def test_both_gradients_of_a_convolution_take_as_many_products_as_it_does(groups: int) -> None:
    layer = torch.nn.Conv1d(8, 12, kernel_size=3, stride=2, groups=groups)
    forward = 2 * 2 * 12 * 5 * (8 // groups) * 3  # B * channels * frames * inputs * taps
    x = torch.randn(2, 8, 11)
    assert count_flops(lambda: layer(x).sum()) == 2 * forward
    x.requires_grad_()
    assert count_flops(lambda: layer(x).sum()) == 3 * forward


def test_both_kinds_of_attention_are_counted() -> None:
    query, key, value = (torch.randn(2, 3, 5, 8, requires_grad=True) for _ in range(3))
    product = 2 * 2 * 3 * 5 * 5 * 8  # 2 * B * H * T * T * d
    ours = count_flops(lambda: attention(query, key, value, None, 0.0).sum())
    assert ours == (2 + 4) * product
    stock = count_flops(lambda: functional.scaled_dot_product_attention(query, key, value).sum())
    assert stock == (2 + 5) * product  # its backward pass works out the scores again


def small_encoder() -> SpeechEncoder:
    torch.manual_seed(0)
    return SpeechEncoder(preset_config("tiny", frame_rate=25))


@pytest.fixture
def short_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining_flops, "UTTERANCES", 2)
    monkeypatch.setattr(pretraining_flops, "UTTERANCE_SECONDS", 1.5)


def test_an_objective_costs_the_same_each_time_and_more_with_a_second_mask(short_batch) -> None:
    one, again, two = (
        objective_rate(PretrainConfig(jepa=JepaConfig(num_masks=number)), small_encoder())
        for number in (1, 1, 2)
    )
    assert one == again < two < 2 * one  # the target encoder runs once for both masks


def test_layers_that_are_left_out_by_chance_cost_their_expected_share(
    short_batch, monkeypatch
) -> None:
    sizes = {
        **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
        **{"intermediate_size": 64, "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16},
        **{"codevector_dim": 32, "proj_codevector_dim": 32, "num_codevectors_per_group": 16},
    }

    def rate(layerdrop: float) -> float:
        monkeypatch.setattr(learning_transformers, "SIZES", {**sizes, "layerdrop": layerdrop})
        return transformers_rate(PretrainConfig())

    never, tenth, always = rate(0.0), rate(0.1), rate(1.0)
    assert always < tenth < never
    assert tenth == pytest.approx(0.9 * never + 0.1 * always)


def cell(**changes: Any) -> dict[str, Any]:
    given = {"row": "jepa_ema", "audio_hours": 2.0, "pretraining_steps": 9, "device": "a"}
    return {**given, **changes}


def test_account_fills_in_what_cells_lack_and_nothing_else(tmp_path: Path, monkeypatch) -> None:
    cells = {
        "a/jepa_ema-0.json": cell(),
        "b/jepa_ema-0.json": cell(audio_hours=3.0),
        "b/shipped-0.json": cell(row="shipped", audio_hours=None, pretraining_steps=None),
        "b/contrastive-0.json": cell(row="contrastive", pretraining_flops=5),
    }
    for name, content in cells.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    counted = []
    monkeypatch.setattr(benchmark_learning, "flops_rate", lambda _, row: counted.append(row) or 1e9)
    benchmark_learning.main(["--account", "--results", str(tmp_path)])
    found = {name: json.loads((tmp_path / name).read_text()) for name in cells}
    assert [each.pop("pretraining_flops") for each in found.values()] == [
        *(2 * 3600 * 10**9, 3 * 3600 * 10**9, None, 5)
    ]
    del cells["b/contrastive-0.json"]["pretraining_flops"]
    assert found == cells and counted == ["jepa_ema"]  # once for all its cells
    names = list(json.loads((tmp_path / "a/jepa_ema-0.json").read_text()))
    assert names[2:4] == ["pretraining_steps", "pretraining_flops"]


def test_every_row_that_pretrains_has_settings_to_count(short_batch) -> None:
    options = benchmark_learning._parse(["--account"])
    rates = {
        row: benchmark_learning.flops_rate(options, row)
        for row in ("reconstruct", "jepa_ema", "shipped_jepa")
    }
    assert rates["jepa_ema"] == rates["shipped_jepa"]  # the same sizes, other weights
    assert rates["reconstruct"] < rates["jepa_ema"]  # which runs a second encoder


def test_without_account_the_folders_must_be_named(capsys) -> None:
    with pytest.raises(SystemExit):
        benchmark_learning.main(["--rows", "labels_only"])
    assert "--data-root and --work are required" in capsys.readouterr().err
