"""Measure the pretraining trainer itself: throughput, waiting for data, memory.

    python tools/benchmark_pretraining.py --minutes 2 -o results/pretraining_tiny_25hz.json

Runs `pretrain` on a generated corpus (noise in utterances of 1 to 6 s, written as FLAC, decoded
into the cache like any corpus), reads the rates from its metrics.csv (median after the first
readings) and the process's peak resident memory, which counts the memory-mapped audio too.
"""

from __future__ import annotations

import argparse
import csv
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from speechjepa.data.utterance import Utterance
from speechjepa.models.speech_encoder import preset_config
from speechjepa.training.config import JepaConfig, PretrainConfig
from speechjepa.training.pretrain import pretrain
from speechjepa.workflow.record import make_record, write_json


def make_noise(folder: Path, hours: float) -> list[Utterance]:
    """Write noise utterances and return them."""
    generator = np.random.default_rng(0)
    utterances: list[Utterance] = []
    seconds = 0.0
    while seconds < 3600 * hours:
        duration = float(generator.uniform(1.0, 6.0))
        path = folder / f"{len(utterances):05d}.flac"
        soundfile.write(path, generator.normal(0.0, 0.05, int(duration * 16000)), 16000)
        utterances.append(Utterance(id=path.stem, audio_path=path, duration=duration))
        seconds += duration
    return utterances


def readings(metrics: Path, column: str, skip: int = 3) -> list[float]:
    """Return a column of metrics.csv without its first readings."""
    with metrics.open(newline="", encoding="utf-8") as file:
        values = [float(row[column]) for row in csv.DictReader(file) if row.get(column)]
    return values[skip:]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--frame_rate", type=int, default=25, choices=(25, 50))
    parser.add_argument("--objective", default="jepa")
    parser.add_argument("--num_masks", type=int, default=JepaConfig().num_masks)
    parser.add_argument("--batch_seconds", type=float, default=PretrainConfig().batch_seconds)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--hours", type=float, default=1.0, help="size of the corpus")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    config = PretrainConfig(
        objective=args.objective,
        jepa=JepaConfig(num_masks=args.num_masks),
        minutes=args.minutes,
        batch_seconds=args.batch_seconds,
    )
    with tempfile.TemporaryDirectory() as folder:
        pool = make_noise(Path(folder), args.hours)
        run = Path(folder) / "run"
        pretrain(
            config,
            pool,
            run,
            encoder=preset_config(args.preset, frame_rate=args.frame_rate),
            cache_dir=Path(folder) / "cache",
        )
        rates = readings(run / "metrics.csv", "rate/audio_hours_per_hour")
        waiting = readings(run / "metrics.csv", "rate/waiting_for_data")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    record = make_record(
        what=f"pretraining {args.preset}, {args.frame_rate} Hz, {args.objective}: audio consumed",
        figure=round(float(np.median(rates)), 1),
        unit="s of audio per s",
        command="python " + " ".join(sys.argv),
        seed=0,
        num_masks=args.num_masks,
        waiting_for_data=round(float(np.median(waiting)), 4),
        peak_memory_mb=round(peak),
    )
    write_json(args.output, record)
    print(
        f"{record['figure']} {record['unit']}, "
        f"{record['waiting_for_data']:.1%} waiting for data, {peak:.0f} MB"
    )


if __name__ == "__main__":
    main()
