"""`GET /v1/models`, as the OpenAI API has it."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request

from speechjepa.serving.service import Service

router = APIRouter()
_STARTED = int(time.time())


@router.get("/v1/models")
async def list_models(request: Request) -> dict[str, Any]:
    """List what is served: a model that transcribes, one that translates, or both."""
    return {"object": "list", "data": _models(request.app.state.service)}


@router.get("/v1/models/{name:path}")
async def get_model(request: Request, name: str) -> dict[str, Any]:
    """Describe a model."""
    service: Service = request.app.state.service
    for model in _models(service):
        if model["id"] == name:
            return model
    raise service.no_model(name)


def _models(service: Service) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    base = {"object": "model", "created": _STARTED, "owned_by": "speechjepa"}
    if service.model is not None:
        languages = list(service.model.languages)
        found.append({"id": service.name, **base, "languages": languages, "task": "transcribe"})
    if service.translator is not None:
        about = service.translator.about()
        found.append({"id": about["model"], **base, "task": "translate", "translates": about})
    return found
