"""Measure live transcription: how long after its end a word is printed, at what work and error.

python tools/benchmark_streaming.py --model runs/live --data DATA/quickstart/dev --offline runs/no

Transcribed utterances are joined to one recording, with silence between them, and fed as a sound
card would give them. The clock is that of the audio plus the measured time of computing: a block
that comes while an earlier one is still computed waits for it. The end of each word is taken from
the alignment of its transcript by a model that hears the whole utterance. One core, one thread.

Writes results/streaming.json, or what -o says.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, cast

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein

import speechjepa
from speechjepa.data.readers.read import read_corpus
from speechjepa.data.utterance import Utterance
from speechjepa.inference.align import align_words
from speechjepa.inference.model import SpeechModel
from speechjepa.inference.recognise import read_utterance
from speechjepa.inference.search import greedy_decode
from speechjepa.inference.stream import look_ahead_frames, streaming_chunks
from speechjepa.metrics.error_rate import error_rates
from speechjepa.models.encoder_stream import EncoderStream
from speechjepa.models.speech_encoder import SpeechEncoder
from speechjepa.nn.transformer import Chunks
from speechjepa.text.normalize import normalize_text
from speechjepa.workflow.record import make_record, write_json

RESULTS = Path(__file__).resolve().parent.parent / "results"
GAP_SECONDS = 1.0
"""Silence between utterances (seconds)."""
BLOCK_SECONDS = 0.02
"""What a sound card gives at once (seconds)."""
SAME_START = 0.3
"""A partial word is the final one when they are alike and start within this (seconds)."""


@dataclass
class Spoken:
    """The joined recording, and what is said in it."""

    samples: np.ndarray
    references: list[str]
    bounds: list[tuple[float, float]]
    """Start and end of each utterance (seconds)."""
    words: list[list[tuple[str, float]]]
    """Each utterance's words and their ends (seconds)."""


@dataclass
class Measured:
    """What came of one stream."""

    final_latencies: list[float] = field(default_factory=list)
    """Of the words that were heard right (seconds)."""
    partial_latencies: list[float] = field(default_factory=list)
    hypotheses: list[str] = field(default_factory=list)
    compute_seconds: float = 0.0
    longest_seconds: float = 0.0
    """Of computing for one block."""


def main() -> int:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a model fine-tuned with `streaming`")
    parser.add_argument("--data", required=True, type=Path, help="transcribed utterances")
    parser.add_argument("--offline", help="the same fine-tuned without `streaming`; it also aligns")
    parser.add_argument("--chunk_seconds", type=float, default=0.32)
    parser.add_argument("--look_ahead_seconds", type=float, help="default: the stream's own")
    parser.add_argument("--most", type=int, default=60, help="utterances, evenly spaced")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="of computing")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "streaming.json")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    model = speechjepa.load(args.model)
    offline = speechjepa.load(args.offline) if args.offline else None
    utterances = [u for u in read_corpus(args.data) if u.text]
    utterances = utterances[:: max(1, -(-len(utterances) // args.most))]
    spoken = _join(model, offline or model, utterances)
    greedy = _run(model, spoken, args, "greedy")
    fields = _figures(greedy, spoken)
    fields |= {"cer_offline": _offline_cer(model, spoken)}
    look_ahead = look_ahead_frames(model, args.look_ahead_seconds)
    chunks = streaming_chunks(model, args.chunk_seconds)
    in_chunks = [] if chunks is None else _in_chunks(model, spoken, chunks, look_ahead)
    if in_chunks:
        fields |= {"cer_in_chunks": _cer(model, spoken, in_chunks)}
    if offline is not None:
        fields |= {"cer_offline_alone": _offline_cer(offline, spoken)}
    if model.beam_search is not None:
        with_lm = _figures(_run(model, spoken, args, "beam"), spoken)
        fields |= {f"{name}_lm": value for name, value in with_lm.items()}
        fields |= {"cer_offline_lm": _offline_cer(model, spoken, beam=True)}
        if in_chunks:
            fields |= {"cer_in_chunks_lm": _cer(model, spoken, in_chunks, beam=True)}
    seconds = len(spoken.samples) / model.sample_rate
    record = make_record(
        what=f"live transcription of {Path(args.data).parent.name}: from the end of a word to the "
        "word printed as final",
        figure=fields["latency_median_ms"],
        unit="ms, median",
        command=shlex.join(["python", "tools/benchmark_streaming.py", *sys.argv[1:]]),
        seed=None,
        **fields,
        clock=args.clock,
        chunk_seconds=args.chunk_seconds,
        look_ahead_seconds=round(look_ahead * model.hop / model.sample_rate, 3),
        audio_seconds=round(seconds, 1),
        utterances=len(utterances),
        parameters=model.info()["parameters"],
    )
    write_json(args.output, record)
    for name, value in fields.items():
        print(f"{name:30} {value:.4g}")
    return 0


def _join(model: SpeechModel, aligner: SpeechModel, utterances: Sequence[Utterance]) -> Spoken:
    """Join utterances, and find where the words of their transcripts end."""
    gap = np.zeros(round(GAP_SECONDS * model.sample_rate), np.float32)
    spoken = Spoken(gap, [], [], [])
    parts, start = [gap], len(gap)
    for utterance in utterances:
        samples = read_utterance(utterance, model.sample_rate)
        reference = normalize_text(utterance.text or "", model.text_config)
        offset = start / model.sample_rate
        aligned = align_words(
            _logits(aligner, samples),
            reference,
            aligner.vocabulary,
            frame_seconds=aligner.frame_seconds,
            offset=offset,
        )
        if aligned is None:
            continue
        spoken.references.append(reference)
        spoken.bounds.append((offset, offset + len(samples) / model.sample_rate))
        spoken.words.append([(word.word, word.end) for word in aligned])
        parts += [samples, gap]
        start += len(samples) + len(gap)
    spoken.samples = np.concatenate(parts)
    return spoken


def _logits(model: SpeechModel, samples: np.ndarray) -> torch.Tensor:
    logits, lengths = model.logits(torch.from_numpy(samples)[None])
    return logits[0, : int(lengths)]


def _run(model: SpeechModel, spoken: Spoken, args: argparse.Namespace, decoder: Any) -> Measured:
    """Feed the recording block by block, and note when each word was there."""
    measured = Measured()
    block = round(BLOCK_SECONDS * model.sample_rate)
    stream = model.stream(
        chunk_seconds=args.chunk_seconds,
        look_ahead_seconds=args.look_ahead_seconds,
        decoder=decoder,
    )
    clock = perf_counter if args.clock == "wall" else process_time
    final: list[tuple[dict[str, Any], float]] = []
    partial: list[tuple[dict[str, Any], float]] = []
    now = 0.0
    for start in range(0, len(spoken.samples), block):
        samples = spoken.samples[start : start + block]
        arrived = (start + len(samples)) / model.sample_rate
        begun = clock()
        said = stream.feed(samples)
        took = clock() - begun
        measured.compute_seconds += took
        measured.longest_seconds = max(measured.longest_seconds, took)
        now = max(now, arrived) + took
        for heard in said:
            final += [(word, now) for word in heard.final]
            partial += [(word, now) for word in [*heard.final, *heard.partial]]
    final += [(word, now) for word in stream.finish().final]
    _compare(measured, spoken, final, partial)
    return measured


def _compare(
    measured: Measured,
    spoken: Spoken,
    final: Sequence[tuple[dict[str, Any], float]],
    partial: Sequence[tuple[dict[str, Any], float]],
) -> None:
    """Match heard words with spoken ones, utterance by utterance."""
    for (begin, end), words in zip(spoken.bounds, spoken.words, strict=True):
        slack = GAP_SECONDS / 2
        inside = [
            (word, printed)
            for word, printed in final
            if begin - slack <= (word["start"] + word["end"]) / 2 < end + slack
        ]
        heard_texts = [word["word"] for word, _ in inside]
        measured.hypotheses.append(" ".join(heard_texts))
        blocks = Levenshtein.opcodes([text for text, _ in words], heard_texts)
        for operation in blocks:
            if operation.tag != "equal":
                continue
            for shift in range(operation.src_end - operation.src_start):
                ended = words[operation.src_start + shift][1]
                word, printed = inside[operation.dest_start + shift]
                measured.final_latencies.append(printed - ended)
                first = min(
                    seen
                    for guess, seen in partial
                    if guess["word"] == word["word"]
                    and abs(guess["start"] - word["start"]) < SAME_START
                )
                measured.partial_latencies.append(first - ended)


def _figures(measured: Measured, spoken: Spoken) -> dict[str, float]:
    seconds = spoken.bounds[-1][1] + GAP_SECONDS
    final, partial = (
        1000 * np.array(values) for values in (measured.final_latencies, measured.partial_latencies)
    )
    rates = error_rates(spoken.references, measured.hypotheses)
    return {
        "latency_median_ms": float(np.median(final)),
        "latency_p95_ms": float(np.percentile(final, 95)),
        "latency_partial_median_ms": float(np.median(partial)),
        "latency_partial_p95_ms": float(np.percentile(partial, 95)),
        "words_measured": len(final),
        "rtf_one_core": measured.compute_seconds / seconds,
        "longest_block_ms": 1000 * measured.longest_seconds,
        "cer_streaming": rates.cer,
        "wer_streaming": rates.wer,
    }


def _pieces(spoken: Spoken, rate: int) -> list[np.ndarray]:
    return [spoken.samples[round(a * rate) : round(b * rate)] for a, b in spoken.bounds]


def _offline_cer(model: SpeechModel, spoken: Spoken, *, beam: bool = False) -> float:
    """Return the CER of hearing each utterance as a whole."""
    logits = [_logits(model, samples) for samples in _pieces(spoken, model.sample_rate)]
    return _cer(model, spoken, logits, beam=beam)


@torch.inference_mode()
def _in_chunks(
    model: SpeechModel, spoken: Spoken, chunks: Chunks, look_ahead: int
) -> list[torch.Tensor]:
    """Return the logits (T, V) of each utterance on its own, as a stream that begins with it."""
    ctc = model.bundle.ctc
    assert ctc is not None
    logits = []
    for samples in _pieces(spoken, model.sample_rate):
        stream = EncoderStream(cast(SpeechEncoder, ctc.encoder), chunks, look_ahead, any_level=True)
        heard = [*stream.push(torch.from_numpy(samples)), *stream.finish()]
        features = torch.cat([chunk.features for chunk in heard], 1)
        logits.append(ctc.head_logits(features)[0])
    return logits


def _cer(
    model: SpeechModel, spoken: Spoken, logits: Sequence[torch.Tensor], *, beam: bool = False
) -> float:
    """Return the CER of each utterance's logits (T, V), read as a whole."""
    hypotheses = []
    for each in logits:
        lengths = torch.tensor([len(each)])
        if beam and model.beam_search is not None:
            hypotheses.append(model.beam_search.decode(each[None], lengths)[0].text)
        else:
            hypotheses.append(greedy_decode(each[None], lengths, model.vocabulary)[0].text)
    return error_rates(spoken.references, hypotheses).cer


if __name__ == "__main__":
    sys.exit(main())
