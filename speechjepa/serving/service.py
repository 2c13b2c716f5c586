"""What the endpoints of one server share: the model, its workers, limits and counts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Protocol

import torch

from speechjepa.inference.decoding import Decoder
from speechjepa.inference.transcribe import TranscriptionModel
from speechjepa.serving.answers import ApiError
from speechjepa.serving.metrics import Metrics
from speechjepa.serving.settings import ServingConfig
from speechjepa.serving.work import Places, Workers


class ServedModel(TranscriptionModel, Protocol):
    """What is served: `speechjepa.load` returns one."""

    def stream(
        self, *, language: str | None = None, chunk_seconds: float = 0.32, decoder: Decoder = "auto"
    ) -> Any:
        """Return what hears audio as it comes; see `speechjepa.inference.stream`."""
        ...


class Service:
    """One model and all that a server needs to answer for it.

    Args:
        model: A fine-tuned model.
        name: What clients call it.
        config: Limits and sizes.
    """

    def __init__(self, model: ServedModel, name: str, config: ServingConfig) -> None:
        self.model = model
        self.name = name
        self.config = config
        self.metrics = Metrics()
        self.folder = tempfile.TemporaryDirectory(prefix="speechjepa-serve-")
        self.places = Places(
            config.workers + config.max_waiting,
            f"{config.workers} recordings are being transcribed and {config.max_waiting} wait; "
            "try again in a few seconds",
        )
        self.stream_places = Places(
            config.max_streams, f"{config.max_streams} live connections are open; try again later"
        )

        self.num_threads = torch.get_num_threads()
        self.workers = Workers(config.workers, name="transcribe")
        # Apart from the others, so that who speaks need not wait for who sent an hour.
        self.listeners = Workers(
            max(1, min(config.max_streams, config.workers)),
            name="listen",
            initializer=lambda: torch.set_num_threads(1),  # chunks are small
        )

    @property
    def uploads(self) -> Path:
        """Folder of what is being received and transcribed; what tidies /tmp may have taken it."""
        folder = Path(self.folder.name)
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    @property
    def num_waiting(self) -> int:
        """Requests that were let in and wait for a worker."""
        return max(0, self.places.taken - self.config.workers)

    def share_cores(self) -> None:
        """Give the calling worker its share of the cores; called again as others come and go."""
        torch.set_num_threads(max(1, self.num_threads // max(1, self.workers.num_running)))

    def check_model(self, name: str | None) -> None:
        """Refuse a request for a model that is not the one served; no name means that one."""
        if name is not None and name != self.name:
            message = (
                f"there is no model {name[:100]!r} here; this server has {self.name!r}, which "
                "`speechjepa serve --name NAME` calls as programs expect"
            )
            raise ApiError(404, message, param="model", code="model_not_found")

    def close(self) -> None:
        """Stop all work and remove what was received."""
        self.workers.close()
        self.listeners.close()
        self.folder.cleanup()
