"""The number format that a model is computed in: the fastest of three, by trial."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from speechjepa.errors import ConfigError
from speechjepa.models.bundle import num_parameters
from speechjepa.models.ctc import CtcModel
from speechjepa.models.wav2vec2_ragged import ComputeType, RaggedWav2Vec2, can_be_ragged

Forward = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

COMPUTE_TYPES = ("auto", "float32", "bfloat16", "int8")
_TRIAL_SECONDS = 3.0
_REPEATS = 2
_LEAST_PARAMETERS = 20_000_000  # smaller models gain too little for a trial, and start at once
_BFLOAT16_FACTOR = 1.15  # so that a near draw gives the same text every time
_INT8_FACTOR = 1.3  # int8 changes the text most: it must be this much faster than the next
_chosen: dict[tuple[object, ...], Computation] = {}


@dataclass(frozen=True, kw_only=True)
class Computation:
    """A number format, and the trial that chose it."""

    compute_type: ComputeType
    seconds: dict[str, float] = field(default_factory=dict)
    """What the trial's audio took in each; empty when nothing was tried."""

    def __str__(self) -> str:
        if not self.seconds:
            return f"computing in {self.compute_type}"
        times = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in self.seconds.items())
        return f"computing in {self.compute_type} ({_TRIAL_SECONDS:g} s of audio took: {times})"


def prepare(
    ctc: CtcModel, wanted: Literal["auto", "float32", "bfloat16", "int8"]
) -> tuple[Computation, Forward]:
    """Return the number format, and the function from waveform and lengths to logits and lengths.

    With "auto" every format is tried on three seconds of noise, once per process and kind of model;
    but a model of less than 20 million parameters stays in float32.

    Args:
        ctc: A fine-tuned model in eval mode; its weights must not change any more.
        wanted: The setting.

    Raises:
        ConfigError: There is no such format, or int8 is asked for on another device than the CPU.
    """
    if wanted not in COMPUTE_TYPES:
        raise ConfigError(f"`compute_type` must be one of {COMPUTE_TYPES}, but is {wanted!r}.")
    device = next(ctc.parameters()).device
    if wanted == "int8" and device.type != "cpu":
        raise ConfigError(
            f"int8 is computed on a CPU only, but the device is {str(device)!r}: give "
            "`--compute_type bfloat16` or `--device cpu`."
        )
    if wanted == "auto" and num_parameters(ctc) < _LEAST_PARAMETERS:
        wanted = "float32"
    if wanted != "auto":
        return Computation(compute_type=wanted), _forward(ctc, wanted)
    key = (ctc.encoder.config, ctc.upsample, str(device), torch.get_num_threads())
    if key not in _chosen:
        _chosen[key] = _try_all(ctc, device)
    return _chosen[key], _forward(ctc, _chosen[key].compute_type)


def _try_all(ctc: CtcModel, device: torch.device) -> Computation:
    num_samples = round(_TRIAL_SECONDS * ctc.encoder.sample_rate)
    noise = 0.1 * torch.randn(1, num_samples, generator=torch.Generator().manual_seed(0))
    waveform, lengths = noise.to(device), torch.tensor([num_samples], device=device)
    names: Sequence[ComputeType] = ("float32", "bfloat16", "int8")
    seconds: dict[str, float] = {}
    for name in names[: 3 if device.type == "cpu" else 2]:
        forward = _forward(ctc, name)
        times = []
        for _ in range(1 + _REPEATS):
            started = time.perf_counter()
            with torch.inference_mode():
                forward(waveform, lengths)[0].sum().item()  # waits for the device
            times.append(time.perf_counter() - started)
        seconds[name] = min(times[1:])
    best: ComputeType = "float32"
    if _BFLOAT16_FACTOR * seconds["bfloat16"] < seconds["float32"]:
        best = "bfloat16"
    if _INT8_FACTOR * seconds.get("int8", float("inf")) < seconds[best]:
        best = "int8"
    return Computation(compute_type=best, seconds=seconds)


def _forward(ctc: CtcModel, compute_type: ComputeType) -> Forward:
    device = next(ctc.parameters()).device
    if device.type == "cpu" and can_be_ragged(ctc):
        return _padded(RaggedWav2Vec2(ctc, compute_type))
    if compute_type == "float32":
        return ctc
    if compute_type == "int8":
        return _quantized(ctc)

    def forward(waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(device.type, torch.bfloat16):
            return ctc(waveform, lengths)

    return forward


def _padded(ragged: RaggedWav2Vec2) -> Forward:
    def forward(waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        rows = zip(waveform, lengths.tolist(), strict=True)
        logits = ragged([row[:length] for row, length in rows])
        counts = torch.tensor([len(row) for row in logits])
        return nn.utils.rnn.pad_sequence(logits, batch_first=True), counts

    return forward


def _quantized(ctc: CtcModel) -> CtcModel:
    """Return a copy whose blocks multiply 8-bit integers; front end and head stay float32."""
    quantized = copy.copy(ctc)
    quantized._modules = dict(ctc._modules)
    encoder = copy.copy(ctc.encoder)
    encoder._modules = dict(encoder._modules)
    with warnings.catch_warnings():  # of torch.ao, which stays in torch 2.11
        warnings.simplefilter("ignore", DeprecationWarning)
        blocks = torch.ao.quantization.quantize_dynamic(encoder.blocks, {nn.Linear}, torch.qint8)
    encoder.blocks = blocks
    quantized.encoder = encoder
    return quantized.eval()
