"""A translator on disk: the folder `translator` of a bundle, beside the encoder that it needs."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file

from speechjepa.config import from_dict
from speechjepa.errors import ConfigError, ModelError, SpeechJepaError
from speechjepa.models.encoder import Encoder
from speechjepa.models.speech_to_units import Translator, TranslatorConfig, build_translator
from speechjepa.nn.tensor_files import save_tensors
from speechjepa.text.vocabulary import Vocabulary

FORMAT_VERSION = 1
FOLDER = "translator"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class TranslatorFiles:
    """What a translator's config.json says."""

    kind: Literal["units", "characters"]
    """What it writes."""
    num_tokens: int
    """V, with the blank or the end."""
    config: TranslatorConfig
    vocabulary: Vocabulary | None = None
    """Of the characters that it writes."""
    source_vocabulary: Vocabulary | None = None
    """Of the auxiliary loss on the source's transcripts."""
    text_vocabulary: Vocabulary | None = None
    """Of the auxiliary loss on the target's text."""
    source_language: str | None = None
    language: str | None = None
    """That it translates into."""


_VOCABULARIES = ("vocabulary", "source_vocabulary", "text_vocabulary")


def save_translator(translator: Translator, files: TranslatorFiles, bundle: Path) -> Path:
    """Write a translator into a bundle; return its folder."""
    folder = bundle / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    entry: dict[str, Any] = {"format_version": FORMAT_VERSION, **vars(files)}
    entry["config"] = asdict(files.config)
    for name in _VOCABULARIES:
        entry[name] = None if entry[name] is None else entry[name].to_list()
    tensors = {k: t.detach().cpu().contiguous() for k, t in translator.state_dict().items()}
    weights = folder / (WEIGHTS_FILE + ".partial")
    save_tensors(tensors, weights)
    settings = folder / (CONFIG_FILE + ".partial")
    settings.write_text(json.dumps(entry, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(weights, folder / WEIGHTS_FILE)
    os.replace(settings, folder / CONFIG_FILE)
    return folder


def has_translator(bundle: Path) -> bool:
    """Say whether a bundle holds a translator."""
    return (bundle / FOLDER / CONFIG_FILE).is_file()


def load_translator(bundle: Path, encoder: Encoder) -> tuple[Translator, TranslatorFiles]:
    """Read the translator of a bundle.

    Args:
        bundle: Its folder.
        encoder: Of the bundle.

    Raises:
        ModelError: There is none, or it is damaged.
    """
    path = bundle / FOLDER / CONFIG_FILE
    if not path.is_file():
        raise ModelError(
            f"{bundle}: holds no translator: it was not trained to translate. "
            "`speechjepa run s2st_phrases/es_en --data-root DATA` trains one that does"
        )
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    files = _parsed(entry, path)
    try:
        translator = build_translator(encoder, files.num_tokens, files.config)
        translator.load_state_dict(load_file(bundle / FOLDER / WEIGHTS_FILE))
    except (SpeechJepaError, SafetensorError, OSError, RuntimeError) as error:
        raise ModelError(f"{path.parent}: the weights cannot be read: {error}") from error
    return translator.eval(), files


def _parsed(entry: Any, path: Path) -> TranslatorFiles:
    version = entry.pop("format_version", None) if isinstance(entry, dict) else None
    if version != FORMAT_VERSION:
        raise ModelError(
            f"{path}: `format_version` must be {FORMAT_VERSION}, but is {version!r} instead"
        )
    try:
        values = dict(entry)
        for name in _VOCABULARIES:
            values[name] = None if values[name] is None else Vocabulary.from_list(values[name])
        values["config"] = from_dict(TranslatorConfig, values["config"], where=str(path))
        return TranslatorFiles(**values)
    except ConfigError as error:  # names the file already
        raise ModelError(f"{error}; the bundle is damaged") from error
    except (SpeechJepaError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: {error}; the bundle is damaged") from error
