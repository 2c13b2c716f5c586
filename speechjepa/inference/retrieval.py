"""Translation by the nearest known utterance: for closed domains, and as a baseline."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from speechjepa.audio.files import read_audio
from speechjepa.errors import AudioError, ModelError
from speechjepa.nn.source_filter import SAMPLE_RATE
from speechjepa.nn.tensor_files import save_tensors

if TYPE_CHECKING:
    from speechjepa.inference.model import SpeechModel

FOLDER = "retrieval"
STEP_SECONDS = 0.08
"""Frames are averaged over so much: as good as each of 40 ms, at a quarter of the work
(docs/LOG.md)."""
WINDOW = 4
"""Steps that are compared at once: 0.32 s, some syllables in their order."""
MAX_CHANNELS = 32
"""Of a step, the directions in which steps differ most."""
BLOCK = 50_000
"""Known steps that are compared at once: memory grows with the query, not with what is known."""

Float = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Known:
    """An utterance whose translation is known."""

    id: str
    """Of the pair."""
    units: tuple[int, ...] = ()
    text: str | None = None
    speech: str | None = None
    """File name of the recording that says its translation; None = it is spoken in units."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """The nearest known utterance."""

    known: Known
    confidence: float
    """How like the two are; 1 = the same. The nearest of a few hundred telephone prompts, where
    none says the same, has 0.4 to 0.8."""


class Retrieval:
    """Known utterances, found again by what they sound like, stretch by stretch.

    Each window of `WINDOW` steps of one utterance is held against every window of the other, and
    its best cosine counts; the harmonic mean of the mean over the windows of the one and of the
    other is how like they are. The last windows, which end with the utterance, are shorter. So what
    is said in common is found at whatever place, and what either says alone costs. (Late
    interaction, as of ColBERT, arXiv 2004.12832, of sounds.)

    Args:
        known: Utterances with their translations.
        steps: (T, P) of unit length, of all known utterances one after the other.
        lengths: (N,) steps of each.
        mean: (D,) of the encoder's steps.
        projection: (D, P) whitening.
        layer: Of the encoder.
        folder: Where recordings of translations lie.
    """

    def __init__(
        self,
        known: Sequence[Known],
        steps: Tensor,
        lengths: Tensor,
        mean: Tensor,
        projection: Tensor,
        layer: int,
        folder: Path | None = None,
    ) -> None:
        self.folder = folder
        self.known = list(known)
        self.steps = steps
        self.lengths = lengths
        self.mean = mean
        self.projection = projection
        self.layer = layer
        if not known or len(lengths) != len(known) or lengths.dtype != torch.int64:
            raise ValueError(f"{len(known)} utterances must have as many lengths, at least one")
        shapes = steps.dim(), mean.dim(), tuple(projection.shape)
        if shapes != (2, 1, (len(mean), steps.shape[-1])) or not projection.numel():
            raise ValueError(
                "`steps` (T, P), `mean` (D,) and `projection` (D, P) do not fit together: "
                f"{[tuple(x.shape) for x in (steps, mean, projection)]}"
            )
        if int(lengths.min()) < 1 or sum(lengths.tolist()) != len(steps):
            raise ValueError(f"`lengths` must be at least 1, and {len(steps)} together")
        if not all(bool(x.isfinite().all()) for x in (steps, mean, projection)):
            raise ValueError("`steps`, `mean` and `projection` must be finite numbers")

    @classmethod
    def fit(
        cls,
        known: Sequence[Known],
        steps: Sequence[Tensor],
        layer: int,
        *,
        channels: int = MAX_CHANNELS,
    ) -> Retrieval:
        """Remember utterances by their steps, each (T, D); see `embed`."""
        if not steps:
            raise ValueError("there is no utterance to know")
        lengths = torch.tensor([len(one) for one in steps])
        mean = torch.stack([one.double().sum(dim=0) for one in steps]).sum(dim=0) / lengths.sum()
        width = len(mean)
        covariance = mean.new_zeros(width, width)
        for one in steps:  # one after the other: together in double they may not fit into memory
            centred = one.double() - mean
            covariance += centred.T @ centred / lengths.sum()
        variances, directions = torch.linalg.eigh(covariance)
        spread = variances.clamp(min=0).sqrt().flip(0)[:channels]
        # A share of the largest spread keeps directions that hardly vary from being all noise.
        weights = 1.0 / (spread + 0.1 * spread[0].clamp(min=1e-6))
        projection = (directions.flip(1)[:, : len(spread)] * weights).float()
        mean = mean.float()
        found = [_unit_length((one.float() - mean) @ projection).half() for one in steps]
        return cls(known, torch.cat(found), lengths, mean, projection, layer)

    def fits(self, model: SpeechModel) -> bool:
        """Whether a model gives steps as those that are known."""
        width = model.encoder.width
        return 0 <= self.layer <= model.encoder.num_layers and len(self.mean) == width

    def find(self, steps: Tensor) -> Match:
        """Return the known utterance that is most like steps (T, D)."""
        likeness = self.likeness(steps)
        best = int(likeness.argmax())
        return Match(known=self.known[best], confidence=float(likeness[best].clip(0, 1)))

    def likeness(self, steps: Tensor) -> Float:
        """Return how like each known utterance is to steps (T, D): (N,), 1 at most."""
        found = _unit_length((steps.float().cpu() - self.mean) @ self.projection).numpy()
        return np.concatenate([_likeness(found, *block) for block in self._blocks()])

    def _blocks(self) -> Iterator[tuple[Float, NDArray[np.int64]]]:
        """Yield steps (T, P) and lengths (N,) of some utterances after the other."""
        ends = self.lengths.cumsum(0).tolist()
        first = begin = 0
        for last, end in enumerate(ends, start=1):
            if end - begin >= BLOCK or last == len(ends):
                yield self.steps[begin:end].float().numpy(), self.lengths[first:last].numpy()
                first, begin = last, end

    def speech(self, known: Known) -> Float | None:
        """Return the recording (S,) that says a translation, at 16 kHz; None where none is kept.

        Raises:
            ModelError: It cannot be read.
        """
        if known.speech is None or self.folder is None:
            return None
        try:
            return read_audio(self.folder / known.speech, sample_rate=SAMPLE_RATE)
        except AudioError as error:
            raise ModelError(f"{self.folder}: is damaged: {error}") from error

    def save(self, bundle: Path, speech: Iterable[Float] | None = None) -> Path:
        """Write it into a bundle; return its folder.

        Args:
            bundle: Whose retrieval it becomes, in place of an earlier one.
            speech: What says the translation of each known utterance, (S,) at 16 kHz; None = they
                are spoken in units.
        """
        folder = bundle / f".{FOLDER}.unfinished"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        known = self.known
        if speech is not None:
            known = [
                replace(one, speech=_write_speech(folder, f"{place:06d}.opus", waveform))
                for place, (one, waveform) in enumerate(zip(known, speech, strict=True))
            ]
        tensors = {
            "steps": self.steps.contiguous(),
            "lengths": self.lengths.contiguous(),
            "mean": self.mean.contiguous(),
            "projection": self.projection.contiguous(),
        }
        save_tensors(tensors, folder / "model.safetensors")
        entry = {"layer": self.layer, "known": [vars(one) for one in known]}
        text = json.dumps(entry, ensure_ascii=False)
        (folder / "known.json").write_text(text + "\n", encoding="utf-8")
        place = bundle / FOLDER
        if place.exists():
            shutil.rmtree(place)
        return folder.rename(place)


def _write_speech(folder: Path, name: str, waveform: Float) -> str:
    soundfile.write(
        folder / name,
        waveform,
        SAMPLE_RATE,
        format="OGG",
        subtype="OPUS",
        compression_level=0.93,  # about 24 kbit/s
    )
    return name


def load_retrieval(bundle: Path) -> Retrieval:
    """Read what `Retrieval.save` wrote.

    Raises:
        ModelError: The bundle holds none, it is damaged, or of a version that kept less of every
            utterance.
    """
    folder = bundle / FOLDER
    if not folder.is_dir():
        raise ModelError(f"{bundle}: holds no known utterances to retrieve")
    try:
        entry = json.loads((folder / "known.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "model.safetensors")
        if "embeddings" in tensors:
            raise ModelError(
                f"{folder}: was made by an earlier version, which kept too little of what it "
                "knows: run the recipe again with --redo evaluate"
            )
        known = [_known(row, folder) for row in entry["known"]]
        steps, mean, projection = (
            tensors[name].float() for name in ("steps", "mean", "projection")
        )
        layer = entry["layer"]
        if type(layer) is not int or layer < 0:
            raise ValueError(f"`layer` must be a number, but is {layer!r} instead")
        steps = _unit_length(steps).half()
        return Retrieval(known, steps, tensors["lengths"], mean, projection, layer, folder)
    except (OSError, ValueError, KeyError, TypeError, IndexError, SafetensorError) as error:
        raise ModelError(f"{folder}: is damaged: {error}") from error
    except RecursionError:
        raise ModelError(f"{folder}: is damaged: known.json is nested too deeply") from None


def _known(row: dict[str, Any], folder: Path) -> Known:
    """Return what known.json says of an utterance."""
    units, texts = row["units"], [row["text"], row.get("speech")]
    plain = isinstance(row["id"], str) and all(isinstance(x, str | None) for x in texts)
    if not plain or not all(type(unit) is int and unit >= 0 for unit in units):
        raise ValueError(f"known.json holds {str(row)[:200]}")
    speech = texts[1]
    if speech is not None and (Path(speech).name != speech or not (folder / speech).is_file()):
        raise ValueError(f"{speech!r} is no file of the folder")
    return Known(id=row["id"], units=tuple(units), text=row["text"], speech=speech)


def embed(model: SpeechModel, waveform: Float, layer: int) -> Tensor:
    """Return the steps (T, D) of a waveform (S,) at the model's rate: frames of a layer, averaged.

    A waveform shorter than a frame is one step of zeros.
    """
    output = model.encode(torch.from_numpy(waveform)[None], return_layers=True)
    assert output.layers is not None
    frames = output.layers[layer][0, : int(output.lengths[0])].float().cpu()
    return steps_of(frames, model.sample_rate / model.hop)


def steps_of(frames: Tensor, frame_rate: float) -> Tensor:
    """Return the means (T, D) of as many frames (F, D) in a row as last one step."""
    if not len(frames):
        return frames.new_zeros(1, frames.shape[1])
    size = max(1, round(STEP_SECONDS * frame_rate))
    return torch.stack([part.mean(dim=0) for part in frames.split(size)])


def _likeness(query: Float, steps: Float, lengths: NDArray[np.int64]) -> Float:
    """Return how like a query (T, P) is to each of N utterances (N,)."""
    ends = lengths.cumsum()
    starts = ends - lengths
    left = np.repeat(ends, lengths) - np.arange(len(steps))  # steps of its utterance from each on
    cosines = query @ steps.T  # (T, steps)
    windows = cosines.copy()
    for ahead in range(1, min(WINDOW, len(query), len(steps))):
        inside = (left > ahead)[:-ahead]  # a window ends where its utterance does
        windows[:-ahead, :-ahead] += cosines[ahead:, ahead:] * inside
    sizes = np.minimum(WINDOW, np.arange(len(query), 0, -1))
    windows /= np.sqrt(sizes[:, None] * np.minimum(WINDOW, left)[None]).astype(np.float32)
    ours = np.maximum.reduceat(windows, starts, axis=1).mean(axis=0)
    theirs = np.add.reduceat(windows.max(axis=0), starts) / lengths
    both = np.maximum(ours, 1e-6), np.maximum(theirs, 1e-6)
    found: Float = (2 * both[0] * both[1] / (both[0] + both[1])).astype(np.float32)
    return found


def _unit_length(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True).clamp(min=1e-8)
