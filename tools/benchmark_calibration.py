"""Do the scores of words mean what they say?

    python tools/benchmark_calibration.py --model runs/mboshi-asr-10min --data DATA/mboshi/dev

Transcribes a dev set by the best path and, where the model has a language model, by beam search;
measures the expected calibration error of the scores before and after calibration, fitted on the
very words and on the other half of the utterances; writes results/calibration.json. The model
is not changed: the stage `evaluate` of a recipe stores the map.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from speechjepa.data.readers import read_corpus
from speechjepa.inference.evaluate import evaluate
from speechjepa.inference.model import load
from speechjepa.workflow.record import make_record, write_json

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", required=True, help="transcribed speech")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results" / "calibration.json")
    args = parser.parse_args()
    found = evaluate(load(args.model), read_corpus(args.data))
    measured = {key: value for key, value in found.results["confidence"].items() if value}
    for name, one in measured.items():
        print(
            f"{name}: {one['num_words']} words, {one['accuracy']:.1%} right; ECE of the mean "
            f"posterior {one['ece_mean_posterior']:.3f}, temperature alone "
            f"{one['ece_temperature_only']:.3f}, fitted {one['ece_fitted']:.3f}, on the other half "
            f"{one['ece_held_out']:.3f}; area under ROC {one['area_under_roc']:.3f} (mean "
            f"posterior {one['area_under_roc_mean_posterior']:.3f})"
        )
    record = make_record(
        what="scores of words: expected calibration error on the half of "
        f"{Path(args.data).parent.name} dev that the map was not fitted on, the worse decoding",
        figure=round(max(one["ece_held_out"] for one in measured.values()), 4),
        unit="ECE",
        command="python tools/benchmark_calibration.py --model MODEL --data DATA/mboshi/dev",
        seed=None,
        model=args.model.resolve().name,
        cer=found.cer,
        cer_lm=found.cer_lm,
        wer=found.wer,
        wer_lm=found.wer_lm,
        decoding=measured,
    )
    write_json(args.output, record)


if __name__ == "__main__":
    main()
