"""How good units are, by encoder, layer and number: phones of synthetic speech are known exactly.

    python tools/benchmark_units.py --encoders jepa=runs/a contrastive=runs/b -o results/units.json

Speech is made by espeak-ng, which says when each phone is spoken; units are fitted on some voices
and measured on others. The shipped encoder, fresh weights of its size and log-mel frames are always
measured.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speechjepa.data.synthetic.acoustics import disturb_and_place
from speechjepa.data.synthetic.corpus import DEV_VOICES, TRAIN_VOICES
from speechjepa.data.synthetic.espeak import PhoneTime, synthesise
from speechjepa.data.synthetic.text import LANGUAGES, draw_meaning, express
from speechjepa.inference.model import SpeechModel, load
from speechjepa.inference.units import extract_frames, frame_rate
from speechjepa.metrics.abx import abx_error
from speechjepa.metrics.units import bitrate, phone_figures
from speechjepa.models.bundle import Bundle, fresh_copy
from speechjepa.models.shipped import shipped_version
from speechjepa.units.kmeans import Layer, Units, fit_units
from speechjepa.units.sequences import deduplicate
from speechjepa.workflow.record import make_record, write_json

SPOKEN_LANGUAGES = ("es", "en", "fi", "id")
SIZES = (50, 100, 200, 500)
SEED = 0


@dataclass(frozen=True)
class Spoken:
    """One synthetic utterance."""

    waveform: NDArray[np.float32]
    phones: list[PhoneTime]


def main() -> None:
    """Measure every encoder, and write one JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--encoders", nargs="*", default=[], metavar="NAME=MODEL")
    parser.add_argument("--minutes", type=float, default=12.0, help="of speech to fit units on")
    parser.add_argument("--test_minutes", type=float, default=6.0)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="K")
    parser.add_argument("--layers", type=int, nargs="+", metavar="L", help="only these")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    train = speak(args.minutes, TRAIN_VOICES, 0)
    test = speak(args.test_minutes, DEV_VOICES, 1_000_000_000)
    rows: list[dict[str, Any]] = []
    for name, model in encoders(args.encoders).items():
        heard, asked = layers_of(model, train), layers_of(model, test)
        layers: list[Layer] = ["mel"] if name == "log-mel" else list(range(len(heard[0])))
        for layer, size in itertools.product(layers, args.sizes):
            if layer != "mel" and args.layers and layer not in args.layers:
                continue
            if layer == "mel":
                frames = [[mel_of(model, x) for x in spoken] for spoken in (train, test)]
            else:
                frames = [[utterance[layer] for utterance in part] for part in (heard, asked)]
            units = fit_units(torch.cat(frames[0]), size, SEED)
            row = {"encoder": name, "layer": layer, "num_units": size}
            row |= measure(units, frame_rate(model), frames[1], test)
            rows.append(row)
            print(*(f"{key}={value}" for key, value in row.items()), flush=True)
    if args.output is None:
        return
    shipped = [row for row in rows if row["encoder"] == "shipped" and row["num_units"] == 100]
    record = make_record(
        what="units: phone information of 100 units of the shipped encoder's best layer, "
        "synthetic voices that were not heard",
        figure=round(100 * max(row["phone_information"] for row in shipped), 1),
        unit="% of the phones' entropy",
        command="python tools/benchmark_units.py --encoders "
        + " ".join(f"{text.partition('=')[0]}=RUN" for text in args.encoders),
        seed=SEED,
        shipped_encoder=shipped_version(),
        languages=SPOKEN_LANGUAGES,
        minutes=args.minutes,
        test_minutes=args.test_minutes,
        rows=rows,
    )
    write_json(args.output, record)


def encoders(asked: Sequence[str]) -> dict[str, SpeechModel]:
    """Return what is measured, by name."""
    shipped = load("shipped")
    torch.manual_seed(SEED)
    fresh = SpeechModel(Bundle(encoder=fresh_copy(shipped.bundle.encoder)))
    named = [text.partition("=")[::2] for text in asked]
    return {
        "log-mel": shipped,
        "shipped": shipped,
        "fresh": fresh,
        **{name: load(path) for name, path in named},
    }


def layers_of(model: SpeechModel, spoken: Sequence[Spoken]) -> list[list[Tensor]]:
    """Return the frames (T, D) of every layer, for each utterance; all are short."""
    found = []
    for utterance in spoken:
        layers = model.encode(torch.from_numpy(utterance.waveform)[None], return_layers=True).layers
        assert layers is not None
        found.append([layer[0] for layer in layers])
    return found


def mel_of(model: SpeechModel, utterance: Spoken) -> Tensor:
    """Return log-mel frames (T, D) at the encoder's rate."""
    return extract_frames(model, "mel", torch.from_numpy(utterance.waveform))


def speak(minutes: float, voices: Sequence[str], first: int) -> list[Spoken]:
    """Return synthetic speech in all languages, in rooms and with noise as the quickstart's."""
    spoken: list[Spoken] = []
    for language in SPOKEN_LANGUAGES:
        seconds = 0.0
        for index in itertools.count(first):
            if seconds >= 60 * minutes / len(SPOKEN_LANGUAGES):
                break
            sentence = express(draw_meaning(index, seed=SEED), language)
            if sentence is None:
                continue
            draw = np.random.default_rng([SEED, index])
            speech = synthesise(
                sentence.spoken,
                LANGUAGES[language].voice,
                voice=str(draw.choice(voices)),
                rate=int(draw.integers(130, 200)),
                pitch=int(draw.integers(35, 66)),
                seed=index % (1 << 31),
            )
            waveform, later = disturb_and_place(speech.waveform, draw, speech.sample_rate)
            phones = [PhoneTime(phone.start + later, phone.phone) for phone in speech.phones]
            spoken.append(Spoken(waveform, phones))
            seconds += len(waveform) / speech.sample_rate
    return spoken


def measure(
    units: Units, rate: float, frames: Sequence[Tensor], spoken: Sequence[Spoken]
) -> dict[str, float]:
    """Return the figures of units on speech by other voices."""
    sequences = [units(rows) for rows in frames]
    phones: list[str] = []
    tokens: list[NDArray[np.float32]] = []
    classes: list[str] = []
    for sequence, utterance in zip(sequences, spoken, strict=True):
        phones += phones_of_frames(utterance.phones, len(sequence), rate)
        for phone, first, end in phone_spans(utterance.phones, len(sequence), rate):
            tokens.append(units.centroids[sequence[first:end]].mean(dim=0).numpy())
            classes.append(phone)
    count = {phone: classes.count(phone) for phone in set(classes)}
    kept = [index for index, phone in enumerate(classes) if count[phone] >= 20]
    found = phone_figures(torch.cat(sequences).numpy(), phones)
    single = [deduplicate(sequence)[0].numpy() for sequence in sequences]
    seconds = sum(map(len, sequences)) / rate
    vectors = np.stack([tokens[index] for index in kept])
    return {
        "phone_purity": round(found.phone_purity, 4),
        "unit_purity": round(found.unit_purity, 4),
        "phone_information": round(found.phone_information, 4),
        "abx": round(abx_error(vectors, [classes[index] for index in kept], max_tokens=30), 4),
        "bitrate": round(bitrate(single, seconds), 1),
        "units_per_second": round(sum(map(len, single)) / seconds, 2),
    }


def phones_of_frames(phones: Sequence[PhoneTime], num_frames: int, rate: float) -> list[str]:
    """Return the phone in the middle of each frame, without stress; pauses are ""."""
    starts = np.array([phone.start for phone in phones])
    middles = (np.arange(num_frames) + 0.5) / rate
    places = np.searchsorted(starts, middles, side="right") - 1
    return ["" if place < 0 else plain(phones[place].phone) for place in places]


def phone_spans(
    phones: Sequence[PhoneTime], num_frames: int, rate: float
) -> list[tuple[str, int, int]]:
    """Return each phone with the frames that it reaches into, at least one; pauses are left out."""
    spans = []
    for phone, following in itertools.pairwise(phones):
        first = round(phone.start * rate)
        end = max(first + 1, round(following.start * rate))
        if plain(phone.phone) and end <= num_frames:
            spans.append((plain(phone.phone), first, end))
    return spans


def plain(phone: str) -> str:
    """Return a phone without stress and length."""
    return phone.strip("',%=:")


if __name__ == "__main__":
    main()
