"""Write the encoder of a run into speechjepa/assets/, with its phones, checksum and model card.

    speechjepa run recipes/pretrained/tiny.yaml --data-root DATA
    speechjepa run recipes/pretrained/tiny_varied.yaml --data-root DATA
    speechjepa run recipes/pretrained/tiny_voices.yaml --data-root DATA
    python tools/ship_encoder.py runs/pretrained-tiny runs/pretrained-tiny-varied \
        runs/pretrained-tiny-voices

Weights are stored in bfloat16; what the front end measured in float32.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from speechjepa.data.synthetic.recorded_voices import VOICES
from speechjepa.models.bundle import (
    WEIGHTS_FILE,
    load_bundle,
    num_parameters,
    save_bundle,
)
from speechjepa.models.shipped import CHECKSUM_FILE, SHIPPED
from speechjepa.nn.tensor_files import save_tensors

ROOT = Path(__file__).resolve().parent.parent
LICENCE = "CC BY-SA 4.0"
MAX_BYTES = 12_000_000
LESSONS = ("first_phones", "second_phones", "finetune")
"""What the bundle calls the lessons in phones."""


def main() -> None:
    """Write the asset."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        help="run folders of tiny.yaml, tiny_varied.yaml and tiny_voices.yaml, each begun from the "
        "one before; instead of the first two, the folder of an encoder that shipped",
    )
    parser.add_argument("--departures", default="", help="how these weights were made otherwise")
    parser.add_argument("-o", "--output", type=Path, default=SHIPPED)
    options = parser.parse_args()
    run: Path = options.runs[-1]
    learnt: list[Any] = []
    for folder in options.runs:
        shipped = (folder / CHECKSUM_FILE).is_file()
        source = load_bundle(folder if shipped else folder / "finetune" / "bundle")
        learnt = with_lessons(learnt, source.training)
    if len(learnt) != 1 + len(LESSONS):
        given = ", ".join(map(str, options.runs))
        raise SystemExit(f"{given}: not a pretraining and {len(LESSONS)} lessons")
    stages = dict(zip(("pretrain", *LESSONS), learnt, strict=True))
    if source.ctc is None:
        raise SystemExit(f"{run}: holds no head of phones")
    source.training, source.licence, source.results = stages, LICENCE, {}
    source.languages = ()
    folder = save_bundle(source, options.output)
    digest = shrink(folder / WEIGHTS_FILE, {name for name, _ in source.ctc.named_parameters()})
    (folder / CHECKSUM_FILE).write_text(f"{digest}  {WEIGHTS_FILE}\n", encoding="ascii")
    phone_error = json.loads((run / "evaluate" / "results.json").read_text("utf-8"))["cer"]
    card = model_card(stages, source.encoder, phone_error, digest, options.departures)
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    size = (folder / WEIGHTS_FILE).stat().st_size
    if size > MAX_BYTES:
        raise SystemExit(f"{folder / WEIGHTS_FILE}: {size} bytes are more than {MAX_BYTES}")
    print(f"{folder}: {size / 1e6:.1f} MB, {digest}")


def with_lessons(stages: Sequence[Any], training: dict[str, Any]) -> list[Any]:
    """Return the pretraining and the lessons in phones so far, and those that a bundle tells of,
    without where things were on this machine."""
    # A run remembers what it began from, but for the lesson that its own took the place of.
    names = ("finetune",) if stages else ("pretrain", *LESSONS)
    told = [training[name] for name in names if name in training]
    return [*stages, *({k: v for k, v in stage.items() if k != "init"} for stage in told)]


def shrink(path: Path, parameters: set[str]) -> str:
    """Store the trained tensors of a file in bfloat16, and return the file's SHA-256."""
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if name in parameters:
            tensors[name] = tensor.to(torch.bfloat16)
    save_tensors(tensors, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def model_card(
    stages: dict[str, Any], encoder: Any, phone_error: float, digest: str, departures: str
) -> str:
    """Return the model card: data, licence, how it was made, figures."""
    pretrain, first, second, third = (stages[name] for name in ("pretrain", *LESSONS))
    parameters, figures = num_parameters(encoder), "\n".join(_figures(digest))
    departures = f"\n{departures}\n" if departures else ""
    languages = len({voice.language for voice in VOICES.values()})
    return f"""# The encoder that comes with speechjepa: `tiny`, 25 frames per second

{parameters / 1e6:.2f} million parameters, bfloat16. SHA-256 of `{WEIGHTS_FILE}`: `{digest}`.

{_purpose(encoder)}

## How it was made

`speechjepa run` with `recipes/pretrained/tiny.yaml`, `tiny_varied.yaml` and `tiny_voices.yaml`,
then `tools/ship_encoder.py`:

1. JEPA with an EMA teacher and an anchor of MFCC clusters: {pretrain["minutes"]:.0f} minutes on
   one CPU core, {pretrain["steps"]} steps, {pretrain["audio_hours_seen"]:.0f} hours of audio heard,
   of {pretrain["unlabelled_hours"]:.1f} different ones. No text.
2. CTC on phones: {first["minutes"]:.0f} minutes on {first["label_minutes"] / 60:.1f} hours of
   dates, numbers and names, and the prompts.
3. The same for {second["minutes"]:.0f} minutes on {second["label_minutes"] / 60:.1f} hours: other
   synthetic speech, three quarters of its utterances invented words, in voices, rooms and by
   equipment that differ far more; and the prompts.
4. The same for {third["minutes"]:.0f} minutes on {third["label_minutes"] / 60:.1f} hours: that, and
   what {len(VOICES)} voices say that were made of recordings of people.
{departures}
**Stages 2 to 4 are supervised**: the phones are espeak-ng's reading of what synthesisers say, and
of the transcripts of the recorded prompts. Phone error rate on the speech of stage 3 by voices that
it never heard: {100 * phone_error:.1f} %.

## Data

| Corpus | Used in | Licence |
| --- | --- | --- |
| Synthetic speech in 40 languages, rooms and noise added | 1, 2, 3, 4 | espeak-ng's voices |
| Synthetic speech in {languages} languages, the same added | 4 | below |
| Wyandot words and phrases | 1 | CC0 |
| Spoken English digits, six speakers | 1 | CC BY-SA 4.0 |
| English and Spanish telephone prompts | 1, 2, 3, 4 | CC BY-SA 3.0 |
| Portuguese telephone prompts | 1 | CC BY-SA 3.0 |

{_voices()}

No Mboshi and no Cherokee audio.

## Licence

{LICENCE}. Attribution: Free Spoken Digit Dataset; the recorded telephone prompts of Asterisk;
the Wyandot recordings; the voices of espeak-ng, Festival, Flite, SVOX Pico and RHVoice, of which
Leticia-F123 is by Olga Yakovleva and Fernando H. F. Botelho.

## Figures

Ten minutes of labels, fine-tuning alone, greedy decoding on dev, from `results/learning/`:

{figures}

## Limits

The recipes `prompts` and `quickstart` start from fresh weights: this encoder has seen the
transcripts of the prompts, and heard the voices and sentences of the synthesiser.
It has heard no child, little noise of the field and few real voices.
"""


def _purpose(encoder: Any) -> str:
    """Return what it is good for, and how it hears."""
    prior = encoder.config.normalization_prior_seconds
    return f"""## What it is for

The default start of fine-tuning and of further pretraining. By itself it writes phones, in the
alphabet of the IPA without stress, tone and word boundaries; fine-tuning starts the letters of a
language that are also such symbols from them.

Log-mel channels are normalised by the statistics of the utterance, beside which those of training
data weigh as much as {prior:g} s of it; fine-tuning measures them on its own data."""


def _voices() -> str:
    """Return whose voices those of people are, and on what terms."""
    packages = ", ".join(sorted({voice.package for voice in VOICES.values()}))
    return textwrap.fill(
        "The voices of stage 4 are those of Festival, Flite, SVOX Pico and RHVoice, in these "
        f"packages of Debian: {packages}. All that are used may be changed and sold: BSD-like, "
        "LGPL, GPL, CC BY-SA 4.0 or (Pico, whose sources are not there) Apache 2.0. MBROLA's, of "
        "which there are far more, and most others of RHVoice's may not.",
        100,
        break_on_hyphens=False,
    )


def _figures(digest: str) -> list[str]:
    """Return the table of cells that began from fresh weights, and of those that did from these."""
    rows = ["| Column | Start | Seed | CER (%) |", "| --- | --- | --- | --- |"]
    for path in sorted((ROOT / "results" / "learning").glob("*/*.json")):
        cell = json.loads(path.read_text(encoding="utf-8"))
        version = cell["shipped_encoder"]
        began = cell["row"] == "labels_only" or (cell["row"] == "shipped" and version == digest[:8])
        if began and cell["column"].endswith("-10min"):
            rows.append(
                f"| {cell['column']} | {cell['row']} | {cell['seed']} | {100 * cell['cer']:.1f} |"
            )
    return rows


if __name__ == "__main__":
    main()
