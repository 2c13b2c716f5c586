"""What frames of an encoder tell apart: ABX error, a linear probe of characters, RankMe.

    python tools/benchmark_representation.py --aligner runs/mboshi --data DATA/mboshi/dev \\
        --models jepa=runs/a contrastive=runs/b -o results/representation.json

No labels beyond the transcripts: the fine-tuned model of --aligner says when each character is
spoken. Every character is one vector, the mean of the frames around its middle. The probe is
trained on the first half of the utterances and measured on the other.
"""

from __future__ import annotations

import argparse
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
from speechjepa.models.bundle import Bundle, build_encoder
from speechjepa.text.normalize import normalize_text
from speechjepa.workflow.record import make_record, write_json

MIN_TOKENS = 20
"""Characters seen fewer times are left out."""


def main() -> None:
    """Measure every model, and write one JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--aligner", required=True, help="a fine-tuned model of the language")
    parser.add_argument("--data", required=True, help="transcribed utterances")
    parser.add_argument("--models", nargs="+", required=True, metavar="NAME=MODEL")
    parser.add_argument("--utterances", type=int, default=300)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    aligner = load(args.aligner)
    utterances = [u for u in read_corpus(args.data) if u.text][: args.utterances]
    places = [characters(aligner, utterance) for utterance in utterances]
    named = [text.partition("=")[::2] for text in args.models]
    models = {name: load(path) for name, path in named}
    first = next(iter(models.values()))
    torch.manual_seed(0)
    fresh = build_encoder(first.bundle.encoder.config)  # type: ignore[arg-type]
    models = {"fresh": SpeechModel(Bundle(encoder=fresh)), **models}
    found = {}
    for name, model in models.items():
        found[name] = measure(model, utterances, places)
        print(name, found[name], flush=True)
    best = min(layer["abx"] for name in models if name != "fresh" for layer in found[name])
    record = make_record(
        what="representation: lowest ABX error of a pretrained encoder, characters of mboshi/dev",
        figure=100 * best,
        unit="% of triples",
        command="python tools/benchmark_representation.py --aligner RUN --data mboshi/dev "
        f"--models {' '.join(f'{name}=RUN' for name, _ in named)}",
        seed=0,
        utterances=len(utterances),
        layers=found,
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


def measure(
    model: SpeechModel,
    utterances: Sequence[Utterance],
    places: Sequence[Sequence[tuple[str, float]]],
) -> list[Mapping[str, float]]:
    """Return for every layer its ABX error, probe error and RankMe."""
    vectors: list[list[NDArray[np.float32]]] = []
    names: list[str] = []
    half = 0
    rate = model.sample_rate / model.hop
    for index, (utterance, spoken) in enumerate(zip(utterances, places, strict=True)):
        if index == len(utterances) // 2:
            half = len(names)
        wave = torch.from_numpy(read_utterance(utterance, model.sample_rate))[None]
        layers = model.encode(wave, return_layers=True).layers
        assert layers is not None
        vectors = vectors or [[] for _ in layers]
        for symbol, seconds in spoken:
            middle = min(int(seconds * rate), layers[0].shape[1] - 1)
            names.append(symbol)
            for layer, into in zip(layers, vectors, strict=True):
                into.append(layer[0, max(0, middle - 1) : middle + 2].mean(dim=0).numpy())
    classes = np.array(names)
    counts = {name: int((classes == name).sum()) for name in set(names)}
    kept = np.array([counts[name] >= MIN_TOKENS for name in names])
    return [
        layer_figures(np.stack(rows)[kept], classes[kept], int(kept[:half].sum()))
        for rows in vectors
    ]


def layer_figures(
    vectors: NDArray[np.float32], classes: NDArray[np.str_], half: int
) -> Mapping[str, float]:
    """Return the figures of one layer; its vectors are standardised first."""
    from sklearn.linear_model import LogisticRegression

    vectors = (vectors - vectors.mean(axis=0)) / (vectors.std(axis=0) + 1e-5)
    probe = LogisticRegression(C=0.01, max_iter=200).fit(vectors[:half], classes[:half])
    return {
        "abx": abx_error(vectors, list(classes)),
        "probe_error": 1 - float(probe.score(vectors[half:], classes[half:])),
        "rank_me": float(rankme(torch.from_numpy(vectors))),
    }


if __name__ == "__main__":
    main()
