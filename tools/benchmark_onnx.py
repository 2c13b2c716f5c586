"""What does a model lose on its way to onnxruntime, in float32 and in int8?

    python tools/benchmark_onnx.py --model shipped --data DATA/digits/dev DATA/mboshi/dev

Writes the model both ways, runs both and the model itself over the first recordings of each folder,
padded in batches, and counts: the largest difference of a logit, the share of frames with the same
best symbol, and how far the greedy texts are apart. Writes results/onnx.json. Nothing is timed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from rapidfuzz.distance import Levenshtein

from speechjepa.audio.files import read_audio
from speechjepa.data.readers import read_corpus
from speechjepa.inference.model import SpeechModel, load
from speechjepa.models.export_onnx import write_onnx
from speechjepa.models.shipped import shipped_version
from speechjepa.workflow.record import make_record, write_json

ROOT = Path(__file__).resolve().parent.parent
BATCH = 4


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="shipped")
    parser.add_argument("--data", nargs="+", required=True, help="folders of speech")
    parser.add_argument("--recordings", type=int, default=100, help="of each folder (100)")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results" / "onnx.json")
    args = parser.parse_args()
    model = load(args.model)
    corpora = {
        Path(folder).parent.name: _recordings(folder, args.recordings) for folder in args.data
    }
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for precision in ("float32", "int8"):
            report = write_onnx(model.bundle, Path(scratch) / precision, int8=precision == "int8")
            found = {name: compare(model, report.path, clips) for name, clips in corpora.items()}
            measured[precision] = {"megabytes": round(report.megabytes, 1), **found}
            for name, one in found.items():
                print(
                    f"{precision} on {name}: logits differ by at most "
                    f"{one['logit_difference']:.2g}, {one['same_frames']:.2%} of frames the same, "
                    f"texts {one['text_distance']:.2%} apart, {one['same_texts']} of "
                    f"{one['recordings']} equal"
                )
    worst = max(one["text_distance"] for one in measured["int8"].values() if isinstance(one, dict))
    record = make_record(
        what="greedy text of the int8 onnx model against the model's own, the worst corpus",
        figure=round(100 * worst, 2),
        unit="% of characters",
        command="python tools/benchmark_onnx.py --model shipped --data DATA/digits/dev "
        "DATA/mboshi/dev",
        seed=None,
        model=str(args.model),
        shipped_encoder=shipped_version() if str(args.model) == "shipped" else None,
        **measured,
    )
    write_json(args.output, record)


def _recordings(folder: str, count: int) -> list[torch.Tensor]:
    paths = [utterance.audio_path for utterance in read_corpus(folder)[:count]]
    return [torch.as_tensor(read_audio(path)) for path in paths]


def compare(model: SpeechModel, path: Path, clips: list[torch.Tensor]) -> dict[str, Any]:
    """Return how far onnxruntime's output is from the model's own."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    largest, same, frames, edits, characters, equal = 0.0, 0, 0, 0, 0, 0
    for start in range(0, len(clips), BATCH):
        batch = clips[start : start + BATCH]
        lengths = torch.tensor([len(clip) for clip in batch])
        waveform = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
        ours, counts = model.logits(waveform, lengths)
        theirs, _ = session.run(None, {"waveform": waveform.numpy(), "lengths": lengths.numpy()})
        for row, count in enumerate(counts.tolist()):
            a, b = ours[row, :count], torch.from_numpy(theirs[row, :count])
            best = [a.argmax(dim=1).tolist(), b.argmax(dim=1).tolist()]
            texts = [model.vocabulary.decode_ctc(path) for path in best]
            largest = max(largest, float((a - b).abs().max()) if count else 0.0)
            same += sum(x == y for x, y in zip(*best, strict=True))
            frames += count
            edits += Levenshtein.distance(*texts)
            characters += len(texts[0])
            equal += texts[0] == texts[1]
    return {
        "recordings": len(clips),
        "logit_difference": largest,
        "same_frames": same / max(1, frames),
        "text_distance": edits / max(1, characters),
        "same_texts": equal,
    }


if __name__ == "__main__":
    main()
