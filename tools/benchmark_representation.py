"""What frames of an encoder tell apart: ABX error, a linear probe of characters, RankMe.

    python tools/benchmark_representation.py --aligner runs/all --data DATA/mboshi/dev --models \\
        shipped=shipped jepa_ema=runs/a contrastive=runs/b -o results/representation.json

No labels beyond the transcripts: the fine-tuned model of --aligner says when each character is
spoken, the same times for every encoder. It should be the best one that there is, trained on all
labels: by the times of a weak one all encoders look alike (docs/LOG.md). Every character is one
vector per layer, interpolated between the two frames around its middle. The probe, a logistic
regression, is trained on every other utterance and measured on the rest. RankMe is that of the
vectors as they are; for the other two they are standardised. The ends of the scale are measured
beside the models: `fresh`, weights of the sizes of the first that were never trained, and
`aligner`, the encoder that learnt from all labels.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from speechjepa.data.readers import read_corpus
from speechjepa.data.utterance import Utterance
from speechjepa.inference.align import align_tokens
from speechjepa.inference.model import SpeechModel, load
from speechjepa.inference.recognise import read_utterance
from speechjepa.metrics.abx import abx_error
from speechjepa.metrics.collapse import rankme
from speechjepa.models.bundle import Bundle, fresh_copy
from speechjepa.models.shipped import shipped_version
from speechjepa.text.normalize import normalize_text
from speechjepa.workflow.record import make_record, write_json

MIN_TOKENS = 20
"""Characters seen fewer times are left out."""
FRESH, ALIGNER = "fresh", "aligner"

Spoken = Sequence[tuple[str, float]]
"""Characters, each with the middle of its time (seconds)."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every model, and write one JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--aligner", required=True, help="a fine-tuned model of the language")
    parser.add_argument("--data", required=True, help="transcribed utterances")
    parser.add_argument("--models", nargs="+", required=True, metavar="NAME=MODEL")
    parser.add_argument("--utterances", type=int, default=200, help="evenly spaced (default: 200)")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args(arguments)
    named = [text.partition("=")[::2] for text in args.models]
    aligner = load(args.aligner)
    models = {name: load(path) for name, path in named}
    first = next(iter(models.values()))
    torch.manual_seed(0)
    fresh = fresh_copy(first.bundle.encoder)
    models = {FRESH: SpeechModel(Bundle(encoder=fresh)), **models, ALIGNER: aligner}
    everything = [u for u in read_corpus(args.data) if u.text]
    number = min(args.utterances, len(everything))
    chosen = np.linspace(0, len(everything) - 1, number).round().astype(int)
    utterances = [everything[index] for index in chosen]
    places = [characters(aligner, utterance) for utterance in utterances]
    found = {}
    for name, model in models.items():
        found[name] = measure(model, utterances, places)
        print(name, summary(found[name]), flush=True)
    best = {name: min(layer["abx"] for layer in layers) for name, layers in found.items()}
    lowest = min((name for name, _ in named), key=lambda name: best[name])
    corpus = "/".join(Path(args.data).parts[-2:])
    record = make_record(
        what=f"representation: ABX error of {lowest}, the lowest of the encoders compared, "
        f"characters of {corpus} (never trained: {100 * best[FRESH]:.1f} %, "
        f"trained on all labels: {100 * best[ALIGNER]:.1f} %)",
        figure=100 * best[lowest],
        unit="% of triples",
        command=f"python tools/benchmark_representation.py --aligner RUN --data DATA/{corpus} "
        f"--utterances {args.utterances} --models {' '.join(f'{name}=MODEL' for name, _ in named)}",
        seed=0,
        aligner=aligner.bundle.results,
        shipped_encoder=shipped_version() if "shipped" in dict(named) else None,
        utterances=len(utterances),
        characters=sum(map(len, places)),
        layers=found,
        cpu_minutes=time.process_time() / 60,
    )
    if args.output is not None:
        write_json(args.output, record)


def characters(aligner: SpeechModel, utterance: Utterance) -> list[tuple[str, float]]:
    """Return the characters of an utterance, each with the middle of its time (seconds)."""
    text = normalize_text(utterance.text or "", aligner.text_config)
    token_ids = aligner.vocabulary.encode(text, unknown="drop")
    wave = read_utterance(utterance, aligner.sample_rate)
    logits, lengths = aligner.logits(torch.from_numpy(wave)[None])
    frames = logits[0, : int(lengths[0])]
    if not token_ids:
        return []
    spans = align_tokens(frames, token_ids)
    symbols = aligner.vocabulary.symbols
    return [
        (symbols[token], (span.first_frame + span.end_frame) / 2 * aligner.frame_seconds)
        for token, span in zip(token_ids, spans, strict=True)
        if token != aligner.vocabulary.word_boundary_id
    ]


def frames_at(
    layer: NDArray[np.float32], seconds: NDArray[np.float64], rate: float
) -> NDArray[np.float32]:
    """Return vectors (N, D) of a layer (T, D) at times (N,), between the two frames around each.

    Frame t stands for its middle, (t + 0.5) / rate; before the first and after the last, for them.
    """
    place = np.clip(seconds * rate - 0.5, 0, len(layer) - 1)
    below = np.floor(place).astype(int)
    above = np.minimum(below + 1, len(layer) - 1)
    share = (place - below).astype(np.float32)[:, None]
    return layer[below] * (1 - share) + layer[above] * share


def measure(
    model: SpeechModel, utterances: Sequence[Utterance], places: Sequence[Spoken]
) -> list[Mapping[str, float]]:
    """Return for every layer its ABX error, probe error and RankMe."""
    vectors: list[list[NDArray[np.float32]]] = []
    for utterance, spoken in zip(utterances, places, strict=True):
        wave = torch.from_numpy(read_utterance(utterance, model.sample_rate))[None]
        layers = model.encode(wave, return_layers=True).layers
        assert layers is not None
        seconds = np.array([middle for _, middle in spoken], dtype=np.float64)
        rate = model.sample_rate / model.hop
        vectors = vectors or [[] for _ in layers]
        for layer, into in zip(layers, vectors, strict=True):
            into.append(frames_at(layer[0].float().cpu().numpy(), seconds, rate))
    classes = np.array([symbol for spoken in places for symbol, _ in spoken])
    trains = np.array([i % 2 == 0 for i, spoken in enumerate(places) for _ in spoken])
    counts = Counter(classes.tolist())
    kept = np.array([counts[symbol] >= MIN_TOKENS for symbol in classes.tolist()])
    return [
        layer_figures(np.concatenate(rows)[kept], classes[kept], trains[kept]) for rows in vectors
    ]


def layer_figures(
    vectors: NDArray[np.float32], classes: NDArray[np.str_], trains: NDArray[np.bool_]
) -> Mapping[str, float]:
    """Return the figures of one layer from vectors (N, D) of characters (N,).

    Args:
        vectors: As the layer gives them.
        classes: What each is.
        trains: Whether the probe learns from it, or is measured on it.
    """
    from sklearn.linear_model import LogisticRegression

    rank = float(rankme(torch.from_numpy(vectors)))
    vectors = (vectors - vectors.mean(axis=0)) / (vectors.std(axis=0) + 1e-5)
    probe = LogisticRegression(C=0.01, max_iter=200).fit(vectors[trains], classes[trains])
    return {
        "abx": abx_error(vectors, list(classes)),
        "probe_error": 1 - float(probe.score(vectors[~trains], classes[~trains])),
        "rank_me": rank,
    }


def summary(layers: Sequence[Mapping[str, float]]) -> str:
    """Return the best layers of an encoder in words."""
    parts = []
    for key, name in (("abx", "ABX error"), ("probe_error", "probe error")):
        best = min(range(len(layers)), key=lambda index: layers[index][key])
        parts.append(f"{name} {layers[best][key]:.1%} (layer {best})")
    return f"{', '.join(parts)}, RankMe of the last layer {layers[-1]['rank_me']:.0f}"


if __name__ == "__main__":
    main()
