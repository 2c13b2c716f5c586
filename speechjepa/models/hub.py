"""Checkpoints of the Hugging Face hub, fetched once."""

from __future__ import annotations

import re
from pathlib import Path

from speechjepa.errors import ModelError
from speechjepa.models.checkpoint_files import CHECKPOINT_SUFFIXES
from speechjepa.models.published import adapter_languages, find_language


def is_hub_name(source: str | Path) -> bool:
    """Say whether this is OWNER/NAME and no path of this machine, nor a mistyped one."""
    text = str(source)
    if text.startswith("runs/") or text.endswith(CHECKPOINT_SUFFIXES):
        return False  # a run that was never made, or was made elsewhere; a file
    owner = Path(text.partition("/")[0])
    is_name = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", text) is not None
    return is_name and not owner.exists()


def fetch_published(name: str, language: str | None = None) -> Path:
    """Return the folder of a checkpoint of the hub, after fetching it once.

    MMS has an adapter of 9 MB for each of a thousand languages: the one asked for is fetched.

    Args:
        name: OWNER/NAME.
        language: Which adapter, where there are several.

    Raises:
        ModelError: It cannot be fetched, or has no such language.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    wanted = ["*.json", "model*.safetensors", "pytorch_model*.bin"]
    try:
        folder = Path(snapshot_download(name, allow_patterns=["*.json"]))
        known = adapter_languages(folder)
        if known:
            wanted.append(f"adapter.{find_language(folder, language, known)}.*")
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(f"{name}: no such folder, and it cannot be fetched: {reason}") from error
