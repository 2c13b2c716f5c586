"""Measure the memory and the speed of transcribing one long file.

python tools/benchmark_memory.py --model runs/quickstart/finetune/bundle
python tools/benchmark_memory.py --preset small         untrained weights: they take as much memory
python tools/benchmark_memory.py --model M --speech FOLDER      real recordings, end to end, again
                                                                and again until the file is long

Writes results/transcribe-memory-NAME.json and results/transcribe-speed-NAME.json.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
import soundfile

from speechjepa.audio.files import read_audio
from speechjepa.inference.transcribe_files import find_recordings
from speechjepa.workflow.record import make_record, write_json

RESULTS = Path(__file__).resolve().parent.parent / "results"
RATE = 16000
MAX_KIBIBYTES_UNIT = 1024 if sys.platform != "darwin" else 1  # ru_maxrss: KiB, on macOS bytes


def main() -> int:
    """Generate the file, transcribe it in a process of its own, write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", type=Path, help="a fine-tuned bundle")
    which.add_argument("--preset", help="an untrained encoder of this size")
    parser.add_argument("--speech", type=Path, help="folder of recordings (default: synthetic)")
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--format", choices=("flac", "opus"), default="opus")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", help="of the results (default: the preset, or the model's size)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = args.model or _untrained_bundle(args.preset, Path(folder) / "bundle", args.seed)
        audio = Path(folder) / f"long.{args.format}"
        _write_long_file(audio, args.hours, args.speech, args.seed)
        out = Path(folder) / "out"
        command = [sys.executable, "-m", "speechjepa", "transcribe", str(audio), "--model"]
        command += [str(bundle), "-o", str(out), "-f", "all", "--word_timestamps"]
        started = perf_counter()
        peak = _peak_bytes([*command, "--device", "cpu"])
        seconds = perf_counter() - started
        num_characters = len((out / "long.txt").read_text(encoding="utf-8"))
    size = args.name or args.preset or _size(args.model)
    weights = "untrained weights" if args.preset else "trained weights"
    source = "real speech" if args.speech else "synthetic sound"
    what = f"transcribing one {args.hours:g}-hour {args.format} file ({source}), {size}, {weights}"
    speed = args.hours * 3600 / seconds
    measured = {
        f"transcribe-memory-{size}": (f"Peak memory of {what}, whole process", peak / 1e9, "GB"),
        f"transcribe-speed-{size}": (f"Speed of {what}, program start too", speed, "x real time"),
    }
    for name, (said, figure, unit) in measured.items():
        record = make_record(
            what=said,
            figure=round(figure, 3),
            unit=unit,
            command=f"python {shlex.join(['tools/benchmark_memory.py', *sys.argv[1:]])}",
            seed=args.seed,
        )
        write_json(RESULTS / f"{name}.json", record)
    print(f"{peak / 1e9:.3f} GB, {args.hours * 3600 / seconds:.1f} x real time")
    print(f"{num_characters} characters transcribed; wrote {', '.join(measured)} below {RESULTS}")
    return 0


def _size(model: Path) -> str:
    from speechjepa.inference.model import load

    return f"{load(model).info()['parameters'] / 1e6:.1f}M"


def _peak_bytes(command: list[str]) -> int:
    """Run a command and return the largest resident memory that its process had."""
    process = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        raise SystemExit(f"{' '.join(command)} failed with exit status {code}")
    return usage.ru_maxrss * MAX_KIBIBYTES_UNIT


def _untrained_bundle(preset: str, folder: Path, seed: int) -> Path:
    """Write a model of a preset's size whose weights were never trained."""
    import torch

    from speechjepa.models.bundle import Bundle, save_bundle
    from speechjepa.models.ctc import CtcModel
    from speechjepa.models.speech_encoder import PRESETS, SpeechEncoder
    from speechjepa.text.vocabulary import Vocabulary

    torch.manual_seed(seed)
    vocabulary = Vocabulary.build(["abcdefghijklmnopqrstuvwxyz '"])
    encoder = SpeechEncoder(PRESETS[preset])
    ctc = CtcModel(encoder, len(vocabulary))
    torch.nn.init.normal_(ctc.head.weight, std=0.3)  # so that it writes something
    return save_bundle(Bundle(encoder=encoder, ctc=ctc, vocabulary=vocabulary), folder)


def _write_long_file(path: Path, hours: float, speech: Path | None, seed: int) -> None:
    options = {"compression_level": 0.93} if path.suffix == ".opus" else {}
    format_name = "OGG" if path.suffix == ".opus" else "FLAC"
    subtype = "OPUS" if path.suffix == ".opus" else "PCM_16"
    missing = round(hours * 3600 * RATE)
    with soundfile.SoundFile(
        path, "w", RATE, 1, subtype=subtype, format=format_name, **options
    ) as file:
        for block in _recordings(speech) if speech else _syllables(seed):
            file.write(block[:missing])
            missing -= len(block)
            if missing <= 0:
                return


def _recordings(folder: Path) -> Iterator[np.ndarray]:
    recordings = find_recordings([folder])
    for recording in itertools.cycle(recordings):
        if recording.problem is not None:
            raise SystemExit(f"{recording.path}: {recording.problem}")
        yield read_audio(recording.path, sample_rate=RATE)
        yield np.zeros(RATE // 2, np.float32)


def _syllables(seed: int) -> Iterator[np.ndarray]:
    """Buzzes with two moving formants in syllables of 0.1 to 0.3 s, with pauses between them."""
    random = np.random.default_rng(seed)
    syllables = []
    for _ in range(300):
        time = np.arange(round(random.uniform(0.1, 0.3) * RATE)) / RATE
        pitch = random.uniform(90, 220)
        first, second = random.uniform(300, 900), random.uniform(900, 2500)
        harmonics = np.arange(1, 30) * pitch
        weights = np.exp(-(((harmonics - first) / 150) ** 2))
        weights += 0.5 * np.exp(-(((harmonics - second) / 200) ** 2))
        wave = (weights[:, None] * np.sin(2 * np.pi * harmonics[:, None] * time)).sum(axis=0)
        syllables.append((0.1 * wave * np.hanning(len(time))).astype(np.float32))
    while True:
        pause = np.zeros(
            round(random.choice([0.0, 0.05, 0.3, 1.5], p=[0.5, 0.3, 0.15, 0.05]) * RATE)
        )
        yield np.concatenate([syllables[random.integers(300)], pause]).astype(np.float32)


if __name__ == "__main__":
    sys.exit(main())
