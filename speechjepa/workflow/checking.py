"""The stage `check`: what the data doctor says about the data of a recipe."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from speechjepa.errors import DataError
from speechjepa.training.presets import preset_upsample
from speechjepa.workflow.corpora import Corpora, total_seconds
from speechjepa.workflow.recipe import Recipe
from speechjepa.workflow.record import write_json

logger = logging.getLogger(__name__)


def check_data(recipe: Recipe, corpora: Corpora, run_dir: Path) -> dict[str, Any]:
    """Let the data doctor look at the labelled and the dev utterances; write `check.json`.

    The audio of the pool is read by its headers alone: pretraining decodes it once anyway, and
    lists what it had to skip. `speechjepa check` looks at all of it.

    Raises:
        DataError: Something would break training.
        ConfigError: The labels are no closed set, as the recipe says they are.
    """
    from speechjepa.data.check import CheckOptions, check_corpus
    from speechjepa.workflow.self_training import closed_transcripts

    if recipe.self_training is not None and recipe.self_training.closed_set:
        closed_transcripts(recipe, corpora)  # for its error, before hours of training
    if recipe.data.train is None:
        splits = {"pool": corpora.pool}
    else:
        splits = {"train": corpora.labelled, "dev": [u for u in corpora.dev if u.text]}
    options = CheckOptions(
        text=recipe.text, encoder_hop_ms=frame_ms(recipe), decode=recipe.data.train is not None
    )
    report = check_corpus(splits, options)
    write_json(run_dir / "check.json", report.to_json())
    for finding in report.findings:
        if finding.severity != "note":
            logger.warning("check: %s: %s. %s", finding.severity, finding.title, finding.advice)
    if report.breaks_training:
        broken = [finding.title for finding in report.findings if finding.severity == "error"]
        raise DataError(
            f"training would break: {'; '.join(broken)}. Everything that was found is in "
            f"{run_dir / 'check.json'}; `speechjepa check` shows it"
        )
    counts = {severity: report.count(severity) for severity in ("warning", "note")}
    return {"findings": counts, "pool_hours": total_seconds(corpora.pool) / 3600}


def frame_ms(recipe: Recipe) -> float:
    """Return the time between two CTC frames (ms)."""
    rate = getattr(recipe.encoder, "frame_rate", 50)
    upsample = recipe.finetune.upsample if recipe.finetune is not None else None
    return 1000 / rate / (upsample or preset_upsample(rate))
