"""Speech recognition for languages with little data: pretrain on audio, fine-tune on minutes.

    import speechjepa

    model = speechjepa.load("runs/mboshi-asr-10min/finetune/bundle")
    print(model.transcribe("interview.wav")["text"])

Importing this package loads none of its dependencies; every name below is fetched on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from speechjepa.data.readers import read_corpus as read_corpus
    from speechjepa.data.utterance import Utterance as Utterance
    from speechjepa.inference.evaluate import evaluate as evaluate
    from speechjepa.inference.model import SpeechModel as SpeechModel
    from speechjepa.inference.model import load as load
    from speechjepa.inference.transcribe import transcribe as transcribe
    from speechjepa.training.finetune import finetune as finetune
    from speechjepa.training.pretrain import pretrain as pretrain
    from speechjepa.workflow.recipe import load_recipe as load_recipe
    from speechjepa.workflow.stages import run_recipe as run_recipe

_HOMES = {
    "SpeechModel": "speechjepa.inference.model",
    "Utterance": "speechjepa.data.utterance",
    "evaluate": "speechjepa.inference.evaluate",
    "finetune": "speechjepa.training.finetune",
    "load": "speechjepa.inference.model",
    "load_recipe": "speechjepa.workflow.recipe",
    "pretrain": "speechjepa.training.pretrain",
    "read_corpus": "speechjepa.data.readers",
    "run_recipe": "speechjepa.workflow.stages",
    "transcribe": "speechjepa.inference.transcribe",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'speechjepa' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
