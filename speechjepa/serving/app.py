"""The application: one model, or two, behind HTTP, a WebSocket and a page.

Another endpoint is a router of its own beside `transcriptions.router`; what it needs of the server
is in `request.app.state.service`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Response

from speechjepa import __version__
from speechjepa.errors import ConfigError
from speechjepa.inference.spoken_language import can_hear_language
from speechjepa.inference.transcribe import TranscribeConfig, check_options
from speechjepa.serving import files, live, models, page, transcriptions, translations
from speechjepa.serving.answers import add_error_handlers
from speechjepa.serving.guard import Guard
from speechjepa.serving.service import ServedModel, Service
from speechjepa.serving.settings import ServingConfig
from speechjepa.serving.translators import ServedTranslator

ROUTERS = (
    page.router,
    models.router,
    transcriptions.router,
    translations.router,
    files.router,
    live.router,
)


def create_app(
    model: ServedModel | None,
    *,
    name: str,
    config: ServingConfig | None = None,
    translator: ServedTranslator | None = None,
) -> FastAPI:
    """Return the ASGI application that serves a model.

    Args:
        model: A fine-tuned model, from `speechjepa.load`; None = nothing is transcribed.
        name: What clients call it, or the translator where that is alone.
        config: Limits and sizes.
        translator: What translates; None = nothing is translated.

    Raises:
        ModelError: The model cannot transcribe, or not as `config` says.
        ConfigError: There is no model, or `config` says how to transcribe where none does.
    """
    config = config or ServingConfig()
    if model is not None:
        check_options(model, config.transcribe)
    elif translator is None:
        raise ConfigError("a server needs a model that transcribes or one that translates")
    elif config.transcribe != TranscribeConfig():
        raise ConfigError(
            f"{name!r} translates and cannot transcribe: leave out the language, the decoder and "
            "the language model, which are for transcribing"
        )
    service = Service(model, name, config, translator)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    # No generated documentation: it would load scripts from the network, and it would not know the
    # forms, which are read as they come. The OpenAI API's own describes them.
    app = FastAPI(title="speechjepa", version=__version__, lifespan=lifespan, openapi_url=None)
    app.state.service = service
    add_error_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    app.get("/health")(lambda: _health(service))
    app.get("/metrics")(lambda: _metrics(service))
    app.add_middleware(Guard, service=service)
    return app


def _health(service: Service) -> dict[str, Any]:
    """Say that the server answers, what it serves, and its limits."""
    config, model = service.config, service.model
    return {
        "status": "ok",
        "model": service.name,
        "languages": [] if model is None else list(model.languages),
        "hears_language": model is not None and can_hear_language(model),
        "transcribes": model is not None,
        "translates": None if service.translator is None else service.translator.about(),
        "version": __version__,
        "transcribing": min(service.places.taken, config.workers),
        "waiting": service.num_waiting,
        "limits": {
            "upload_bytes": config.max_upload_bytes,
            "recording_seconds": config.max_seconds,
            "waiting": config.max_waiting,
            "live_connections": config.max_streams,
        },
    }


def _metrics(service: Service) -> Response:
    """Return counts and times for Prometheus."""
    gauges = {
        "requests_in_progress": ("Requests let in, waiting included.", service.places.taken),
        "requests_waiting": ("Requests that wait for a worker.", service.num_waiting),
        "live_connections": ("Live connections open now.", service.stream_places.taken),
    }
    text = service.metrics.render(gauges)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
