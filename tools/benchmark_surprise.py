"""Is a model surprised by speech that was tampered with? Pairwise accuracy on minimal pairs.

    python tools/benchmark_surprise.py --model runs/encoder --data DATA/mboshi/dev \\
        --choose DATA/mboshi/train -o results/surprise.json

Every pair is the same speech with and without one change; every place that is cut, in both, is
faded over 5 ms, so that no click gives the change away. Which score is compared (the error of all
frames or their highest tenth) is chosen on the corpus of --choose. Both sides of a splice are two
recordings that hold the same four halves, so the errors of all their frames are added up: means of
each would weigh a half by how long the other one is. The untrained model has the same sizes and
fresh weights, a predictor of the future the same whitening.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from speechjepa.audio.files import read_audio
from speechjepa.data.readers import read_corpus
from speechjepa.data.utterance import Utterance
from speechjepa.inference.model import SpeechModel, load
from speechjepa.inference.surprise import surprise
from speechjepa.models.bundle import Bundle, fresh_copy
from speechjepa.models.future import FutureModel
from speechjepa.models.pretraining import build_predictor
from speechjepa.workflow.record import make_record, write_json

Samples = NDArray[np.float32]
Pair = tuple[list[Samples], list[Samples]]
"""Natural and changed; several of each where a change needs two recordings."""
SCORES = ("all frames", "peak")
FADE_SECONDS = 0.005
SEGMENT_SECONDS = 0.5
REMOVED_SECONDS = 0.1
MIN_SECONDS, MAX_SECONDS = 2.5, 8.0


def main() -> None:
    """Measure, and write one JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--model", required=True, help="pretrained with the objective future, or jepa"
    )
    parser.add_argument("--data", required=True, help="transcribed or not; speakers must be known")
    parser.add_argument(
        "--choose", required=True, help="another split, that the score is chosen on"
    )
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    trained = load(args.model)
    models = {"trained": trained, "untrained": untrained(trained, args.seed)}
    rng = np.random.default_rng(args.seed)
    chosen = {}
    for kind, make in KINDS.items():
        pairs = make_pairs(trained, read_corpus(args.choose), make, args.pairs // 2, rng)
        right = judge(trained, pairs)
        chosen[kind] = max(SCORES, key=lambda name: right[name].mean())
    found = {}
    for kind, make in KINDS.items():
        pairs = make_pairs(trained, read_corpus(args.data), make, args.pairs, rng)
        found[kind] = {"score": chosen[kind], "pairs": len(pairs)}
        for name, model in models.items():
            right_ones = judge(model, pairs)[chosen[kind]]
            found[kind][name] = float(right_ones.mean())
            found[kind][f"{name}_interval"] = interval(right_ones, rng)
        print(kind, found[kind], flush=True)
    worst = min(float(found[kind]["trained"]) for kind in ("reversed", "other speaker"))  # type: ignore[arg-type]
    record = make_record(
        what="surprise: pairwise accuracy, the lower of reversal and speaker splice",
        figure=100 * worst,
        unit="% of pairs",
        command="python tools/benchmark_surprise.py --model RUN --data mboshi/dev "
        f"--choose mboshi/train --pairs {args.pairs}",
        seed=args.seed,
        trained_on=trained.bundle.training.get("pretrain", {}),
        kinds=found,
    )
    record["trained_on"].pop("init", None)
    if args.output is not None:
        write_json(args.output, record)


def untrained(model: SpeechModel, seed: int) -> SpeechModel:
    """Return a model of the same sizes with fresh weights."""
    torch.manual_seed(seed)
    encoder = fresh_copy(model.bundle.encoder)
    if model.bundle.future is not None:
        known = model.bundle.future.predictor
        fresh = FutureModel(encoder, known.config)
        fresh.predictor.load_state_dict(
            {name: known.get_buffer(name) for name in ("mean", "whitening", "usual")}, strict=False
        )
        return SpeechModel(Bundle(encoder=encoder, future=fresh))
    sizes = model.bundle.predictor_config
    assert sizes is not None
    network = build_predictor(encoder, sizes)
    return SpeechModel(Bundle(encoder=encoder, predictor=network, predictor_config=sizes))


def judge(model: SpeechModel, pairs: list[Pair]) -> dict[str, NDArray[np.float64]]:
    """Return for each score and pair 1 where the changed speech surprises more, 1/2 for a tie,
    else 0."""

    def totals(waves: list[Samples]) -> NDArray[np.float64]:
        heard = [surprise(model, torch.from_numpy(wave)) for wave in waves]
        every = sum(one.score * len(one.error) for one in heard)
        return np.array([every, sum(one.peak for one in heard)])

    differences = np.array([totals(changed) - totals(natural) for natural, changed in pairs])
    return dict(zip(SCORES, ((1 + np.sign(differences)) / 2).T, strict=True))


def interval(values: NDArray[np.float64], rng: np.random.Generator) -> list[float]:
    """Return the bootstrap 95 % interval of a mean."""
    draws = rng.choice(values, (2000, len(values))).mean(axis=1)
    return [float(bound) for bound in np.percentile(draws, [2.5, 97.5])]


def make_pairs(
    model: SpeechModel,
    utterances: list[Utterance],
    make: Callable[[Samples, Samples, int, np.random.Generator], Pair | None],
    count: int,
    rng: np.random.Generator,
) -> list[Pair]:
    """Return `count` pairs, of recordings drawn at random with a partner as `make` needs it."""
    rate = model.sample_rate
    usable = [u for u in utterances if MIN_SECONDS <= (u.duration or 0) <= MAX_SECONDS]
    pairs: list[Pair] = []
    for index in rng.permutation(len(usable)):
        first = usable[index]
        others = [u for u in usable if partners(make, first, u)]
        second = others[int(rng.integers(len(others)))] if others else first
        waves = [
            read_audio(u.audio_path, sample_rate=rate, start=u.start, duration=u.duration)
            for u in (first, second)
        ]
        pair = make(waves[0], waves[1], rate, rng)
        if pair is not None and (others or make.__name__ not in NEEDS_PARTNER):
            pairs.append(pair)
        if len(pairs) == count:
            break
    return pairs


def join(pieces: list[Samples], rate: int) -> Samples:
    """Return the pieces in a row, each faded in and out where it meets another."""
    ramp = np.linspace(0, 1, int(FADE_SECONDS * rate), dtype=np.float32)
    faded = []
    for index, piece in enumerate(pieces):
        piece = piece.copy()
        if index:
            piece[: len(ramp)] *= ramp
        if index + 1 < len(pieces):
            piece[-len(ramp) :] *= ramp[::-1]
        faded.append(piece)
    return np.concatenate(faded)


def middle(wave: Samples, seconds: float, rate: int, rng: np.random.Generator) -> int:
    """Return where a loud stretch starts, away from both ends (samples)."""
    size, margin = int(seconds * rate), rate // 2
    starts = rng.integers(margin, len(wave) - margin - size, 8)
    return int(max(starts, key=lambda start: float(np.abs(wave[start : start + size]).mean())))


def reversed_segment(
    wave: Samples, other: Samples, rate: int, rng: np.random.Generator
) -> Pair | None:
    """Half a second runs backwards."""
    start = middle(wave, SEGMENT_SECONDS, rate, rng)
    end = start + int(SEGMENT_SECONDS * rate)
    pieces = [wave[:start], wave[start:end], wave[end:]]
    return [join(pieces, rate)], [join([pieces[0], pieces[1][::-1], pieces[2]], rate)]


def removed(wave: Samples, other: Samples, rate: int, rng: np.random.Generator) -> Pair | None:
    """A tenth of a second is missing; as much is missing at the end of the natural one."""
    start = middle(wave, REMOVED_SECONDS, rate, rng)
    size = int(REMOVED_SECONDS * rate)
    natural = [wave[:start], wave[start : len(wave) - size]]
    return [join(natural, rate)], [join([wave[:start], wave[start + size :]], rate)]


def splice(wave: Samples, other: Samples, rate: int, rng: np.random.Generator) -> Pair | None:
    """Two recordings exchange what follows a cut: the four halves are the same in both."""
    cuts = [middle(w, 0.02, rate, rng) for w in (wave, other)]
    level = [float(np.sqrt(np.square(w).mean())) + 1e-6 for w in (wave, other)]
    waves = [w * (0.05 / rms) for w, rms in zip((wave, other), level, strict=True)]
    (a, b), (c, d) = ((w[:cut], w[cut:]) for w, cut in zip(waves, cuts, strict=True))
    return [join([a, b], rate), join([c, d], rate)], [join([a, d], rate), join([c, b], rate)]


def other_speaker(
    wave: Samples, other: Samples, rate: int, rng: np.random.Generator
) -> Pair | None:
    """A splice with another speaker."""
    return splice(wave, other, rate, rng)


def other_place(wave: Samples, other: Samples, rate: int, rng: np.random.Generator) -> Pair | None:
    """A splice with another recording of the same speaker."""
    return splice(wave, other, rate, rng)


def control(wave: Samples, other: Samples, rate: int, rng: np.random.Generator) -> Pair | None:
    """Cut and joined again, at one place or at another: nothing is changed in either."""
    first, second = (middle(wave, 0.02, rate, rng) for _ in range(2))
    if first == second:
        return None
    return [join([wave[:first], wave[first:]], rate)], [join([wave[:second], wave[second:]], rate)]


KINDS = {
    "reversed": reversed_segment,
    "other speaker": other_speaker,
    "same speaker, other place": other_place,
    "100 ms removed": removed,
    "control": control,
}
NEEDS_PARTNER = ("other_speaker", "other_place")


def partners(make: Callable[..., Pair | None], first: Utterance, second: Utterance) -> bool:
    """Say whether `make` may join these two recordings."""
    if first.id == second.id or make.__name__ not in NEEDS_PARTNER:
        return False
    return (first.speaker != second.speaker) == (make is other_speaker)


if __name__ == "__main__":
    main()
