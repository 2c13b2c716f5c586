"""Units: the discrete sounds that frames are grouped into by k-means."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from speechjepa.errors import ConfigError, DataError, ModelError
from speechjepa.nn.tensor_files import save_tensors

FORMAT_VERSION = 1
SETTINGS_FILE = "units.json"
CENTROIDS_FILE = "units.safetensors"

Layer = int | Literal["mel"]
"""Which frames are grouped: 0 is the input of an encoder's first block, n its n-th block's output;
"mel" is log-mel frames, without any encoder."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """K kinds of sound, and the frames that they are found in.

    A frame belongs to the unit whose centroid is nearest, once each channel is standardised. With
    a `change_penalty`, the sequence with the least sum of squared distances and penalties is taken
    instead (Kamper and van Niekerk, 2021, https://arxiv.org/abs/2012.07551): single frames between
    two sounds then become neither a unit of their own nor now this and now that one.
    """

    centroids: Tensor
    """(K, D) float32, of standardised frames."""
    mean: Tensor
    """(D,) float32, mean of each channel of the frames."""
    scale: Tensor
    """(D,) float32, standard deviation of each channel."""
    layer: Layer = "mel"
    """Of the encoder."""
    frame_rate: float = 25.0
    """Frames per second (Hz)."""
    encoder_checksum: str | None = None
    """SHA-256 of the weights of the encoder; None = no encoder (log-mel frames)."""
    phases: int = 1
    """Times that the encoder hears a recording, each a part of a frame later: so many times its
    frames per second. What a sequence is then depends less on where its first frame begins."""
    change_penalty: float = 0.0
    """What a change of unit costs, in mean squared distances of a frame to its centroid."""
    distance: float = 1.0
    """That mean squared distance, of standardised frames."""

    def __post_init__(self) -> None:
        if self.centroids.dim() != 2 or not len(self.centroids):
            raise ModelError(
                f"`centroids` must be (K, D), but is {tuple(self.centroids.shape)} instead"
            )
        width = (self.centroids.shape[1],)
        for name in ("mean", "scale"):
            if getattr(self, name).shape != width:
                found = tuple(getattr(self, name).shape)
                raise ModelError(f"`{name}` must be {width}, but is {found} instead")

    @property
    def num_units(self) -> int:
        """K; units are numbered 0 to K - 1."""
        return len(self.centroids)

    @property
    def checksum(self) -> str:
        """SHA-256 of what makes a frame this unit or that."""
        settings = (self.layer, self.encoder_checksum, self.phases, self.change_penalty)
        digest = hashlib.sha256(repr((settings, self.frame_rate, self.distance)).encode())
        for tensor in (self.centroids, self.mean, self.scale):
            digest.update(tensor.float().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def frame_seconds(self) -> float:
        """Seconds per frame."""
        return 1.0 / self.frame_rate

    def __call__(self, features: Tensor) -> Tensor:
        """Return the unit of each frame.

        Args:
            features: (T, D) frames.

        Returns:
            (T,) int64.
        """
        if features.dim() != 2 or features.shape[1] != self.centroids.shape[1]:
            raise ModelError(
                f"`features` must be (T, {self.centroids.shape[1]}), "
                f"but is {tuple(features.shape)} instead: these units were made of other frames"
            )
        standard = (features.detach().float().cpu() - self.mean) / self.scale
        distances = torch.cdist(standard[None], self.centroids[None])[0]  # (T, K)
        if not self.change_penalty or not len(distances):
            return distances.argmin(dim=1)
        return _smoothest(distances.square(), self.change_penalty * self.distance)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the units to a folder; return it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"centroids": self.centroids, "mean": self.mean, "scale": self.scale}
        entry = {
            "format_version": FORMAT_VERSION,
            "num_units": self.num_units,
            "layer": self.layer,
            "frame_rate": self.frame_rate,
            "encoder_checksum": self.encoder_checksum,
            "phases": self.phases,
            "change_penalty": self.change_penalty,
            "distance": self.distance,
        }
        partial = folder / (CENTROIDS_FILE + ".partial")
        save_tensors({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
        settings = folder / (SETTINGS_FILE + ".partial")
        settings.write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, folder / CENTROIDS_FILE)
        os.replace(settings, folder / SETTINGS_FILE)
        return folder


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """What units.json says besides its version."""

    num_units: int
    layer: Layer
    frame_rate: float
    encoder_checksum: str | None
    phases: int
    change_penalty: float
    distance: float


def load_units(folder: str | os.PathLike[str]) -> Units:
    """Read units that `Units.save` wrote.

    Raises:
        ModelError: The folder does not hold them, or they are damaged.
    """
    folder = Path(folder)
    path = folder / SETTINGS_FILE
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{folder}: holds no {SETTINGS_FILE}; `speechjepa units fit` makes units"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    settings = _checked(entry, path)
    weights = folder / CENTROIDS_FILE
    try:
        tensors = load_file(weights)
        units = Units(
            centroids=tensors["centroids"],
            mean=tensors["mean"],
            scale=tensors["scale"],
            layer=settings.layer,
            frame_rate=settings.frame_rate,
            encoder_checksum=settings.encoder_checksum,
            phases=settings.phases,
            change_penalty=settings.change_penalty,
            distance=settings.distance,
        )
    except KeyError as error:
        raise ModelError(f"{weights}: lacks `{error.args[0]}`; fit the units again") from error
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{weights}: cannot be read: {error}") from error
    except ModelError as error:
        raise ModelError(f"{weights}: {error}; fit the units again") from error
    if units.num_units != settings.num_units:
        raise ModelError(
            f"{weights}: `num_units` must be {settings.num_units} as {SETTINGS_FILE} says, "
            f"but is {units.num_units} instead; fit the units again"
        )
    return units


def _checked(entry: object, path: Path) -> _Settings:
    version = entry.get("format_version") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or version != FORMAT_VERSION:
        raise ModelError(
            f"{path}: `format_version` must be {FORMAT_VERSION}, but is {version!r} instead"
        )
    names = set(_Settings.__dataclass_fields__)
    if set(entry) != names | {"format_version"}:
        wrong = ", ".join(sorted(set(entry) ^ (names | {"format_version"})))
        raise ModelError(f"{path}: missing or unknown: {wrong}; fit the units again")
    settings = _Settings(**{name: entry[name] for name in names})
    layer, rate, checksum = settings.layer, settings.frame_rate, settings.encoder_checksum
    is_layer = layer == "mel" or (type(layer) is int and layer >= 0)
    numbers = (rate, settings.change_penalty, settings.distance)
    are_numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in numbers)
    are_numbers = are_numbers and rate > 0 and min(numbers) >= 0
    is_count = type(settings.phases) is int and settings.phases >= 1
    has_encoder = checksum is None or isinstance(checksum, str)
    if not (is_layer and are_numbers and is_count and has_encoder):
        raise ModelError(f"{path}: has a value of the wrong kind: {asdict(settings)}")
    return settings


def fit_units(features: Tensor, num_units: int, seed: int = 0) -> Units:
    """Group frames into units with mini-batch k-means.

    Sculley, 2010 (https://doi.org/10.1145/1772690.1772862), on standardised channels, the best of
    three starts. `dataclasses.replace` adds the layer, the rate and the encoder's checksum.

    Args:
        features: (N, D) frames, of all kinds of speech that the units are for.
        num_units: K.
        seed: Of the starts and the mini-batches.

    Raises:
        ConfigError: `num_units` is less than 2.
        DataError: There are fewer frames than units, or a frame that is not a number.
    """
    from sklearn.cluster import MiniBatchKMeans

    if num_units < 2:
        raise ConfigError(f"`num_units` must be 2 or more, but is {num_units} instead")
    if features.dim() != 2 or len(features) < num_units:
        raise DataError(
            f"{num_units} units need at least as many frames, but there are {len(features)}: "
            "give more audio, or ask for fewer units"
        )
    frames = features.detach().float().cpu()
    if not torch.isfinite(frames).all():
        raise DataError("some frames are not numbers: the model's weights are broken")
    mean, scale = frames.mean(dim=0), frames.std(dim=0, correction=0).clamp(min=1e-5)
    clusters = MiniBatchKMeans(
        num_units, batch_size=4096, n_init=3, max_no_improvement=20, random_state=seed
    )
    clusters.fit(((frames - mean) / scale).numpy())
    centroids = torch.from_numpy(clusters.cluster_centers_).float()
    distance = float(clusters.inertia_) / len(frames)
    return Units(centroids=centroids, mean=mean, scale=scale, distance=distance)


def _smoothest(costs: Tensor, change: float) -> Tensor:
    """Return the sequence (T,) with the least sum of costs (T, K) and of changes: Viterbi's."""
    best = costs[0]
    before = []
    places = torch.arange(costs.shape[1])
    for cost in costs[1:]:
        least, place = best.min(dim=0)
        stays = best <= least + change
        before.append(torch.where(stays, places, place))
        best = torch.where(stays, best, least + change) + cost
    sequence = [int(best.argmin())]
    for pointers in reversed(before):
        sequence.append(int(pointers[sequence[-1]]))
    return torch.tensor(sequence[::-1])
