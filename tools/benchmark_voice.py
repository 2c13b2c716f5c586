"""How well voices made of units are understood: their speech through a recogniser, and how fast.

    python tools/quickstart.py
    python tools/benchmark_voice.py --recogniser runs/quickstart --dev data/quickstart/dev \\
        --work voices --minutes 22 -o results/voice.json

Spanish by espeak-ng. One voice, that the recogniser has not heard, speaks 20 minutes; units are
fitted on it and on many others; a selection and a vocoder voice are made of it. Transcribed speech
by other voices (--dev) is then written in units, and spoken by both. The recogniser was trained on
the untouched kind alone. Voices in --work are used again.

With --target, a speaker's own recordings take the place of the synthetic voice:

    python tools/benchmark_voice.py --target DATA/mboshi/train --speaker abiayi --kinds selection \\
        --recogniser RUN --dev DATA/mboshi/dev --work voices-mboshi -o results/voice_mboshi.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from speechjepa.audio.files import read_audio
from speechjepa.audio.level import set_level
from speechjepa.data.readers import read_corpus
from speechjepa.data.synthetic.corpus import SyntheticCorpus, make_corpus
from speechjepa.data.synthetic.espeak import synthesise
from speechjepa.data.synthetic.text import LANGUAGES, draw_meaning, express
from speechjepa.data.utterance import Utterance
from speechjepa.inference.evaluate import evaluate
from speechjepa.inference.model import SpeechModel, load
from speechjepa.inference.units import encode_units, fit
from speechjepa.inference.voice import Voice, load_voice
from speechjepa.models.bundle import num_parameters
from speechjepa.models.shipped import shipped_version
from speechjepa.training.vocoder import VocoderTraining
from speechjepa.units.kmeans import Layer, Units, load_units
from speechjepa.units.sequences import deduplicate
from speechjepa.workflow.record import make_record, write_json
from speechjepa.workflow.voice import fit_voice, of_speaker
from speechjepa.workflow.voice_report import write_voice_report

TARGET = "Annie"
"""A voice of espeak-ng; the quickstart's recogniser has not heard it."""
LANGUAGE = "es"
CHUNK = 8
"""Frames fed to a stream at once: 320 ms."""
KINDS = ("selection", "vocoder")
EXAMPLES = 1


def main() -> None:
    """Make the voices where they are missing, measure them, and write one JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for voices and speech")
    parser.add_argument("--recogniser", help="a fine-tuned Spanish model; none = only make voices")
    parser.add_argument("--dev", type=Path, help="transcribed Spanish by other voices")
    parser.add_argument("--target", type=Path, help="recordings of a real voice instead")
    parser.add_argument("--speaker", help="whose of them")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--model", default="shipped", help="encoder of the units")
    parser.add_argument("--layer", default="5", help="of the encoder, or mel")
    parser.add_argument("--num_units", type=int, default=200)
    parser.add_argument("--target_minutes", type=float, default=20.0, help="of the target voice")
    parser.add_argument("--minutes", type=float, default=22.0, help="of training the vocoder")
    parser.add_argument("--utterances", type=int, default=60)
    parser.add_argument("--report", type=Path, help="also draw spectrograms here (.html)")
    parser.add_argument("--examples", type=Path, help="also write examples here (.ogg)")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    torch.set_num_threads(1)
    model = load(args.model)
    units, voices = make_voices(args, model)
    if args.recogniser is None:
        return
    spoken = [u for u in read_corpus(args.dev) if u.text]
    if args.target is None:
        dev = [u for u in spoken if u.language in (None, LANGUAGE)][: args.utterances]
        own = speak_texts(args.work / "own", dev)
    else:
        dev = [u for u in spoken if u.speaker != args.speaker][: args.utterances]
        own = of_speaker(spoken, args.speaker)[: args.utterances]
    rows, speech = measure(load(args.recogniser), model, units, voices, dev, own, args.work)
    plain = {row["speech"]: row["cer"] for row in rows if row["speech"] in ("untouched", "oracle")}
    for row in rows:
        before = plain["oracle" if row["speech"].endswith("of itself") else "untouched"]
        row["times_untouched"] = round(row["cer"] / max(before, 1e-9), 3)
        print(json.dumps(row), flush=True)
    if args.report is not None and args.target is None:
        write_voice_report(args.report, [example(speech, dev[i]) for i in range(EXAMPLES)])
    if args.examples is not None and args.target is None:
        write_examples(args.examples, speech, dev[0])
    if args.output is not None:
        write_json(args.output, record(args, rows, voices, model))


def record(
    args: argparse.Namespace, rows: list[dict[str, Any]], voices: dict[str, Voice], model: Any
) -> dict[str, Any]:
    """Return what is written of the measurement."""
    best = min(
        (row for row in rows if row["speech"] in KINDS), key=lambda row: row["times_untouched"]
    )
    vocoder: Any = voices.get("vocoder")
    options = "" if args.target is None else f"--target DATA --speaker {args.speaker} "
    return make_record(
        what="voice: CER of speech by other voices, respoken in a voice of units, over that of the "
        f"speech itself; the better of selection and vocoder: {best['speech']}",
        figure=best["times_untouched"],
        unit="times",
        command=f"python tools/benchmark_voice.py {options}--recogniser RUN --dev DEV "
        f"--work voices --utterances {args.utterances} --minutes {args.minutes:g}",
        target=TARGET if args.target is None else args.speaker,
        seed=0,
        layer=args.layer,
        shipped_encoder=shipped_version() if str(args.model) == "shipped" else None,
        num_units=args.num_units,
        target_minutes=args.target_minutes,
        utterances=args.utterances,
        vocoder_parameters=None if vocoder is None else num_parameters(vocoder.vocoder),
        look_ahead={name: voice.look_ahead for name, voice in voices.items()},
        rows=rows,
    )


def make_voices(args: argparse.Namespace, model: SpeechModel) -> tuple[Units, dict[str, Voice]]:
    """Return units and voices, made where they are not in the folder yet."""
    if args.target is None:
        target = target_recordings(args.work / "target", args.target_minutes)
    else:
        target = first_minutes(
            of_speaker(read_corpus(args.target), args.speaker), args.target_minutes
        )
    if not (args.work / "units" / "units.json").exists():
        others = other_voices(args)
        layer: Layer = "mel" if args.layer == "mel" else int(args.layer)
        heard = [*others, *target[: len(target) // 2]]
        units, _ = fit(model, heard, layer=layer, num_units=args.num_units)
        units.save(args.work / "units")
    units = load_units(args.work / "units")
    voices = {}
    for kind in args.kinds:
        folder = args.work / kind
        if not (folder / "voice.json").exists():
            training = VocoderTraining(minutes=args.minutes)
            fit_voice(model, units, target, kind, folder, training=training)  # type: ignore[arg-type]
        voices[kind] = load_voice(folder)
    return units, voices


def other_voices(args: argparse.Namespace) -> list[Utterance]:
    """Return ten minutes by many voices, for units that are not those of one."""
    if args.target is not None:
        others = [u for u in read_corpus(args.target) if u.speaker != args.speaker]
        return first_minutes(others, 10.0)
    settings = SyntheticCorpus(languages=(LANGUAGE,), minutes=10, dev_minutes=1, test_minutes=1)
    folder = make_corpus(args.work / "others", settings, num_workers=1)
    return list(read_corpus(folder / "train"))


def first_minutes(utterances: Sequence[Utterance], minutes: float) -> list[Utterance]:
    """Return utterances, drawn at random, that last so long together."""
    kept, seconds = [], 0.0
    for index in np.random.default_rng(0).permutation(len(utterances)).tolist():
        if seconds >= 60 * minutes:
            break
        kept.append(utterances[index])
        seconds += utterances[index].duration or 0.0
    return kept


def target_recordings(folder: Path, minutes: float) -> list[Utterance]:
    """Return what the target voice says, spoken where it was not yet."""
    listed = folder / "metadata.jsonl"
    if not listed.exists():
        (folder / "audio").mkdir(parents=True, exist_ok=True)
        rows: list[dict[str, Any]] = []
        seconds = 0.0
        for index in itertools.count():
            if seconds >= 60 * minutes:
                break
            sentence = express(draw_meaning(index, seed=1), LANGUAGE)
            if sentence is None:
                continue
            waveform = say(sentence.spoken)
            name = f"audio/{index:05}.flac"
            soundfile.write(folder / name, waveform, 16000, subtype="PCM_16")
            rows.append({"file_name": name, "text": sentence.text, "speaker": TARGET})
            seconds += len(waveform) / 16000
        listed.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return list(read_corpus(folder))


def say(text: str) -> NDArray[np.float32]:
    """Return a text as the target voice says it."""
    speech = synthesise(text, LANGUAGES[LANGUAGE].voice, voice=TARGET, rate=150)
    return set_level(speech.waveform)


def speak_texts(folder: Path, dev: Sequence[Utterance]) -> list[Utterance]:
    """Return the same texts as the target voice itself says them."""
    folder.mkdir(parents=True, exist_ok=True)
    spoken = []
    for utterance in dev:
        path = folder / f"{utterance.id}.flac"
        if not path.exists():
            soundfile.write(path, say(utterance.text or ""), 16000, subtype="PCM_16")
        spoken.append(replace(utterance, audio_path=path, start=0.0, duration=None))
    return spoken


Speech = dict[str, list[Utterance]]


def measure(
    recogniser: SpeechModel,
    model: SpeechModel,
    units: Units,
    voices: dict[str, Voice],
    dev: Sequence[Utterance],
    own: Sequence[Utterance],
    work: Path,
) -> tuple[list[dict[str, Any]], Speech]:
    """Return the rows of the table, the untouched speech first, and all speech by row.

    The oracle is the target voice saying the same itself (or, of a real voice, what it says in
    --dev): a perfect voice would be understood as well. "Of itself" are units of that.
    """
    speech: Speech = {"untouched": list(dev)}
    timing: dict[str, dict[str, float]] = {}
    cases: list[tuple[str, Sequence[Utterance], Callable[[Voice], Any]]] = [
        ("", dev, at_once),
        (", streamed", dev, streamed),
        (", own pace", dev, own_pace),
        (", of itself", own, at_once),
    ]
    for suffix, utterances, way in cases:
        for kind in voices:
            name = kind + suffix
            folder = work / "spoken" / name.replace(", ", "-").replace(" ", "-")
            speech[name], timing[name] = respeak(
                model, units, voices[kind], utterances, way(voices[kind]), folder
            )
    speech["oracle"] = list(own)
    rows = []
    for name, utterances in speech.items():
        found = evaluate(recogniser, utterances, use_language_model=False)
        row: dict[str, Any] = {"speech": name, "cer": round(found.cer, 4)}
        row |= {"wer": round(found.wer, 4), **timing.get(name, {})}
        rows.append(row)
    order = ["untouched", "selection", "vocoder", "oracle"]
    rows.sort(key=lambda row: order.index(row["speech"]) if row["speech"] in order else len(order))
    return rows, speech


Speak = Callable[[Any, Any], NDArray[np.float32]]


def at_once(voice: Voice) -> Speak:
    """Return how a voice speaks with the durations that were heard."""
    return voice.speak


def own_pace(voice: Voice) -> Speak:
    """Return how a voice speaks at its own pace."""
    return lambda units, durations: voice.speak(units)


def streamed(voice: Voice) -> Speak:
    """Return how a voice speaks 320 ms at a time."""

    def speak(units: Any, durations: Any) -> NDArray[np.float32]:
        stream = voice.stream()
        frames = torch.repeat_interleave(units, durations)
        pieces = [stream.feed(*deduplicate(part)) for part in frames.split(CHUNK)]
        return np.concatenate([*pieces, stream.flush()])

    return speak


def respeak(
    model: SpeechModel,
    units: Units,
    voice: Voice,
    utterances: Sequence[Utterance],
    speak: Speak,
    folder: Path,
) -> tuple[list[Utterance], dict[str, float]]:
    """Write utterances in units and speak them; return them, and the time that speaking takes: of
    one core, per second of speech (as the wall would say on a machine that does nothing else)."""
    folder.mkdir(parents=True, exist_ok=True)
    spoken, busy, total = [], 0.0, 0.0
    for utterance in utterances:
        heard = read_audio(utterance.audio_path, start=utterance.start, duration=utterance.duration)
        single, durations = deduplicate(encode_units(model, units, torch.from_numpy(heard)))
        started = time.process_time()
        waveform = speak(single, durations)
        busy += time.process_time() - started
        total += len(waveform) / voice.sample_rate
        path = folder / f"{utterance.id}.wav"
        soundfile.write(path, waveform, voice.sample_rate, subtype="PCM_16")
        spoken.append(replace(utterance, audio_path=path, start=0.0, duration=None))
    return spoken, {"rtf": round(busy / total, 4)}


def example(speech: Speech, utterance: Utterance) -> dict[str, NDArray[np.float32]]:
    """Return what is shown of an utterance: title -> waveform."""
    shown = {
        f"original: {utterance.text}": "untouched",
        "selection": "selection",
        "vocoder": "vocoder",
        "the voice itself": "oracle",
    }
    return {title: waveform_of(speech[row], utterance) for title, row in shown.items()}


def waveform_of(spoken: Sequence[Utterance], utterance: Utterance) -> NDArray[np.float32]:
    """Return how an utterance sounds in a row."""
    (found,) = [other for other in spoken if other.id == utterance.id]
    return read_audio(found.audio_path, start=found.start, duration=found.duration)


def write_examples(folder: Path, speech: Speech, utterance: Utterance) -> None:
    """Write one utterance in every row as Opus."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in ("untouched", "selection", "vocoder", "oracle"):
        soundfile.write(
            folder / f"voice-{row}.ogg",
            waveform_of(speech[row], utterance),
            16000,
            format="OGG",
            subtype="OPUS",
            compression_level=0.93,
        )


if __name__ == "__main__":
    main()
