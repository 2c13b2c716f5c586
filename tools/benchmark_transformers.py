"""Pretraining throughput against `transformers` at equal parameters, in one process.

    OMP_NUM_THREADS=2 python -m tools.benchmark_transformers -o results/throughput_transformers.json

Both models get the same noise, cut alike; steps of the two alternate, so that other load hits both.
Theirs is `Wav2Vec2ForPreTraining` with its own masks, negatives and loss; as many layers of the
same width as ours, and as many parameters in all. Each runs in whichever of float32 and bfloat16 is
faster for it. The optimizer is the same AdamW.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from speechjepa.data.batches import Batch
from speechjepa.models.bundle import num_parameters
from speechjepa.models.speech_encoder import SpeechEncoder, preset_config
from speechjepa.training.config import JepaConfig, PretrainConfig
from speechjepa.training.objectives import build_objective
from speechjepa.training.precision import autocast
from speechjepa.workflow.record import make_record, write_json
from tools.profile_step import noise_batch

CONV_CHANNELS = 96
"""Of their waveform convolutions; chosen so that the parameters are as many as ours."""


def main() -> None:
    """Time both, and write one JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch_seconds", type=float, default=80.0)
    parser.add_argument("--utterance_seconds", type=float, default=3.1)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)
    batch = noise_batch(args.batch_seconds, args.utterance_seconds)
    seconds = float(batch.lengths.sum()) / 16000
    made = {"speechjepa": ours(batch), "transformers": theirs(batch)}
    cpu = torch.device("cpu")
    times: dict[tuple[str, str], list[float]] = {}
    for step in range(args.steps + 1):
        for name, (_, loss_of, optimizer) in made.items():
            for precision in ("float32", "bfloat16"):
                started = time.perf_counter()
                with autocast(cpu, precision):
                    loss = loss_of()
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                if step:  # the first warms up
                    found = times.setdefault((name, precision), [])
                    found.append(time.perf_counter() - started)
    rates = {f"{n} {p}": seconds / statistics.median(found) for (n, p), found in times.items()}
    best = {name: max(rate for key, rate in rates.items() if name in key) for name in made}
    record = make_record(
        what="pretraining throughput over transformers at equal parameters, same run",
        figure=best["speechjepa"] / best["transformers"],
        unit="times the audio per s",
        command=f"OMP_NUM_THREADS={torch.get_num_threads()} python -m tools.benchmark_transformers "
        f"--steps {args.steps} --batch_seconds {args.batch_seconds:g}",
        seed=0,
        threads=torch.get_num_threads(),
        audio_seconds_per_second=rates,
        parameters={name: count for name, (count, _, _) in made.items()},
        batch_seconds=seconds,
    )
    for key in ("figure", "audio_seconds_per_second", "parameters"):
        print(key, record[key])
    if args.output is not None:
        write_json(args.output, record)


Made = tuple[int, Callable[[], torch.Tensor], torch.optim.Optimizer]


def ours(batch: Batch) -> Made:
    """Return parameters, step and optimizer of the default JEPA, one mask, with its anchor."""
    encoder = SpeechEncoder(preset_config("tiny", frame_rate=25))
    config = PretrainConfig(objective="jepa", jepa=JepaConfig(num_masks=1))
    objective = build_objective(encoder, config).train()
    trained = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)

    def loss() -> torch.Tensor:
        objective.after_step(0.1)  # the teacher of the step before
        return objective(batch, 0.1).total

    return num_parameters(encoder), loss, optimizer


def theirs(batch: Batch) -> Made:
    """Return the same of `transformers`' wav2vec 2.0."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining
    from transformers.models.wav2vec2.modeling_wav2vec2 import (
        _compute_mask_indices,
        _sample_negative_indices,
    )

    config = Wav2Vec2Config(
        hidden_size=192,
        num_hidden_layers=8,
        num_attention_heads=3,
        intermediate_size=768,
        conv_dim=(CONV_CHANNELS,) * 7,
        codevector_dim=192,
        proj_codevector_dim=192,
    )
    model = Wav2Vec2ForPreTraining(config).train()
    shape = (
        len(batch.waveform),
        int(model._get_feat_extract_output_lengths(batch.waveform.shape[1])),
    )

    def loss() -> torch.Tensor:
        mask = _compute_mask_indices(shape, config.mask_time_prob, config.mask_time_length)
        negatives = _sample_negative_indices(shape, config.num_negatives, mask)
        output: Any = model(
            batch.waveform,
            mask_time_indices=torch.from_numpy(mask),
            sampled_negative_indices=torch.from_numpy(negatives),
        )
        return output.loss / mask.sum()

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    return num_parameters(model), loss, optimizer


if __name__ == "__main__":
    main()
