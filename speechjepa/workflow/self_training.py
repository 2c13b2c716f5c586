"""The stage `self_training`: a fine-tuned model labels the rest, a next one learns from both."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from speechjepa.data.findings import number
from speechjepa.data.utterance import Utterance
from speechjepa.errors import ConfigError
from speechjepa.inference.pseudo_labels import SelfTrainingConfig, pseudo_label, training_set
from speechjepa.text.normalize import normalize_text
from speechjepa.text.vocabulary import Vocabulary
from speechjepa.workflow.corpora import Corpora, total_seconds
from speechjepa.workflow.language_model import attach
from speechjepa.workflow.recipe import Recipe
from speechjepa.workflow.record import write_json
from speechjepa.workflow.run import Stage

logger = logging.getLogger(__name__)

MAX_CLOSED_SET = 500
FOLDER = "self_training"
TRAINED, DONE = "trained.json", "done.json"
"""Of a round whose model is trained, and of one that has its language model too, in its folder:
what was recognised and kept."""


def unlabelled(corpora: Corpora) -> list[Utterance]:
    """Return what may be learnt from and is neither a label nor measured on."""
    used = {(u.audio_path, u.start) for u in [*corpora.labelled, *corpora.dev]}
    return [u for u in corpora.material if (u.audio_path, u.start) not in used]


def self_train(
    recipe: Recipe,
    corpora: Corpora,
    run_dir: Path,
    *,
    start: Path | None,
    cache_dir: Path,
) -> dict[str, Any]:
    """Train the next models, each from the same start as the first, but for the round that refines
    the one before; rounds that are done stay.

    Writes `self_training/round<n>/` as fine-tuning does, and the last round's bundle, with its
    language model, to `self_training/bundle`.

    Args:
        recipe: With `self_training` and `finetune`.
        corpora: Its data.
        run_dir: The run folder; the first teacher is `finetune/bundle`.
        start: Bundle that fine-tuning begins from; None = fresh weights.
        cache_dir: Where decoded audio is kept.

    Returns:
        How much was recognised and kept, of the last round. Where nothing is recognised, the
        teacher has the last word.
    """
    config, finetuning = recipe.self_training, recipe.finetune
    assert config is not None and finetuning is not None
    finetuning = dataclasses.replace(finetuning, max_steps=_steps(recipe, run_dir))
    rounds = config.rounds + (config.refine_steps is not None)
    pool = unlabelled(corpora)
    teacher = run_dir / "finetune" / "bundle"
    if not pool:
        logger.info("self-training: every recording is labelled, so fine-tuning has the last word")
    figures: dict[str, Any] = _figures(config, pool, [], 0)
    for turn in range(1, rounds + 1 if pool else 1):
        if turn > config.rounds:
            rate, start = config.refine_learning_rate, teacher
            finetuning = dataclasses.replace(
                finetuning, max_steps=config.refine_steps, minutes=None, learning_rate=rate
            )
        folder = run_dir / FOLDER / f"round{turn}"
        if not (folder / DONE).exists():
            this = dataclasses.replace(recipe, finetune=finetuning)
            if not _round(this, corpora, folder, turn, teacher, start=start, cache_dir=cache_dir):
                break
        figures = json.loads((folder / DONE).read_text(encoding="utf-8"))
        teacher = folder / "bundle"
    final = run_dir / FOLDER / "bundle"
    shutil.rmtree(final, ignore_errors=True)  # of an interrupted copy
    shutil.copytree(teacher, final)
    return figures


def _round(
    recipe: Recipe,
    corpora: Corpora,
    folder: Path,
    turn: int,
    teacher: Path,
    *,
    start: Path | None,
    cache_dir: Path,
) -> bool:
    """Train a model on what its teacher hears; return whether that is anything."""
    from speechjepa.inference.model import load
    from speechjepa.models.bundle import default_device
    from speechjepa.training.finetune import finetune

    config, finetuning = recipe.self_training, recipe.finetune
    assert config is not None and finetuning is not None
    pool = unlabelled(corpora)
    if not (folder / TRAINED).exists():
        model = load(teacher, device=default_device())
        known = (
            writable_transcripts(recipe, corpora, model.vocabulary) if config.closed_set else None
        )
        slack = config.closed_set_slack
        recognised = pseudo_label(model, pool, closed_set=known, slack=slack)
        if not recognised:
            logger.warning(
                "self-training: nothing is heard in recordings without labels: no round %d", turn
            )
            return False
        finetune(
            finetuning,
            training_set(corpora.labelled, recognised, config),
            corpora.dev,
            folder,
            text=recipe.text,
            encoder=recipe.encoder,
            init=start,
            cache_dir=cache_dir,
        )
        write_json(folder / TRAINED, _figures(config, pool, recognised, turn))
    attach(recipe, corpora, folder / "bundle")
    (folder / TRAINED).replace(folder / DONE)
    return True


def closed_transcripts(recipe: Recipe, corpora: Corpora) -> dict[str, int]:
    """Return the transcripts of the labels, and how often each is one.

    Raises:
        ConfigError: There are too many to choose from.
    """
    written = (normalize_text(u.text or "", recipe.text) for u in corpora.labelled)
    counts = Counter(text for text in written if text)
    if len(counts) > MAX_CLOSED_SET:
        raise ConfigError(
            f"`self_training.closed_set` is for at most {MAX_CLOSED_SET} different transcripts, "
            f"such as commands, but the labels have {len(counts)}: leave it out"
        )
    return dict(counts)


def writable_transcripts(
    recipe: Recipe, corpora: Corpora, vocabulary: Vocabulary
) -> dict[str, int]:
    """Return the `closed_transcripts` that a model with this vocabulary can write.

    The others are those of labels that could not be read, so they gave it no letters; a warning
    names the first.
    """
    known = closed_transcripts(recipe, corpora)
    foreign = [text for text in known if any(c not in vocabulary for c in text.replace(" ", ""))]
    if foreign:
        logger.warning(
            "self-training: %s of the closed set cannot be written by the model, as no recording "
            "with such letters was read, and will be taken for others; the first: %s",
            number(len(foreign), "transcript"),
            foreign[0],
        )
    return {text: count for text, count in known.items() if text not in foreign}


def _steps(recipe: Recipe, run_dir: Path) -> int | None:
    """Return the steps of a round: given, or as many as the first model's minutes of labels get.

    Left to the round itself they would be those of all the minutes that it learns from.
    """
    config, finetuning = recipe.self_training, recipe.finetune
    assert config is not None and finetuning is not None
    steps = config.max_steps or finetuning.max_steps
    if steps is None and finetuning.minutes is None:
        settled = json.loads((run_dir / "finetune" / "config.json").read_text(encoding="utf-8"))
        steps = settled["finetune"]["max_steps"]
    return steps


def self_training_stage(
    recipe: Recipe,
    corpora: Corpora,
    run_dir: Path,
    *,
    start: Path | None,
    cache_dir: Path,
    finish: Callable[[], None],
) -> Stage:
    """Return the stage; `finish` is called when the bundle is there, the rest is `self_train`'s."""

    def inputs() -> dict[str, Any]:
        return {
            "self_training": recipe.self_training,
            "finetune": recipe.finetune,
            "unlabelled": corpora.fingerprint(unlabelled(corpora), use_text=False),
        }

    def action() -> dict[str, Any]:
        figures = self_train(recipe, corpora, run_dir, start=start, cache_dir=cache_dir)
        finish()
        return figures

    return Stage(
        name=FOLDER,
        inputs=inputs,
        action=action,
        outputs=(f"{FOLDER}/bundle",),
        after=("finetune", "language_model"),
    )


def _figures(
    config: SelfTrainingConfig, pool: list[Utterance], recognised: list[Any], turn: int
) -> dict[str, Any]:
    return {
        "rounds": turn,
        "unlabelled_minutes": total_seconds(pool) / 60,
        "recognised_utterances": len(recognised),
        "keep": config.keep,
    }
