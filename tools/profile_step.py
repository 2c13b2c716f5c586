"""Profile one pretraining step: how much audio a second, and what bounds it.

    python tools/profile_step.py --preset tiny --frame_rate 25 -o results/profile_tiny_25hz.json

Audio is noise of the lengths that real short utterances have; nothing is read from disk, so the
figure is the step's alone. Times are medians of --steps steps.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speechjepa.data.batches import Batch
from speechjepa.models.speech_encoder import SpeechEncoder, preset_config
from speechjepa.training.config import JepaConfig, PretrainConfig
from speechjepa.training.objectives import build_objective
from speechjepa.training.precision import autocast
from speechjepa.workflow.record import make_record, write_json


def noise_batch(total_seconds: float, utterance_seconds: float) -> Batch:
    """Return noise utterances within 7 % of the same length, as bucketing by length gives them."""
    number = max(1, int(total_seconds / utterance_seconds))
    samples = np.linspace(0.93, 1.0, number) * utterance_seconds * 16000
    lengths = torch.from_numpy(samples.astype(np.int64))
    waveform = torch.randn(number, int(lengths.max())) * 0.1
    return Batch(waveform, lengths, torch.arange(number), torch.arange(number) + 7)


def main() -> None:
    """Run the profile."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--frame_rate", type=int, default=25, choices=(25, 50))
    parser.add_argument("--objective", default="jepa")
    parser.add_argument("--num_masks", type=int, default=JepaConfig().num_masks)
    parser.add_argument("--anchor_weight", type=float, default=JepaConfig().anchor_weight)
    parser.add_argument("--batch_seconds", type=float, default=PretrainConfig().batch_seconds)
    parser.add_argument("--utterance_seconds", type=float, default=3.1)
    parser.add_argument("--precision", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--operators", action="store_true", help="also time every operator")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()

    torch.manual_seed(0)
    encoder = SpeechEncoder(preset_config(args.preset, frame_rate=args.frame_rate))
    config = PretrainConfig(
        objective=args.objective,
        jepa=JepaConfig(num_masks=args.num_masks, anchor_weight=args.anchor_weight),
    )
    objective = build_objective(encoder, config).train()
    trained = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    batch = noise_batch(args.batch_seconds, args.utterance_seconds)
    device = torch.device("cpu")

    def step() -> None:
        with autocast(device, args.precision):
            output = objective(batch, 0.1)
        output.total.backward()
        torch.nn.utils.clip_grad_norm_(trained, 3.0)
        optimizer.step()
        optimizer.zero_grad()
        objective.after_step(0.1)

    for _ in range(3):
        step()
    times = []
    for _ in range(args.steps):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    median = float(np.median(times))
    rate = float(batch.lengths.sum()) / 16000 / median
    print(
        f"{args.preset} {args.frame_rate} Hz {args.objective} {args.precision}: "
        f"{1e3 * median:.0f} ms a step (fastest {1e3 * min(times):.0f}), "
        f"{rate:.0f} s of audio per second"
    )
    shares = operators(step) if args.operators or args.output else {}
    for name, share in list(shares.items())[:20]:
        print(f"  {share:6.1%}  {name}")
    if args.output:
        what = f"pretraining throughput, {args.preset}, {args.frame_rate} Hz, {args.objective}"
        record = make_record(
            what=what,
            figure=round(rate, 1),
            unit="s of audio per s",
            command="python " + " ".join(sys.argv),
            seed=0,
            settings=vars(args) | {"output": str(args.output)},
            step_ms=round(1e3 * median, 1),
            threads=torch.get_num_threads(),
            operator_shares={name: round(share, 4) for name, share in shares.items()},
        )
        write_json(args.output, record)


def operators(step: Any) -> dict[str, float]:
    """Return the share of the step's own CPU time that each operator takes, largest first."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    averages = found.key_averages()
    total = sum(event.self_cpu_time_total for event in averages)
    ordered = sorted(averages, key=lambda event: -event.self_cpu_time_total)
    return {event.key: event.self_cpu_time_total / total for event in ordered[:25]}


if __name__ == "__main__":
    main()
