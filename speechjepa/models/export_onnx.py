"""Write a model as onnx, to be run without this package, or without Python."""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from speechjepa.errors import DataError, ModelError
from speechjepa.models.bundle import Bundle
from speechjepa.text.vocabulary import WORD_BOUNDARY

ONNX_FILE = "model.onnx"
OPSET = 17
TOLERANCE = 1e-3
"""Largest difference of a logit from this package's own that a float32 model may have."""
MAX_PROTOBUF = 1 << 30
"""Bytes of weights above which they go into a file beside the model: protobuf ends at 2 GB."""


@dataclass(frozen=True)
class OnnxReport:
    """What was written, and how it compares with the model it was made from."""

    path: Path
    """The model's file."""
    megabytes: float
    """Size of all its files."""
    difference: float
    """Largest difference of a logit on the test signal, batches with padding among it."""
    same_frames: float
    """Share of the frames of the test signal in which the same symbol is the best."""


class _Graph(nn.Module):
    """What is recorded: any number of utterances of any length, zero samples included."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.model: nn.Module = copy.deepcopy(bundle.ctc or bundle.encoder).cpu().eval()
        for module in list(self.model.modules()):
            if parametrize.is_parametrized(module):  # the weight norm of positions
                parametrize.remove_parametrizations(module, "weight")
        encoder = bundle.encoder
        self.has_head = bundle.ctc is not None
        self.block = encoder.hop
        # Enough for one frame whatever comes, so that nothing recorded depends on the length.
        self.spare = max(encoder.hop, getattr(encoder.feature_encoder, "receptive_field", 0))

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        size = waveform.shape[1]
        padded = functional.pad(waveform, (0, self.spare + (-size) % self.block))
        output = self.model(padded, lengths)
        values, counts = output if self.has_head else (output.features, output.lengths)
        return values[:, : counts.max()], counts


def write_onnx(bundle: Bundle, folder: str | Path, *, int8: bool = False) -> OnnxReport:
    """Write a folder with model.onnx, and compare what onnxruntime makes of it with the model.

    Inputs: `waveform` (B, S) float32 at `sample_rate`, `lengths` (B,) int64 samples. Outputs:
    `logits` (B, T, V) float32 and their `output_lengths` (B,) int64; of a model without a head
    `features` (B, T, D). What a program needs besides is JSON in the metadata, `speechjepa`.

    Args:
        bundle: The model.
        folder: Where to; new or empty.
        int8: Store the weights of the blocks' matrix products in 8 bits, a scale for each channel,
            and compute in 8 bits with ranges found as it runs.

    Raises:
        ModelError: onnx is not installed, or what was written does not compute the same.
        DataError: The folder holds something.
    """
    folder = Path(folder)
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ModelError(f'{error}; install it with `pip install "speechjepa[onnx]"`') from error
    if folder.exists() and any(folder.iterdir()):
        raise DataError("holds something already; name another folder", path=folder)
    graph = _Graph(bundle).eval()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # In the folder itself: what holds may be large, and is moved into place at once.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as scratch:
            written = _write(graph, bundle, Path(scratch), int8)
            difference, same_frames = _compare(graph, written)
            if not int8 and not difference <= TOLERANCE:
                raise ModelError(
                    f"onnxruntime's output differs by {difference:.2g} from the model's, at most "
                    f"{TOLERANCE} is allowed: nothing is written; please report this with the "
                    "versions of torch and onnxruntime"
                )
            files = sorted(written.parent.iterdir())
            size = sum(file.stat().st_size for file in files)
            for file in files:
                file.replace(folder / file.name)
    except ModelError:
        folder.rmdir()
        raise
    return OnnxReport(folder / ONNX_FILE, size / 1e6, difference, same_frames)


def _write(graph: _Graph, bundle: Bundle, scratch: Path, int8: bool) -> Path:
    import onnx

    path = scratch / "ready" / ONNX_FILE
    recorded = scratch / "recorded" / ONNX_FILE
    path.parent.mkdir()
    recorded.parent.mkdir()
    _record(graph, recorded)
    model = onnx.load(recorded)
    if int8:
        model = _quantize(model, scratch)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {"speechjepa": json.dumps(_metadata(bundle, int8))})
    is_large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > MAX_PROTOBUF
    onnx.save_model(model, path, save_as_external_data=is_large, location=ONNX_FILE + ".weights")
    return path


def _record(graph: _Graph, path: Path) -> None:
    waveform, lengths = _test_signal(graph)
    output = "logits" if graph.has_head else "features"
    axes = {0: "utterances"}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # Traced values that are constants here, and the tracer's own age.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph,
                (waveform, lengths),
                path,
                dynamo=False,
                opset_version=OPSET,
                input_names=["waveform", "lengths"],
                output_names=[output, "output_lengths"],
                dynamic_axes={
                    "waveform": {**axes, 1: "samples"},
                    "lengths": axes,
                    output: {**axes, 1: "frames"},
                    "output_lengths": axes,
                },
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"this model cannot be written as onnx: {reason}") from error


def _quantize(model: Any, scratch: Path) -> Any:
    """Return the model with the weights of its blocks' matrix products in 8 bits.

    The front end stays as it is: the range of a spectrum is far wider than 8 bits. So does the
    head, whose rounding would go straight into the scores.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quant_pre_process, quantize_dynamic

    names = [
        node.name
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm") and "/blocks." in node.name
    ]
    source, target = scratch / "float.onnx", scratch / "int8.onnx"
    onnx.save_model(model, source, save_as_external_data=True, location="float.weights")
    prepared = scratch / "prepared.onnx"
    quant_pre_process(
        source,
        prepared,
        skip_optimization=True,
        skip_symbolic_shape=True,
        save_as_external_data=True,
        external_data_location="prepared.weights",
    )
    quantize_dynamic(
        prepared,
        target,
        weight_type=QuantType.QInt8,
        per_channel=True,
        nodes_to_quantize=names,
        use_external_data_format=True,
    )
    return onnx.load(target)


def _metadata(bundle: Bundle, int8: bool) -> dict[str, Any]:
    """Return what a program needs to feed the model and to read its output."""
    encoder = bundle.encoder
    upsample = 1 if bundle.ctc is None else bundle.ctc.upsample
    return {
        "sample_rate": encoder.sample_rate,
        "waveform": "mono, float32, -1 to 1; normalised inside the model where it has to be",
        "frame_seconds": encoder.hop / encoder.sample_rate / upsample,
        "vocabulary": None if bundle.vocabulary is None else bundle.vocabulary.to_list(),
        "blank_id": None if bundle.vocabulary is None else bundle.vocabulary.blank_id,
        "word_boundary": None if bundle.vocabulary is None else WORD_BOUNDARY,
        "languages": list(bundle.languages),
        "precision": "int8" if int8 else "float32",
        "licence": bundle.licence,
    }


def _test_signal(graph: _Graph) -> tuple[Tensor, Tensor]:
    """Return two utterances of tones in noise, one of them padded."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(3 * 16000) / 16000
    pitch = 150 * 2 ** (time * 8).floor().remainder(4)
    tones = torch.sin(2 * torch.pi * torch.stack([pitch, 1.5 * pitch]) * time)
    noise = torch.randn(tones.shape, generator=generator)
    return 0.2 * tones + 0.02 * noise, torch.tensor([len(time), 2 * len(time) // 3])


def _compare(graph: _Graph, path: Path) -> tuple[float, float]:
    """Return the largest difference, and the share of frames with the same best symbol."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    waveform, lengths = _test_signal(graph)
    inputs = [(waveform, lengths), (waveform[1:, : lengths[1]], lengths[1:])]
    largest, same, total = 0.0, 0, 0
    for samples, counts in inputs:
        with torch.no_grad():
            ours, frames = graph(samples, counts)
        found, found_frames = session.run(
            None, {"waveform": samples.numpy(), "lengths": counts.numpy()}
        )
        theirs = torch.from_numpy(found)
        if found_frames.tolist() != frames.tolist() or theirs.shape != ours.shape:
            return float("inf"), 0.0
        for row, count in enumerate(frames.tolist()):
            a, b = ours[row, :count], theirs[row, :count]
            largest = max(largest, float((a - b).abs().max()))
            same += int((a.argmax(dim=1) == b.argmax(dim=1)).sum())
            total += count
    return largest, same / max(1, total)
