"""Write the encoder of a run into speechjepa/assets/, with its phones, checksum and model card.

    speechjepa run recipes/pretrained/tiny.yaml --data-root DATA
    speechjepa run recipes/pretrained/tiny_varied.yaml --data-root DATA
    python tools/ship_encoder.py runs/pretrained-tiny runs/pretrained-tiny-varied

Weights are stored in bfloat16; everything that is not trained (window, mel filters) in float32.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from speechjepa.models.bundle import (
    WEIGHTS_FILE,
    Bundle,
    load_bundle,
    num_parameters,
    save_bundle,
)
from speechjepa.models.shipped import CHECKSUM_FILE, SHIPPED
from speechjepa.nn.tensor_files import save_tensors

ROOT = Path(__file__).resolve().parent.parent
LICENCE = "CC BY-SA 4.0"
MAX_BYTES = 12_000_000


def main() -> None:
    """Write the asset."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("first", type=Path, help="run folder of recipes/pretrained/tiny.yaml")
    parser.add_argument("run", type=Path, help="run folder of tiny_varied.yaml, begun from it")
    parser.add_argument("--departures", default="", help="how these weights were made otherwise")
    parser.add_argument("-o", "--output", type=Path, default=SHIPPED)
    options = parser.parse_args()
    run: Path = options.run
    first = load_bundle(options.first / "finetune" / "bundle")
    source = load_bundle(run / "finetune" / "bundle")
    stages = {
        "pretrain": _settings(source, "pretrain"),
        "first_phones": _settings(first, "finetune"),
        "finetune": _settings(source, "finetune"),
    }
    if source.ctc is None:
        raise SystemExit(f"{run}: holds no head of phones")
    source.training, source.licence, source.results = stages, LICENCE, {}
    source.languages = ()
    folder = save_bundle(source, options.output)
    digest = shrink(folder / WEIGHTS_FILE, {name for name, _ in source.ctc.named_parameters()})
    (folder / CHECKSUM_FILE).write_text(f"{digest}  {WEIGHTS_FILE}\n", encoding="ascii")
    phone_error = json.loads((run / "evaluate" / "results.json").read_text("utf-8"))["cer"]
    card = model_card(
        stages, num_parameters(source.encoder), phone_error, digest, options.departures
    )
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    size = (folder / WEIGHTS_FILE).stat().st_size
    if size > MAX_BYTES:
        raise SystemExit(f"{folder / WEIGHTS_FILE}: {size} bytes are more than {MAX_BYTES}")
    print(f"{folder}: {size / 1e6:.1f} MB, {digest}")


def _settings(bundle: Bundle, stage: str) -> dict[str, Any]:
    """Return what a bundle says about a stage, without where things were on this machine."""
    return {key: value for key, value in bundle.training[stage].items() if key != "init"}


def shrink(path: Path, parameters: set[str]) -> str:
    """Store the trained tensors of a file in bfloat16, and return the file's SHA-256."""
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if name in parameters:
            tensors[name] = tensor.to(torch.bfloat16)
    save_tensors(tensors, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def model_card(
    stages: dict[str, Any], parameters: int, phone_error: float, digest: str, departures: str
) -> str:
    """Return the model card: data, licence, how it was made, figures."""
    pretrain, first, second = (stages[k] for k in ("pretrain", "first_phones", "finetune"))
    figures = "\n".join(_figures(digest))
    departures = f"\n{departures}\n" if departures else ""
    return f"""# The encoder that comes with speechjepa: `tiny`, 25 frames per second

{parameters / 1e6:.2f} million parameters, bfloat16. SHA-256 of `{WEIGHTS_FILE}`: `{digest}`.

## What it is for

The default start of fine-tuning and of further pretraining. By itself it writes phones, in the
alphabet of the IPA without stress, tone and word boundaries; fine-tuning starts the letters of a
language that are also such symbols from them.

## How it was made

`speechjepa run` with `recipes/pretrained/tiny.yaml` and `tiny_varied.yaml`, then
`tools/ship_encoder.py`:

1. JEPA with an EMA teacher and an anchor of MFCC clusters: {pretrain["minutes"]:.0f} minutes on
   one CPU core, {pretrain["steps"]} steps, {pretrain["audio_hours_seen"]:.0f} hours of audio heard,
   of {pretrain["unlabelled_hours"]:.1f} different ones. No text.
2. CTC on phones: {first["minutes"]:.0f} minutes on {first["label_minutes"] / 60:.1f} hours of
   dates, numbers and names, and the prompts.
3. The same for {second["minutes"]:.0f} minutes on {second["label_minutes"] / 60:.1f} hours: other
   synthetic speech, three quarters of its utterances invented words, in voices, rooms and by
   equipment that differ far more; and the prompts.
{departures}
**Stages 2 and 3 are supervised**: the phones are espeak-ng's reading of what its voices say, and of
the transcripts of the recorded prompts. Phone error rate on such varied speech by voices that it
never heard: {100 * phone_error:.1f} %.

## Data

| Corpus | Used in | Licence |
| --- | --- | --- |
| Synthetic speech in 40 languages, rooms and noise added | 1, 2, 3 | espeak-ng's voices |
| Wyandot words and phrases | 1 | CC0 |
| Spoken English digits, six speakers | 1 | CC BY-SA 4.0 |
| English and Spanish telephone prompts | 1, 2, 3 | CC BY-SA 3.0 |
| Portuguese telephone prompts | 1 | CC BY-SA 3.0 |

No Mboshi and no Cherokee audio.

## Licence

{LICENCE}. Attribution: Free Spoken Digit Dataset; the recorded telephone prompts of Asterisk;
the Wyandot recordings; the voices of espeak-ng.

## Figures

Ten minutes of labels, fine-tuning alone, greedy decoding on dev, from `results/learning/`:

{figures}

## Limits

The recipes `prompts` and `quickstart` start from fresh weights: this encoder has seen the
transcripts of the prompts, and heard the voices and sentences of the synthesiser.
It has heard no child, little noise of the field and few real voices.
"""


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
