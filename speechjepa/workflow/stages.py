"""The stages of a recipe: prepare, check, pretrain, finetune, language_model, self_training,
evaluate, report."""

from __future__ import annotations

import dataclasses
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechjepa.config import to_dict
from speechjepa.errors import ConfigError, DataError
from speechjepa.workflow.checking import check_data, frame_ms
from speechjepa.workflow.corpora import Corpora, total_seconds
from speechjepa.workflow.language_model import (
    LANGUAGE_MODEL_FILES,
    extra_text,
    has_language_model,
    language_model_stage,
)
from speechjepa.workflow.languages import teach_languages
from speechjepa.workflow.recipe import Recipe, save_recipe
from speechjepa.workflow.run import Stage, StageState, digest, forget_stage, run_stages
from speechjepa.workflow.self_training import FOLDER as SELF_TRAINING
from speechjepa.workflow.self_training import self_training_stage
from speechjepa.workflow.start import (
    describe_start,
    refuse_own_start,
    start_fingerprint,
    starting_bundle,
)
from speechjepa.workflow.translation import STAGES as TRANSLATION_STAGES
from speechjepa.workflow.translation import TranslationPlan
from speechjepa.workflow.translation_language_model import (
    TRANSLATOR_LANGUAGE_MODEL_FILES,
    has_translator_language_model,
)

logger = logging.getLogger(__name__)

STAGES = (
    *("prepare", "check", "pretrain", "finetune", *TRANSLATION_STAGES),
    *("language_model", "self_training", "evaluate", "report"),
)


def run_recipe(
    recipe: Recipe,
    run_dir: Path | None = None,
    *,
    prepare: Path | None = None,
    cache_dir: Path | None = None,
    only: Sequence[str] = STAGES,
    redo: Sequence[str] = (),
) -> dict[str, StageState]:
    """Run the stages of a recipe that are not up to date.

    Args:
        recipe: From `load_recipe`.
        run_dir: The run folder; None = `default_run_dir`.
        prepare: Program that fetches and unpacks the data; see `catalogue.find_prepare`.
        cache_dir: Where decoded audio is kept; None = `default_cache_dir`.
        only: Stages to run; those that the recipe does not have are left out.
        redo: Stages to run even if nothing has changed.

    Returns:
        The state of each stage: minutes, figures.

    Raises:
        StoppedRun: Ctrl-C; calling again continues.
        ConfigError, DataError, ...: With what is wrong and what to do.
    """
    run_dir = (run_dir or default_run_dir(recipe)).resolve()
    cache_dir = (cache_dir or default_cache_dir(run_dir)).resolve()
    plan = Plan(recipe, run_dir, cache_dir, prepare)
    every = {stage.name: stage for stage in plan.stages()}
    stages = [stage for stage in every.values() if stage.name in only]
    if not stages:
        raise ConfigError(f"the recipe {recipe.name} has none of the stages {', '.join(only)}")
    for stage in stages:
        for name in {"report": ()}.get(stage.name, stage.after):  # a report shows what there is
            absent = [output for output in every[name].outputs if not (run_dir / output).exists()]
            if absent and name not in only:
                raise ConfigError(
                    f"{stage.name} needs {run_dir / absent[0]}; run the stage {name} first"
                )
    refuse_own_start(recipe, run_dir, [stage.name for stage in stages])
    return run_stages(stages, run_dir, redo=redo, begin=plan.begin)


def default_run_dir(recipe: Recipe) -> Path:
    """Return `runs/<name>`, with the seed behind it where that is not 0."""
    return Path("runs") / (f"{recipe.name}-{recipe.seed}" if recipe.seed else recipe.name)


def default_cache_dir(run_dir: Path) -> Path:
    """Return where decoded audio is kept: below SPEECHJEPA_CACHE, else beside the run folder."""
    chosen = os.environ.get("SPEECHJEPA_CACHE")
    return Path(chosen) / "decoded" if chosen else run_dir.parent / "cache"


class Plan:
    """Binds a recipe to a run folder, and knows what each stage reads, writes and does."""

    def __init__(
        self, recipe: Recipe, run_dir: Path, cache_dir: Path, prepare: Path | None
    ) -> None:
        self.recipe = recipe
        self.run_dir = run_dir
        self.cache_dir = cache_dir
        self.prepare = prepare
        self.corpora = Corpora(recipe.data, run_dir)

    def begin(self) -> None:
        """Make the run folder say what this recipe says, before any stage.

        Raises:
            ConfigError: There is no model to start from.
        """
        recipe = self.recipe
        logger.info("starts from %s", describe_start(recipe))
        if recipe.finetune is not None and not has_language_model(self.recipe):
            # Left in the bundle, it would go on to improve results and transcripts.
            forget_stage(self.run_dir, "language_model", LANGUAGE_MODEL_FILES)
        if recipe.translation is not None and not has_translator_language_model(recipe):
            forget_stage(self.run_dir, "language_model", TRANSLATOR_LANGUAGE_MODEL_FILES)
        if recipe.self_training is None:
            forget_stage(self.run_dir, SELF_TRAINING, (SELF_TRAINING,))
        save_recipe(recipe, self.run_dir / "recipe.yaml")

    def stages(self) -> list[Stage]:
        """Return the stages that this recipe has, in order."""
        recipe = self.recipe
        if recipe.translation is not None:
            plan = TranslationPlan(recipe, self.run_dir, self.cache_dir, self.corpora)
            stages = plan.stages()
        else:
            stages = [self._check()]
        if self.prepare is not None:
            stages.insert(0, self._prepare(self.prepare))
        if recipe.pretrain is not None:
            stages.append(self._pretrain())
        if recipe.finetune is not None:
            stages.append(self._finetune())
            if has_language_model(self.recipe):
                stages.append(self._language_model())
            if recipe.self_training is not None:
                stages.append(self._self_training())
            stages.append(self._evaluate())
        stages.append(self._report([stage.name for stage in stages]))
        # The run folder may remember stages that the recipe no longer has: nothing depends on
        # them, and what did is redone.
        names = {stage.name for stage in stages}
        return [
            dataclasses.replace(stage, after=tuple(name for name in stage.after if name in names))
            for stage in stages
        ]

    def _prepare(self, program: Path) -> Stage:
        root = self.recipe.data.root

        def action() -> None:
            if root is None:
                raise ConfigError(f"{program} needs a data root: say --data-root FOLDER")
            root.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, str(program), "--data-root", str(root)]
            status = subprocess.run(command, stdout=sys.stderr, check=False).returncode
            if status:
                raise DataError(f"ended with status {status}; see what it said above", path=program)

        return Stage(
            name="prepare",
            inputs=lambda: {"program": program.read_text("utf-8"), "data_root": str(root)},
            action=action,
        )

    def _check(self) -> Stage:
        recipe = self.recipe

        def inputs() -> dict[str, Any]:
            self.corpora.read_all()
            extra_text(recipe)
            return {
                "data": {
                    self.corpora.label(corpus): self.corpora.fingerprint(self.corpora.read(corpus))
                    for corpus in recipe.data.corpora()
                },
                "labels": recipe.data.labels,
                "text": recipe.text,
                "frame_ms": frame_ms(recipe),
            }

        return Stage(
            name="check",
            inputs=inputs,
            action=lambda: check_data(recipe, self.corpora, self.run_dir),
            outputs=("check.json",),
        )

    def _pretrain(self) -> Stage:
        recipe, config = self.recipe, self.recipe.pretrain
        assert config is not None

        def inputs() -> dict[str, Any]:
            return {
                "pretrain": config,
                "encoder": recipe.encoder,
                "init": start_fingerprint(recipe),
                "pool": self.corpora.fingerprint(self.corpora.pool, use_text=False),
            }

        def action() -> dict[str, Any]:
            from speechjepa.training.pretrain import pretrain

            pretrain(
                config,
                self.corpora.pool,
                self.run_dir / "pretrain",
                encoder=recipe.encoder,
                init=starting_bundle(recipe),
                probe=self._probe(),
                cache_dir=self.cache_dir,
            )
            self._gather_skipped()
            return {"unlabelled_hours": total_seconds(self.corpora.pool) / 3600}

        return Stage(
            name="pretrain",
            inputs=inputs,
            action=action,
            outputs=("pretrain/bundle",),
            is_shared=True,
        )

    def _probe(self) -> Any:
        from speechjepa.training.probe import ProbeData

        config = self.recipe.pretrain
        if not self.corpora.labelled or config is None or config.objective == "future":
            return None  # no labels, or the encoder stays as it is
        return ProbeData(utterances=self.corpora.labelled, text=self.recipe.text)

    def _finetune(self) -> Stage:
        recipe, config = self.recipe, self.recipe.finetune
        assert config is not None
        start = self._start

        def inputs() -> dict[str, Any]:
            return {
                "finetune": config,
                "text": recipe.text,
                "encoder": recipe.encoder,
                "init": start_fingerprint(recipe),
                "train": self.corpora.fingerprint(self.corpora.labelled),
                "dev": self.corpora.fingerprint(self.corpora.dev),
            }

        def action() -> dict[str, Any]:
            from speechjepa.training.finetune import finetune

            beside = self.run_dir / "pretrain" / "bundle"
            if start is None and beside.exists():
                logger.warning("starts from fresh weights, not from %s (init=%s)", beside, beside)
            finetune(
                config,
                self.corpora.labelled,
                self.corpora.dev,
                self.run_dir / "finetune",
                text=recipe.text,
                encoder=recipe.encoder,
                init=start,
                cache_dir=self.cache_dir,
            )
            self._complete(self._finetuned)
            self._gather_skipped()
            return {
                "label_minutes": total_seconds(self.corpora.labelled) / 60,
                "labelled_utterances": len(self.corpora.labelled),
            }

        return Stage(
            name="finetune",
            inputs=inputs,
            action=action,
            outputs=("finetune/bundle",),
            after=("pretrain",),
        )

    def _complete(self, bundle: Path) -> None:
        """Sign a fine-tuned bundle, and teach it to tell its languages apart if it has several."""
        self._sign(bundle)
        utterances = [*self.corpora.labelled, *self.corpora.pool]
        teach_languages(bundle, utterances, seed=self.recipe.seed)

    def _sign(self, bundle: Path, **entries: Any) -> None:
        """Write into a fine-tuned bundle what the recipe says about it."""
        from speechjepa.models.bundle import update_bundle

        if self.recipe.language:
            entries["languages"] = [self.recipe.language]
        update_bundle(bundle, licence=self.recipe.licence, **entries)

    @property
    def _start(self) -> Path | None:
        if self.recipe.pretrain is not None:
            return self.run_dir / "pretrain" / "bundle"
        return starting_bundle(self.recipe)

    @property
    def _finetuned(self) -> Path:
        return self.run_dir / "finetune" / "bundle"

    @property
    def _bundle(self) -> Path:
        """The model that the recipe ends with."""
        if self.recipe.self_training is not None:
            return self.run_dir / SELF_TRAINING / "bundle"
        return self._finetuned

    def _language_model(self) -> Stage:
        return language_model_stage(self.recipe, self.corpora, self._finetuned)

    def _self_training(self) -> Stage:
        def finish() -> None:
            self._complete(self._bundle)
            self._gather_skipped()

        return self_training_stage(
            self.recipe,
            self.corpora,
            self.run_dir,
            start=self._start,
            cache_dir=self.cache_dir,
            finish=finish,
        )

    def _evaluate(self) -> Stage:
        def action() -> dict[str, Any]:
            from speechjepa.inference.evaluate import calibration_of, evaluate
            from speechjepa.inference.model import load
            from speechjepa.models.bundle import default_device

            model = load(self._bundle, device=default_device())
            found = evaluate(
                model, self.corpora.dev, out_dir=self.run_dir / "evaluate", seed=self.recipe.seed
            )
            rates = {name: found.results[name] for name in ("cer", "wer", "cer_lm", "wer_lm")}
            split = self.corpora.dev_name
            self._sign(
                self._bundle,
                results={"recipe": self.recipe.name, "split": split, **rates},
                calibration=calibration_of(found.results),
            )
            return {"split": split, **rates, "parameters": model.info()["parameters"]}

        return Stage(
            name="evaluate",
            inputs=lambda: {
                "dev": self.corpora.fingerprint(self.corpora.dev),
                **{
                    key: getattr(self.recipe, key)
                    for key in ("name", "seed", "language", "licence")
                },
            },
            action=action,
            outputs=("evaluate/results.json", "evaluate/predictions.jsonl"),
            after=("finetune", "language_model", SELF_TRAINING),
        )

    def _report(self, before: Sequence[str]) -> Stage:
        def action() -> None:
            from speechjepa.workflow.report import write_report

            write_report(self.run_dir)

        return Stage(
            name="report",
            inputs=lambda: {"recipe": {"digest": digest(to_dict(self.recipe))}},
            action=action,
            outputs=("report.html",),
            after=tuple(before),
        )

    def _gather_skipped(self) -> None:
        """Put the files that any stage had to skip into one list."""
        lines: dict[str, None] = {}
        rounds = sorted(self.run_dir.glob(f"{SELF_TRAINING}/round*"))
        for folder in (self.run_dir / "pretrain", self.run_dir / "finetune", *rounds):
            path = folder / "skipped.jsonl"
            if path.exists():
                lines |= dict.fromkeys(path.read_text(encoding="utf-8").splitlines())
        with open(self.run_dir / "skipped.jsonl", "w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)
