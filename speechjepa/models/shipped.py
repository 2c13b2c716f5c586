"""The encoder that comes with the package: where it is, and whether it is whole."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from speechjepa.errors import ModelError
from speechjepa.models.bundle import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    EncoderConfig,
    encoder_config,
)
from speechjepa.models.speech_encoder import SpeechEncoderConfig

SHIPPED = Path(__file__).resolve().parent.parent / "assets" / "tiny"
CHECKSUM_FILE = "SHA256SUMS"


def shipped_encoder() -> Path:
    """Return the folder of the bundle.

    Raises:
        ModelError: It is not there, or its weights are not those that were shipped.
    """
    expected = checksum(SHIPPED)
    try:
        found = hashlib.sha256((SHIPPED / WEIGHTS_FILE).read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"{SHIPPED}: the shipped encoder is missing: install again") from error
    if found != expected:
        raise ModelError(
            f"{SHIPPED / WEIGHTS_FILE}: is not what {CHECKSUM_FILE} says: install again, "
            "or say init=fresh"
        )
    return SHIPPED


def start_name(init: str | Path | None) -> str | None:
    """Return what a bundle says it started from: a path, or "shipped" wherever that is."""
    if init is None:
        return None
    return "shipped" if Path(init).resolve() == SHIPPED.resolve() else str(init)


def shipped_version() -> str:
    """Return what tells the shipped encoder from those that shipped before: eight digits of its
    checksum."""
    return checksum(SHIPPED)[:8]


def checksum(folder: Path) -> str:
    """Return what the SHA-256 of the weights in a folder must be.

    Raises:
        ModelError: Nothing says so.
    """
    path = folder / CHECKSUM_FILE
    try:
        return path.read_text(encoding="ascii").split()[0]
    except (OSError, ValueError, IndexError) as error:
        raise ModelError(f"{path}: the checksum is missing: install again") from error


def fits_shipped(config: EncoderConfig) -> bool:
    """Say whether an encoder with these settings can start from the shipped weights, whatever the
    prior of its normalisation and its pitch, which have none."""
    path = SHIPPED / CONFIG_FILE
    if not path.exists():
        return False
    entry = json.loads(path.read_text(encoding="utf-8"))["encoder"]
    shipped = encoder_config(entry, str(path))
    if isinstance(config, SpeechEncoderConfig) and isinstance(shipped, SpeechEncoderConfig):
        seconds = shipped.normalization_prior_seconds
        config = replace(config, normalization_prior_seconds=seconds, pitch=shipped.pitch)
    return shipped == config
