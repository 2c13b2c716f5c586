"""What the endpoints of one server share: the models, their workers, limits and counts."""

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
from speechjepa.serving.translators import ServedTranslator
from speechjepa.serving.work import Places, Workers


class ServedModel(TranscriptionModel, Protocol):
    """What is served: `speechjepa.load` returns one."""

    def stream(
        self, *, language: str | None = None, chunk_seconds: float = 0.32, decoder: Decoder = "auto"
    ) -> Any:
        """Return what hears audio as it comes; see `speechjepa.inference.stream`."""
        ...


class Service:
    """One or two models and all that a server needs to answer for them.

    Args:
        model: A fine-tuned model; None = the server transcribes nothing.
        name: What clients call the model, or the translator where it is alone.
        config: Limits and sizes.
        translator: What translates; None = the server translates nothing.
    """

    def __init__(
        self,
        model: ServedModel | None,
        name: str,
        config: ServingConfig,
        translator: ServedTranslator | None = None,
    ) -> None:
        self.model = model
        self.translator = translator
        self.name = name
        self.config = config
        self.metrics = Metrics()
        self.folder = tempfile.TemporaryDirectory(prefix="speechjepa-serve-")
        self.places = Places(
            config.workers + config.max_waiting,
            f"{config.workers} recordings are being worked on and {config.max_waiting} wait; "
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

    def transcriber(self) -> ServedModel:
        """Return what transcribes, or refuse the request where nothing does."""
        if self.model is None:
            raise self._only_translates(self.name)
        return self.model

    def interpreter(self) -> ServedTranslator:
        """Return what translates, or refuse the request where nothing does."""
        if self.translator is None:
            message = (
                f"{self.name!r}, which this server has, transcribes and cannot translate; "
                "`speechjepa serve --translator M` puts a model beside it that does"
            )
            raise ApiError(400, message, param="model", code="cannot_translate")
        return self.translator

    def check_model(self, name: str | None, *also: str) -> None:
        """Refuse a request for a model that is not `self.name`, nor one of `also`.

        No name means the one that is there.
        """
        if name is None or name in (self.name, *also):
            return
        if self.translator is not None and name == self.translator.name:
            raise self._only_translates(name)
        raise self.no_model(name)

    def _only_translates(self, name: str) -> ApiError:
        message = (
            f"{name!r}, which this server has, translates and cannot transcribe: ask "
            "POST /v1/audio/translations, or for live audio WS /v1/audio/stream?task=translate"
        )
        return ApiError(400, message, param="model", code="cannot_transcribe")

    def no_model(self, name: str) -> ApiError:
        """Return what is said to who asks for a model that is not there."""
        there = [self.name] if self.translator is None else [self.name, self.translator.name]
        shown = " and ".join(repr(one) for one in dict.fromkeys(there))
        message = (
            f"there is no model {name[:100]!r} here; this server has {shown}, which "
            "`speechjepa serve --name NAME` calls as programs expect"
        )
        return ApiError(404, message, param="model", code="model_not_found")

    def stop(self) -> None:
        """End the work on every recording; whoever waits for it is told."""
        self.workers.stop()

    def close(self) -> None:
        """Stop all work and remove what was received."""
        self.workers.close()
        self.listeners.close()
        self.folder.cleanup()
