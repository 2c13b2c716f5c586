"""Start the server: load the model, listen until Ctrl-C."""

from __future__ import annotations

import logging
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from speechjepa.errors import ConfigError
from speechjepa.serving.settings import ServingConfig

if TYPE_CHECKING:
    import torch
    from fastapi import FastAPI

    from speechjepa.inference.model import SpeechModel

logger = logging.getLogger(__name__)
STAGES = ("bundle", "finetune", "self_training", "translate", "/")
"""Parts of a path that name no model."""


def serve(
    model: str,
    *,
    name: str | None,
    device: str,
    compute_type: Literal["auto", "float32", "bfloat16", "int8"],
    host: str,
    port: int,
    config: ServingConfig,
    translator: str | None = None,
) -> None:
    """Serve a model until the process is told to end.

    Args:
        model: A fine-tuned bundle or one that translates, or a run's folder.
        name: What clients call it; None = its folder's name.
        device: "cpu", "cuda", ...; "auto" = "cuda" if there.
        compute_type: Number format; "auto" = the fastest by trial.
        host: Address to listen at; "0.0.0.0" is every one of this computer.
        port: 0 = any that is free.
        config: Limits and sizes.
        translator: A bundle that translates, served beside a model that transcribes.

    Raises:
        ConfigError: The extra is not installed, or the address cannot be used; or `model`
            translates too.
        ModelError: There is no such model, or it can neither transcribe nor translate.
    """
    try:
        from speechjepa.serving.guard import loopback_names
        from speechjepa.serving.server import Server
    except ImportError as error:
        raise ConfigError(
            f"`speechjepa serve` needs {error.name}: install it with "
            '`pip install "speechjepa[serve]"`'
        ) from error
    from speechjepa.inference.model import load
    from speechjepa.models.bundle import default_device

    names = loopback_names(host)
    if names:
        config = replace(config, allowed_hosts=(*names, *config.allowed_hosts))
    place = default_device() if device == "auto" else device
    loaded = load(model, device=place, compute_type=compute_type)
    app = _application(loaded, translator, place, name or model_name(model), config)
    listener = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    logger.info("serving %s at http://%s:%d", app.state.service.name, shown, _port(listener))
    if loaded.computation is not None:
        logger.info("%s", loaded.computation)
    if not names and not config.allowed_hosts:
        logger.info("whoever can reach this computer can use it; put a proxy in front of it")
    log_level = "info" if logger.isEnabledFor(logging.DEBUG) else "warning"
    Server(app, log_level=log_level).run(sockets=[listener])


def _application(
    model: SpeechModel,
    translator: str | None,
    device: str | torch.device,
    name: str,
    config: ServingConfig,
) -> FastAPI:
    from speechjepa.inference.model import load
    from speechjepa.models.translator_files import has_translator
    from speechjepa.serving.app import create_app
    from speechjepa.serving.translators import ServedTranslator

    seconds = config.chunk_seconds
    if model.path is not None and has_translator(model.path):
        if translator is not None:
            raise ConfigError(
                f"{model.path} translates: give the model that transcribes as MODEL, and leave "
                "--translator out to translate alone"
            )
        served = ServedTranslator(model, name, chunk_seconds=seconds)
        return create_app(None, name=name, config=config, translator=served)
    if translator is None:
        return create_app(model, name=name, config=config)
    beside = load(translator, device=device)
    served = ServedTranslator(beside, model_name(translator), chunk_seconds=seconds)
    return create_app(model, name=name, config=config, translator=served)


def model_name(model: str) -> str:
    """Return what a model is called by its path: `runs/quickstart` is quickstart."""
    path = Path(model).resolve()
    parts = [part for part in path.parts if part not in STAGES]
    return parts[-1] if parts else "speechjepa"


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"cannot listen at {host}:{port}: {reason}; choose another with --host and --port"
        ) from error
    return listener


def _port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])
