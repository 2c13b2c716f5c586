"""How unexpected speech is to what was pretrained on other: over time, and per file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from speechjepa.audio.files import probe_audio, read_audio
from speechjepa.errors import AudioError, ModelError
from speechjepa.inference.model import SpeechModel
from speechjepa.models.future import FuturePredictor
from speechjepa.models.pretraining import ContextPredictionModel, PredictorConfig
from speechjepa.objectives.latent import layer_targets

PIECE_SECONDS = 15.6
"""Longer audio is heard in equal pieces of at most this, as in pretraining (seconds)."""
LEAD_SECONDS = 4.0
"""What is heard again before each piece but the first, so that its beginning is no surprise."""


@dataclass(frozen=True, kw_only=True)
class Surprise:
    """The prediction error of one recording."""

    times: NDArray[np.float64]
    """(T,) middle of each frame (seconds)."""
    error: NDArray[np.float32]
    """(T,) how unexpected each frame is. With a predictor of the future, in standard deviations of
    what the recordings that it was pretrained on have, 0 = their mean. With a JEPA, one minus the
    cosine between a frame's representation and what was predicted of it: 0 = as expected, 1 =
    nothing was known of it, 2 = the opposite."""
    seconds: float
    """Length of the recording."""

    @property
    def score(self) -> float:
        """Mean error over the recording: what two recordings are compared by."""
        return float(self.error.mean())

    @property
    def peak(self) -> float:
        """Mean of the highest tenth of the errors."""
        count = max(1, len(self.error) // 10)
        return float(np.sort(self.error)[-count:].mean())

    @property
    def peak_time(self) -> float:
        """Middle of the least expected stretch of 0.2 s (seconds)."""
        width = min(len(self.error), 5)
        smooth = np.convolve(self.error, np.ones(width) / width, mode="same")
        return float(self.times[int(smooth.argmax())])


def surprise_of_file(model: SpeechModel, path: str | Path) -> Surprise:
    """Return the surprise of an audio file.

    Raises:
        AudioError: It cannot be read, or is too short.
        ModelError: The model predicts nothing, or was fine-tuned since.
    """
    future = future_of(model)
    if future is None:
        predictor_of(model)
    lead = 0.0 if future is None else LEAD_SECONDS
    seconds = probe_audio(path).duration
    pieces = max(1, int(np.ceil(seconds / PIECE_SECONDS)))
    found: list[Surprise] = []
    for index in range(pieces):
        begin = seconds * index / pieces
        start = max(0.0, begin - lead)
        length = None if index + 1 == pieces else begin + seconds / pieces - start
        waveform = read_audio(path, sample_rate=model.sample_rate, start=start, duration=length)
        if len(waveform) < shortest_samples(model):
            raise AudioError(
                path,
                f"lasts {len(waveform) / model.sample_rate:.3f} s; surprise needs "
                f"{shortest_samples(model) / model.sample_rate:.3f} s of audio or more.",
            )
        piece = surprise(model, torch.from_numpy(waveform), offset=start)
        new = piece.times >= begin
        found.append(replace(piece, times=piece.times[new], error=piece.error[new]))
    return Surprise(
        times=np.concatenate([piece.times for piece in found]),
        error=np.concatenate([piece.error for piece in found]),
        seconds=seconds,
    )


@torch.inference_mode()
def surprise(model: SpeechModel, waveform: Tensor, *, offset: float = 0.0) -> Surprise:
    """Return the surprise of at most some 20 seconds of speech.

    A predictor of the future says how improbable each frame is after those before it.

    With a JEPA, spans as long as in pretraining are hidden in turn, half of the frames at a time,
    shifted until every frame was hidden several times, and again with spans twice as long: the
    short ones find what is wrong inside a sound, the long ones what does not go together. The
    cosine and not the squared error of training: what is loud or rare has large targets, which says
    little of whether it was expected (docs/LOG.md). After V-JEPA's surprise, over frames instead of
    future video (https://arxiv.org/abs/2502.11831).

    Args:
        model: Pretrained with the objective `future`, or a JEPA with its predictor.
        waveform: (S,) float32 in [-1, 1].
        offset: Added to the times (seconds).

    Raises:
        ValueError: It is shorter than `shortest_samples`.
        ModelError: The model has no predictor.
    """
    if len(waveform) < shortest_samples(model):
        raise ValueError(f"surprise needs {shortest_samples(model)} samples or more")
    future = future_of(model)
    if future is not None:
        error = future.energy(waveform.to(model.device))
        return _surprise(error, future.hop / future.sample_rate, offset, len(waveform), model)
    network, config = predictor_of(model)
    encoder = network.encoder
    span = _span(model)
    lengths = torch.tensor([len(waveform)], device=model.device)
    features, frames = encoder.extract_features(waveform[None].to(model.device), lengths)
    num_frames = int(frames[0])
    features = features[:, :num_frames]
    targets = _targets(network, config, features, frames)
    errors = [_error(network, features, frames, targets, width) for width in (span, 2 * span)]
    error = torch.stack(errors).mean(dim=0)
    return _surprise(error, model.hop / model.sample_rate, offset, len(waveform), model)


def _surprise(
    error: Tensor, frame_seconds: float, offset: float, samples: int, model: SpeechModel
) -> Surprise:
    """Return errors (T,) with their times, the first frame beginning at `offset` seconds."""
    return Surprise(
        times=offset + (np.arange(len(error), dtype=np.float64) + 0.5) * frame_seconds,
        error=error.float().cpu().numpy(),
        seconds=samples / model.sample_rate,
    )


def _error(
    network: ContextPredictionModel, features: Tensor, frames: Tensor, targets: Tensor, span: int
) -> Tensor:
    """Return (T,) the error of every frame, hidden several times in spans of so many frames."""
    places = torch.arange(features.shape[1], device=features.device)[None]
    phases = torch.arange(0, 2 * span, max(1, span // 5), device=features.device)[:, None]
    hidden = (places + phases) % (2 * span) < span  # (phases, T)
    count = len(hidden)
    predictions, _ = network.predict(
        features.expand(count, -1, -1).contiguous(), frames.expand(count).contiguous(), hidden
    )
    likeness = functional.cosine_similarity(predictions.float(), targets.float(), dim=-1)
    return ((1 - likeness) * hidden).sum(dim=0) / hidden.sum(dim=0)


def shortest_samples(model: SpeechModel) -> int:
    """Return how many samples it takes: two frames, or to hide a JEPA's longer span and see as
    much."""
    future = future_of(model)
    if future is not None:
        return 2 * future.hop
    return (4 * _span(model) + 1) * model.hop


def _span(model: SpeechModel) -> int:
    _, config = predictor_of(model)
    return max(1, round(config.mask_length_seconds * model.sample_rate / model.hop))


def future_of(model: SpeechModel) -> FuturePredictor | None:
    """Return a model's predictor of the future, if that is what it was pretrained for."""
    if model.bundle.future is None:
        return None
    return model.bundle.future.to(model.device).eval().predictor


def predictor_of(model: SpeechModel) -> tuple[ContextPredictionModel, PredictorConfig]:
    """Return a model's predictor and its sizes.

    Raises:
        ModelError: It has none.
    """
    bundle = model.bundle
    if bundle.predictor is None or bundle.predictor_config is None:
        name = "this model" if model.path is None else str(model.path)
        raise ModelError(
            f"{name} has no predictor: surprise needs a bundle that `speechjepa pretrain "
            "--objective future` wrote, or one of the objective jepa, not fine-tuned since"
        )
    bundle.predictor.to(model.device).eval()
    return bundle.predictor, bundle.predictor_config


def _targets(
    network: ContextPredictionModel, config: PredictorConfig, features: Tensor, frames: Tensor
) -> Tensor:
    """Return (1, T, D) what the predictor was trained to predict, of everything heard."""
    if network.projection is not None:
        return network.projection(network.encoder.contextualize(features, frames).features)
    output = network.encoder.contextualize(features, frames, return_ffn=True)
    assert output.ffn_outputs is not None
    return layer_targets(output.ffn_outputs, frames, config.average_top_k_layers)
