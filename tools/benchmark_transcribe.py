"""Transcription side by side: this package, `transformers`' pipeline, and onnxruntime.

    OMP_NUM_THREADS=2 python -m tools.benchmark_transcribe

One folder of recordings of 0.5 s to 5 minutes; one wav2vec 2.0 CTC model of base size with random
weights; greedy text; every engine in a process of its own with the same threads. Imports and
loading are not timed, reading the files is. Then one long file and the first words of a file of ten
minutes, both by the command line with the shipped model. Writes results/transcribe.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import soundfile

from speechjepa.audio.files import read_audio
from speechjepa.inference.transcribe_files import find_recordings
from speechjepa.workflow.record import commit, make_record, write_json
from tools.benchmark_memory import MAX_KIBIBYTES_UNIT

RESULT = Path(__file__).resolve().parent.parent / "results" / "transcribe.json"
RATE = 16000
SHORTEST, LONGEST, WINDOW = 0.5, 300.0, 30.0
PREPARE = "prepare"
COMMAND = [
    *(sys.executable, "-m", "speechjepa", "transcribe"),
    *("--model", "shipped", "--device", "cpu", "-f", "txt"),
]
ENGINES = ("auto", "float32", "transformers", "onnxruntime")
BATCH_SIZES = (1, 4, 8)
SENTENCES = {
    "en-us": "The boats came back before the rain, and we carried the nets up to the houses.",
    "es": "Mañana por la mañana iremos al mercado con la abuela, si no hace demasiado frío.",
    "fr-fr": "Il habite près de la rivière depuis trois ans, et il connaît tous les oiseaux.",
    "sw": "Watoto wanacheza nje ya nyumba, na mama anapika chakula cha jioni.",
    "de": "Am Abend saßen wir vor dem Haus und hörten den alten Geschichten zu.",
    "tr": "Köyde herkes birbirini tanır, bu yüzden kapılar hiç kilitlenmez.",
}


def main() -> int:
    """Measure everything and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=0.25, help="of recordings in the folder")
    parser.add_argument("--long_hours", type=float, default=10.0, help="of the long file")
    parser.add_argument("--speech", type=Path, help="folder of recordings (default: espeak's)")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "2")))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    parser.add_argument(
        "--first_words",
        action="store_true",
        help="measure these alone, into the result that is there",
    )
    parser.add_argument("--engine", choices=(*ENGINES, PREPARE), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.engine == PREPARE:
        lengths = write_recordings(args.work / "audio", args.hours, args.speech, args.seed)
        write_model(args.work, args.seed)
        print(json.dumps(lengths))
        return 0
    if args.engine:
        print(json.dumps(run_engine(args.engine, args.work, args.threads)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if args.first_words:
            record = json.loads(args.output.read_text(encoding="utf-8"))
            record |= measure_first_words(work, args.threads) | {"first_words_commit": commit()}
            write_json(args.output, record)
            print(json.dumps(record, indent=2, ensure_ascii=False))
            return 0
        # A process begins with the peak of the one that started it: this one must stay small.
        lengths = in_own_process(PREPARE, work, args)
        measured = {}
        for engine in ENGINES:
            measured[engine] = in_own_process(engine, work, args)
            brief = {k: v for k, v in measured[engine].items() if k != "texts"}
            print(engine, brief, file=sys.stderr, flush=True)
        long = measure_long(work, args.long_hours, args.threads)
        print(long, file=sys.stderr, flush=True)
    record = make_result(measured, lengths, long, args)
    write_json(args.output, record)
    print(json.dumps(record, indent=2, ensure_ascii=False))
    return 0


def make_result(
    measured: dict[str, dict[str, Any]],
    lengths: dict[str, float],
    long: dict[str, Any],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Return the record of one run."""
    audio = sum(lengths.values())
    rates = {engine: audio / found["seconds"] for engine, found in measured.items()}
    theirs = measured["transformers"]["texts"]
    one_window = [name for name, seconds in lengths.items() if seconds < WINDOW]

    def same(engine: str) -> float:
        texts = measured[engine]["texts"]
        return sum(texts[name] == theirs[name] for name in one_window) / len(one_window)

    ratio = rates["auto"] / rates["transformers"]
    return make_record(
        what="transcription throughput over transformers' pipeline, same random wav2vec 2.0 of "
        "base size, same cores and files, greedy",
        figure=round(ratio, 2),
        unit="times the audio per s",
        command=f"OMP_NUM_THREADS={args.threads} python -m tools.benchmark_transcribe "
        f"--hours {args.hours:g} --long_hours {args.long_hours:g}",
        seed=args.seed,
        throughput_ratio_transformers=round(ratio, 2),
        throughput_ratio_transformers_float32=round(rates["float32"] / rates["transformers"], 2),
        throughput_ratio_onnxruntime=round(rates["auto"] / rates["onnxruntime"], 2),
        throughput_ratio_onnxruntime_float32=round(rates["float32"] / rates["onnxruntime"], 2),
        peak_mb=round(measured["auto"]["peak_mb"]),
        peak_mb_transformers=round(measured["transformers"]["peak_mb"]),
        same_text=round(same("float32"), 4),
        same_text_auto=round(same("auto"), 4),
        same_text_onnxruntime=round(same("onnxruntime"), 4),
        files_in_one_window=len(one_window),
        files=len(lengths),
        audio_hours=round(audio / 3600, 3),
        threads=args.threads,
        audio_seconds_per_second={engine: round(rate, 2) for engine, rate in rates.items()},
        raw={
            engine: {key: value for key, value in found.items() if key != "texts"}
            for engine, found in measured.items()
        },
        **long,
    )


def write_recordings(
    folder: Path, hours: float, speech: Path | None, seed: int
) -> dict[str, float]:
    """Write wav files whose lengths are spread evenly over their logarithms; return the lengths."""
    folder.mkdir()
    random = np.random.default_rng(seed)
    stream = _speech(speech, random)
    lengths: dict[str, float] = {}
    while (left := hours * 3600 - sum(lengths.values())) > SHORTEST:
        wanted = min(left, np.exp(random.uniform(np.log(SHORTEST), np.log(LONGEST))))
        parts, missing = [], round(wanted * RATE)
        while missing > 0:
            part = next(stream)[:missing]
            parts.append(part)
            missing -= len(part)
        name = f"{len(lengths):04d}.wav"
        samples = np.concatenate(parts)
        soundfile.write(folder / name, samples, RATE, subtype="PCM_16")
        lengths[name] = len(samples) / RATE
    return lengths


def _speech(folder: Path | None, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield speech and the pauses in it without end."""
    if folder is not None:
        paths = [recording.path for recording in find_recordings([folder])]
        found = (read_audio(path, sample_rate=RATE) for path in itertools.cycle(paths))
    else:
        import soxr

        from speechjepa.data.synthetic.espeak import synthesise

        made = [synthesise(text, language) for language, text in SENTENCES.items()]
        spoken = [
            soxr.resample(one.waveform, one.sample_rate, RATE).astype(np.float32) for one in made
        ]
        found = (spoken[i] for i in iter(lambda: int(random.integers(len(spoken))), -1))
    for samples in found:
        yield samples
        yield np.zeros(round(random.uniform(0.1, 0.8) * RATE), np.float32)


def write_model(work: Path, seed: int) -> None:
    """Write the same random model for `transformers` (and this package), and for onnxruntime."""
    import torch
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    from speechjepa.inference.model import load
    from speechjepa.models.export_onnx import write_onnx

    torch.manual_seed(seed)
    symbols = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz'"]
    (work / "vocab.json").write_text(json.dumps({s: i for i, s in enumerate(symbols)}))
    model = Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=len(symbols)))
    torch.nn.init.normal_(model.lm_head.weight, std=0.3)
    with torch.no_grad():
        model.lm_head.bias[1:4] = -100.0  # never written
    model.save_pretrained(work / "model")
    Wav2Vec2Processor(
        Wav2Vec2FeatureExtractor(return_attention_mask=False, do_normalize=True),
        Wav2Vec2CTCTokenizer(work / "vocab.json"),
    ).save_pretrained(work / "model")
    write_onnx(load(work / "model").bundle, work / "onnx")


def in_own_process(engine: str, work: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run one engine, or the preparation, and return what it printed."""
    command = [sys.executable, "-m", "tools.benchmark_transcribe", "--engine", engine]
    command += ["--work", str(work), "--threads", str(args.threads), "--hours", str(args.hours)]
    command += ["--seed", str(args.seed), *(["--speech", str(args.speech)] if args.speech else [])]
    done = subprocess.run(
        command, env=_environment(args.threads), stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def _environment(threads: int) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}


def run_engine(engine: str, work: Path, threads: int) -> dict[str, Any]:
    """Transcribe the folder with one engine."""
    import torch

    torch.set_num_threads(threads)
    paths = sorted((work / "audio").iterdir())
    if engine == "transformers":
        found = _transformers(work, paths)
    else:
        found = _ours(engine, work, paths, threads)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAX_KIBIBYTES_UNIT
    return {**found, "peak_mb": peak / 1e6}


def _ours(engine: str, work: Path, paths: list[Path], threads: int) -> dict[str, Any]:
    """Transcribe with this package; onnxruntime takes the same chunks in the same batches."""
    from speechjepa.inference.model import SpeechModel, load
    from speechjepa.inference.transcribe_files import transcribe_files

    model: SpeechModel
    if engine == "onnxruntime":
        import onnxruntime
        import torch

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(
            str(work / "onnx" / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

        class OnnxModel(SpeechModel):
            def logits(self, waveform: Any, lengths: Any = None) -> Any:
                inputs = {"waveform": waveform.numpy(), "lengths": lengths.numpy()}
                return tuple(map(torch.from_numpy, session.run(None, inputs)))

        model = OnnxModel(load(work / "model").bundle)
    else:
        model = load(work / "model", compute_type="auto" if engine == "auto" else "float32")
    started = perf_counter()
    outcomes = list(transcribe_files(model, paths, decoder="greedy"))
    seconds = perf_counter() - started
    texts = {outcome.path.name: (outcome.result or {})["text"] for outcome in outcomes}
    said = None if model.computation is None else str(model.computation)
    return {"seconds": seconds, "texts": texts, "computation": said}


def _transformers(work: Path, paths: list[Path]) -> dict[str, Any]:
    """Transcribe with `transformers` in the batch size that is fastest on a part of the files."""
    from transformers import pipeline

    recognise: Any = pipeline("automatic-speech-recognition", str(work / "model"), device="cpu")

    def texts(some: list[Path], batch_size: int) -> dict[str, str]:
        inputs = ({"raw": read_audio(path), "sampling_rate": RATE} for path in some)
        found = recognise(inputs, chunk_length_s=WINDOW, batch_size=batch_size)
        pairs = zip(some, found, strict=True)
        return {path.name: " ".join(one["text"].split()) for path, one in pairs}

    part, held = [], 0.0
    for path in paths:
        if held < 60 and (length := soundfile.info(path).duration) < 120:
            part.append(path)
            held += length
    tried = {}
    for batch_size in BATCH_SIZES:
        started = perf_counter()
        texts(part, batch_size)
        tried[batch_size] = perf_counter() - started
    best = min(tried, key=lambda size: tried[size])
    started = perf_counter()
    found = texts(paths, best)
    seconds = perf_counter() - started
    return {"seconds": seconds, "texts": found, "batch_size": best, "tried": tried}


def measure_first_words(work: Path, threads: int) -> dict[str, Any]:
    """Measure how soon the command prints the first words of ten minutes; medians of five."""
    ten = _ten_minutes(work)
    firsts, wholes = [], []
    for _ in range(5):
        started = perf_counter()
        process = subprocess.Popen(
            [*COMMAND, str(ten)],
            env=_environment(threads),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        if not process.stdout.readline().strip():
            raise SystemExit(f"{' '.join(COMMAND)} printed no words")
        firsts.append(perf_counter() - started)
        process.stdout.read()
        wholes.append(perf_counter() - started)
        process.wait()
    return {
        "first_words_s": round(float(np.median(firsts)), 2),
        "first_words_after_loading_s": round(_first_after_loading(ten), 2),
        "ten_minutes_s": round(float(np.median(wholes)), 2),
    }


def measure_long(work: Path, hours: float, threads: int) -> dict[str, Any]:
    """Measure the first words of ten minutes and the peak memory of a long file, by the command."""
    found: dict[str, Any] = {**measure_first_words(work, threads), "peak_mb_10h": None}
    if hours > 0:
        minutes, _ = soundfile.read(_ten_minutes(work), dtype="float32")
        path = work / "long.flac"
        with soundfile.SoundFile(
            path, "w", RATE, 1, subtype="PCM_16", format="FLAC", compression_level=0.0
        ) as file:
            for _ in range(round(hours * 6)):
                file.write(minutes)
        started = perf_counter()
        peak = _peak_bytes([*COMMAND, str(path), "-o", str(work / "out")], threads)
        seconds = perf_counter() - started
        found |= {"peak_mb_10h": round(peak / 1e6), "long_file_hours": hours}
        found["long_file_audio_seconds_per_second"] = round(hours * 3600 / seconds, 1)
    return found


def _ten_minutes(work: Path) -> Path:
    """Return a file of ten minutes of speech, written where it is not there yet."""
    path = work / "ten.flac"
    if not path.exists():
        stream = _speech(None, np.random.default_rng(0))
        soundfile.write(
            path, np.concatenate([next(stream) for _ in range(240)])[: 600 * RATE], RATE
        )
    return path


def _first_after_loading(path: Path) -> float:
    """Return the seconds to the first words of a file with the shipped model, loaded already."""
    from speechjepa.inference.encoding import encode_blocks, read_blocks
    from speechjepa.inference.model import load
    from speechjepa.inference.transcribe import TranscribeConfig, iter_segments

    model, config = load("shipped", compute_type="auto"), TranscribeConfig()
    next(iter(encode_blocks(model, read_blocks(model, path, config), config)))  # warms up
    started = perf_counter()
    next(iter_segments(model, read_blocks(model, path, config), config))
    return perf_counter() - started


def _peak_bytes(command: list[str], threads: int) -> int:
    """Run a command and return the largest resident memory that its process had."""
    process = os.posix_spawn(command[0], command, _environment(threads))
    _, status, usage = os.wait4(process, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(command)} failed with exit status {code}")
    return usage.ru_maxrss * MAX_KIBIBYTES_UNIT


if __name__ == "__main__":
    sys.exit(main())
