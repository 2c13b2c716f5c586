"""`speechjepa voice`: a speaker's voice, and what it says."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from speechjepa.cli.check import add_column, columns_of

if TYPE_CHECKING:
    from speechjepa.inference.model import SpeechModel
    from speechjepa.inference.voice import Voice

EPILOG = """\
  speechjepa units fit recordings/ -o units
  speechjepa voice fit recordings/ --units units --speaker ana -o ana
  speechjepa voice speak interview.wav --voice ana -o spoken
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `voice` command."""
    parser = subparsers.add_parser(
        "voice",
        help="make a speaker's voice from recordings (fit), and let it speak units (speak)",
        description="Turn units back into speech. `selection` joins stretches of a speaker's own "
        "recordings and is ready at once; `vocoder` is trained on them, and streams.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="fit|speak", required=True)
    _add_fit(actions)
    speak = actions.add_parser(
        "speak",
        help="speak recordings, or units, in a voice",
        description="Write what each file says as a wav in another voice. A .json file is taken "
        "for units, as `units apply` writes them, and its durations as the pace.",
        epilog="Exit status: 0 when every file was spoken (or is there already), 1 when one could "
        "not be.",
    )
    speak.add_argument("inputs", nargs="+", metavar="FILE|FOLDER", help="audio, or units (.json)")
    speak.add_argument("--voice", type=Path, required=True, metavar="V", help="from `voice fit`")
    _add_model(speak)
    speak.add_argument(
        "-o",
        "--output_dir",
        "--output-dir",
        dest="output_dir",
        type=Path,
        required=True,
        metavar="OUT",
        help="folder for the wav files",
    )
    speak.add_argument(
        "--own_pace",
        "--own-pace",
        action="store_true",
        help="the voice decides how long each unit lasts",
    )
    speak.add_argument("--overwrite", action="store_true", help="replace files that are there")


def _add_fit(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    fit = actions.add_parser("fit", help="make a voice from recordings of one speaker")
    fit.add_argument("data", nargs="+", metavar="DATA", help="folders, manifests or hf:NAME")
    fit.add_argument("--units", type=Path, required=True, metavar="U", help="from `units fit`")
    _add_model(fit)
    fit.add_argument(
        "--kind",
        choices=("selection", "vocoder"),
        default="selection",
        help="selection (default): no training; vocoder: small, needs training",
    )
    fit.add_argument("--speaker", metavar="NAME", help="only this speaker's recordings")
    fit.add_argument(
        "--minutes",
        type=float,
        default=20.0,
        metavar="N",
        help="of training, for a vocoder (20); after Ctrl-C the same command goes on",
    )
    fit.add_argument("--seed", type=int, default=0, help="of the training (0)")
    fit.add_argument("--split", help="only this split of the data")
    fit.add_argument("--format", default="auto", help="format of the data (default: look at it)")
    add_column(fit)
    fit.add_argument("--data-root", type=Path, help="folder that paths are relative to")
    fit.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="a folder")
    fit.add_argument("--overwrite", action="store_true", help="replace a voice that is there")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default="shipped",
        metavar="M",
        help="what the units were fitted with (default: the shipped encoder)",
    )


def run(args: argparse.Namespace) -> int:
    """Run one of the two."""
    return _fit(args) if args.action == "fit" else _speak(args)


def _fit(args: argparse.Namespace) -> int:
    from speechjepa.data.readers import read_corpus
    from speechjepa.errors import DataError
    from speechjepa.inference.model import load
    from speechjepa.inference.output_folder import prepare_folder
    from speechjepa.inference.voice import SETTINGS_FILE
    from speechjepa.progress import audio_bar
    from speechjepa.training.vocoder import VocoderTraining
    from speechjepa.units.kmeans import load_units
    from speechjepa.workflow.voice import fit_voice, of_speaker

    if (args.output / SETTINGS_FILE).exists() and not args.overwrite:
        raise DataError("holds a voice already; --overwrite replaces it", path=args.output)
    prepare_folder(args.output, "a voice")
    training = VocoderTraining(minutes=args.minutes, seed=args.seed)
    units, model = load_units(args.units), load(args.model)
    found = [
        utterance
        for location in args.data
        for utterance in read_corpus(
            location,
            format=args.format,
            split=args.split,
            columns=columns_of(args),
            data_root=args.data_root,
        )
    ]
    utterances = of_speaker(found, args.speaker)
    with audio_bar("listening", len(utterances)) as progress:
        voice, skipped = fit_voice(
            model, units, utterances, args.kind, args.output, training=training, progress=progress
        )
    for item in skipped:
        print(f"left out: {item.audio_path}: {item.reason}", file=sys.stderr)
    kept = len(utterances) - len(skipped)
    print(f"{args.kind} of {kept} recordings: {args.output}; a stream waits {voice.look_ahead}")
    return 0


def _speak(args: argparse.Namespace) -> int:
    from speechjepa.audio.files import write_wav
    from speechjepa.data.readers.common import as_line
    from speechjepa.errors import DataError, SpeechJepaError
    from speechjepa.inference.model import load
    from speechjepa.inference.output_folder import (
        in_place_of_inputs,
        places_of,
        prepare_folder,
        tell_kept,
    )
    from speechjepa.inference.transcribe_files import find_recordings
    from speechjepa.inference.units import check_encoder
    from speechjepa.inference.voice import load_voice

    prepare_folder(args.output_dir, "speech")
    voice = load_voice(args.voice)
    recordings = find_recordings(args.inputs)
    read = places_of(recording.path for recording in recordings)
    model = None
    if any(recording.path.suffix.lower() != ".json" for recording in recordings):
        model = load(args.model)
        check_encoder(model, voice.units)
    failed = 0
    kept: list[Path] = []
    for recording in recordings:
        target = args.output_dir / recording.name.with_name(_stem(recording.name) + ".wav")
        try:
            if recording.problem is not None:
                raise DataError(recording.problem, path=recording.path)
            problem = in_place_of_inputs([target], read)
            if problem is not None:
                raise DataError(problem)
            if target.exists() and not args.overwrite:
                kept.append(target)
                continue
            units, durations = _units_of(recording.path, voice, model)
            speech = voice.speak(units, None if args.own_pace else durations)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_wav(target, speech, voice.sample_rate)
        except SpeechJepaError as error:
            failed += 1
            print(f"error: {as_line(str(error))}", file=sys.stderr)
            continue
        print(f"{as_line(str(target))}\t{len(speech) / voice.sample_rate:.2f} s")
    tell_kept(kept)
    if failed:
        print(f"files that could not be spoken: {failed}", file=sys.stderr)
    return 1 if failed else 0


def _stem(name: Path) -> str:
    return name.stem if name.suffix.lower() == ".json" else name.name


def _units_of(
    path: Path, voice: Voice, model: SpeechModel | None
) -> tuple[list[int], list[int] | None]:
    """Return the units of a file, and how long they last where it says so."""
    import torch

    from speechjepa.audio.files import read_audio
    from speechjepa.errors import DataError
    from speechjepa.inference.units import encode_units
    from speechjepa.units.sequences import deduplicate

    if path.suffix.lower() != ".json":
        assert model is not None
        waveform = torch.from_numpy(read_audio(path, sample_rate=model.sample_rate))
        units, durations = deduplicate(encode_units(model, voice.units, waveform))
        return units.tolist(), durations.tolist()
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        units, durations = entry["units"], entry.get("durations")
        checksum = entry.get("units_checksum")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"holds no units: {error}", path=path) from error
    if not all(isinstance(values, list) for values in (units, durations or [])):
        raise DataError("`units` and `durations` must be lists of numbers", path=path)
    if checksum is not None and checksum != voice.units.checksum:
        raise DataError(
            f"holds units {checksum[:12]}, but this voice speaks {voice.units.checksum[:12]}: "
            "write the recording in the units that the voice was made with",
            path=path,
        )
    return units, durations
