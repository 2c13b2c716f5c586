"""`speechjepa translate`: speech in one language to speech, units or text in another."""

from __future__ import annotations

import argparse
import json
import sys
from io import BufferedReader
from typing import TYPE_CHECKING, Any, cast

from speechjepa.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from speechjepa.inference.model import SpeechModel
    from speechjepa.inference.translate_stream import Said
    from speechjepa.inference.translator import SpeechTranslator

_EPILOG = (
    "example: speechjepa translate interview.wav --model runs/s2st-phrases-es-en -o translated. "
    "Exit status: 0 when every file is translated (or was before), 1 when one could not be."
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `translate` command."""
    parser = subparsers.add_parser(
        "translate",
        help="speech into speech of another language, without writing in between",
        description="Translate audio or video files of any length, utterance by utterance. Each "
        "becomes a wav, spoken by the model's voice, and a json with units, times and, where the "
        "model knows it, text.",
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="FILE|FOLDER", help="audio, video, or folders of them")
    add("--model", required=True, metavar="M", help="a bundle that translates, or its run's folder")
    add(
        "-o",
        "--output_dir",
        "--output-dir",
        dest="output_dir",
        metavar="OUT",
        help="folder for wav and json; without it the json goes to stdout, and no wav is written",
    )
    add(
        "--head",
        choices=("translator", "retrieval"),
        default="translator",
        help="what translates: the trained translator (default), or the nearest known utterance "
        "with its confidence",
    )
    add(
        "--decoder",
        choices=("auto", "greedy", "beam"),
        default="auto",
        help="greedy, or beam search, which CTC translators do with the model's language model; "
        "auto = beam if it has one",
    )
    add(
        "--beam",
        type=int,
        default=5,
        metavar="N",
        help="sequences that an autoregressive translator keeps at every step (5)",
    )
    add(
        "--vad",
        choices=("silero", "energy", "none"),
        default="silero",
        help="what finds speech: a small network (default), or the level above the noise; a stream "
        "takes silero, or none to translate long pauses too",
    )
    add(
        "--stream",
        action="store_true",
        help="translate one FILE, or - for standard input (wav, or raw 16-bit 16 kHz), as it "
        "comes, and write the voice's samples to stdout as they are made: raw 16-bit, 16 kHz; a "
        "model that was not trained to stream speaks after each pause",
    )
    add(
        "--chunk_seconds",
        "--chunk-seconds",
        type=float,
        default=0.32,
        metavar="S",
        help="what a stream hears at once (0.32)",
    )
    add("--overwrite", action="store_true", help="replace translations that are there already")
    add("--device", default="cpu", help="cpu (default), cuda, ...")


def run(args: argparse.Namespace) -> int:
    """Translate what the arguments name."""
    from speechjepa.inference.model import load

    if args.stream and (len(args.inputs) != 1 or args.output_dir is not None):
        raise ConfigError(
            "--stream takes one file, or - for standard input, and writes to stdout: leave -o out, "
            "and write `> FILE` behind it"
        )
    if args.stream and args.head == "retrieval":
        raise ConfigError("--head retrieval is for recordings; a stream is translated by the model")
    if "-" in args.inputs and not args.stream:
        raise ConfigError("- (standard input) is read as a stream: give --stream too")
    model = load(args.model, device=args.device)
    if args.stream:
        from speechjepa.inference.translator import SpeechTranslator

        translator = SpeechTranslator(model, beam=args.beam, decoder=args.decoder)
        return _stream(translator, args.inputs[0], args.chunk_seconds, args.vad)
    names = ("head", "decoder", "beam", "vad")
    options = {name: getattr(args, name) for name in names}
    if args.output_dir is None:
        return _to_stdout(model, args.inputs, options)
    from speechjepa.data.readers.common import as_line
    from speechjepa.inference.translate_files import translate_files

    failed = done = 0
    outcomes = translate_files(
        model, args.inputs, args.output_dir, overwrite=args.overwrite, **options
    )
    try:
        for outcome in outcomes:
            failed += outcome.status == "failed"
            done += outcome.status == "done"
            name = as_line(str(outcome.path))
            if outcome.status == "failed":
                print(f"error: {name}: {outcome.message}", file=sys.stderr)
            elif outcome.message:
                print(f"{name}: {outcome.message}", file=sys.stderr)
            for path in outcome.written:
                print(as_line(str(path)))
    except KeyboardInterrupt:
        print(
            f"stopped after {done} files; the same command goes on with the others",
            file=sys.stderr,
        )
        return 130
    return _told(failed)


def _stream(translator: SpeechTranslator, source: str, chunk_seconds: float, vad: Any) -> int:
    """Write speech to stdout as it is made, until the audio ends or Ctrl-C is pressed."""
    from speechjepa.audio.files import stream_audio
    from speechjepa.audio.live import read_pipe
    from speechjepa.inference.translate_stream import open_translation, streams

    write = _write if translator.has_voice else _write_text
    if not translator.has_voice and not translator.writes_text:
        raise ModelError(f"{translator.folder} has neither voice nor text for a stream to write")
    if not streams(translator):
        print(
            "this model was not trained to stream: what is said is translated after each pause. "
            "Training with `translation.train.streaming={}` avoids it",
            file=sys.stderr,
        )
    stream = open_translation(translator, chunk_seconds=chunk_seconds, vad=vad)
    rate = stream.sample_rate
    blocks = (
        read_pipe(cast(BufferedReader, sys.stdin.buffer), rate)
        if source == "-"
        else stream_audio(source, sample_rate=rate, block_seconds=chunk_seconds)
    )
    try:
        for samples in blocks:
            write(stream.feed(samples))
    except KeyboardInterrupt:
        pass  # the audio ends here
    write(stream.finish())
    return 0


def _write_text(said: Said) -> None:
    """Write what a model without a voice says: a line after each pause."""
    if said.text is not None and said.text.strip():
        print(said.text, end="\n" if said.endpoint else "", flush=True)


def _write(said: Said) -> None:
    if len(said.speech):
        samples = (said.speech.clip(-1.0, 1.0) * 32767.0).round().astype("<i2")
        sys.stdout.buffer.write(samples.tobytes())
        sys.stdout.buffer.flush()


def _to_stdout(model: SpeechModel, inputs: list[str], options: dict[str, object]) -> int:
    from speechjepa.data.readers.common import as_text
    from speechjepa.errors import AudioError
    from speechjepa.inference.transcribe_files import find_recordings
    from speechjepa.inference.translate import FileTranslator, TranslateConfig

    translator = FileTranslator(model, TranslateConfig(**options))  # type: ignore[arg-type]
    failed = 0
    for recording in find_recordings(inputs):
        try:
            if recording.problem is not None:
                raise AudioError(recording.path, recording.problem)
            result = translator.translate(recording.path, say=lambda first, samples: None)
        except AudioError as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr)
            continue
        del result["speech"], result["sample_rate"]
        path = as_text(str(recording.path))
        print(json.dumps({"path": path, **result}, ensure_ascii=False), flush=True)
    return _told(failed)


def _told(failed: int) -> int:
    if failed:
        print(f"files that could not be translated: {failed}", file=sys.stderr)
    return 1 if failed else 0
