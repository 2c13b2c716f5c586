"""FLOPs of a pretraining: those of one real step, per second of audio in it.

A step is the objective's forward pass and its backward pass, on a CPU in float32, of 16 utterances
of noise as long as those of the pools (3.5 s). Counted are products of matrices, convolutions and
attention as they are carried out, two operations per multiplication: what a model of 4 M parameters
spends its time on. Not counted are the FFT of the log-mel front end, norms, activations, the
optimizer and the moving average of a teacher, which are small beside them.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from speechjepa.models.encoder import Encoder
from speechjepa.training.config import PretrainConfig
from speechjepa.training.objectives import build_objective
from tools.learning_transformers import Run
from tools.profile_step import noise_batch

UTTERANCES, UTTERANCE_SECONDS = 16, 3.5
Shape = Sequence[int]


def _convolution_backward(
    gradient: Shape,
    x: Shape,
    weight: Shape,
    bias: object,
    stride: object,
    padding: object,
    dilation: object,
    transposed: bool,
    output_padding: object,
    groups: int,
    wanted: Sequence[bool],
    **_: object,
) -> int:
    """Each of the two gradients takes as many products as the forward pass.

    PyTorch's own formula counts the weight's gradient `groups` times over: 16 times for the
    positions of wav2vec 2.0.
    """
    forward = 2 * math.prod(x if transposed else gradient) * math.prod(weight[1:])
    return forward * sum(wanted[:2])


def _attention(query: Shape, key: Shape, *_: object, **__: object) -> int:
    return 2 * 2 * math.prod(query) * key[-2]  # scores, and their products with the values


def _attention_backward(gradient: Shape, query: Shape, key: Shape, *_: object, **__: object) -> int:
    return 5 * 2 * math.prod(query) * key[-2]  # the scores again, and four gradients


FORMULAS = {
    torch.ops.aten.convolution_backward: _convolution_backward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""What PyTorch's counter lacks, or counts wrong, by the shapes of the operands."""


def count_flops(forward: Callable[[], Tensor]) -> int:
    """Return the FLOPs of a forward pass, which returns a scalar, and of its backward pass."""
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        forward().backward()
    return counter.get_total_flops()


def objective_rate(config: PretrainConfig, encoder: Encoder) -> float:
    """Return the FLOPs per second of audio of one of this package's objectives.

    Args:
        config: Of the pretraining.
        encoder: What it trains, on a CPU.
    """
    torch.manual_seed(0)
    encoder.set_dropout(config.dropout, config.drop_path)
    objective = build_objective(encoder, config).train()
    batch = noise_batch(UTTERANCES * UTTERANCE_SECONDS, UTTERANCE_SECONDS)
    flops = count_flops(lambda: objective(batch, 0.0).total)
    return flops * 16000 / int(batch.lengths.sum())


def transformers_rate(config: PretrainConfig) -> float:
    """Return the FLOPs per second of audio of the pretraining of tools/learning_transformers.py.

    Its encoder leaves out layers by chance (layerdrop): this is the expected value.

    Args:
        config: Of the pretraining.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Run(config, Path(folder))
    run.device = torch.device("cpu")
    run.model.to(run.device)
    settings = run.model.config
    left_out = settings.layerdrop
    torch.manual_seed(0)
    batch = noise_batch(UTTERANCES * UTTERANCE_SECONDS, UTTERANCE_SECONDS)

    def flops(layerdrop: float) -> int:
        settings.layerdrop = layerdrop
        run.seed()
        return count_flops(lambda: run.losses(batch)[0])

    expected = (1 - left_out) * flops(0.0) + left_out * flops(1.0)
    return expected * 16000 / int(batch.lengths.sum())
