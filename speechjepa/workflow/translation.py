"""The stages of a recipe that translates: prepare, check, units, voice, translate, recogniser,
language_model, evaluate."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from speechjepa.errors import ConfigError, DataError
from speechjepa.workflow.corpora import Corpora, total_seconds
from speechjepa.workflow.recipe import Recipe
from speechjepa.workflow.record import write_json
from speechjepa.workflow.run import Stage, digest
from speechjepa.workflow.start import start_fingerprint, starting_bundle
from speechjepa.workflow.translation_data import (
    SPLITS,
    Pairs,
    character_examples,
    read_units,
    translated_text,
    unit_examples,
    units_model,
)
from speechjepa.workflow.translation_language_model import (
    has_translator_language_model,
    translator_language_model_stage,
)

logger = logging.getLogger(__name__)

STAGES = ("units", "voice", "translate", "recogniser")
"""Those that other recipes do not have."""


class TranslationPlan:
    """Knows what each stage of a translating recipe reads, writes and does.

    Args:
        recipe: With `translation`.
        run_dir: The run folder.
        cache_dir: Where decoded audio is kept.
        corpora: Of the recipe.
    """

    def __init__(self, recipe: Recipe, run_dir: Path, cache_dir: Path, corpora: Corpora) -> None:
        assert recipe.translation is not None
        self.recipe = recipe
        self.config = recipe.translation
        self.run_dir = run_dir
        self.cache_dir = cache_dir
        self.corpora = corpora
        self.pairs = Pairs(recipe, corpora, run_dir)

    def stages(self) -> list[Stage]:
        """Return the stages, in order."""
        stages = [self._check()]
        if self.config.phrases is not None:
            stages.insert(0, self._phrases())
        if self.config.writes == "units":
            stages.append(self._units())
            if self.config.voice is not None:
                stages.append(self._voice())
        stages.append(self._translate())
        if self.config.recogniser is not None:
            stages.append(self._recogniser())
        if has_translator_language_model(self.recipe):
            stages.append(translator_language_model_stage(self))
        if self.recipe.data.dev is not None:
            stages.append(self._evaluate())
        return stages

    @property
    def bundle(self) -> Path:
        """Folder of the model that translates."""
        return self.run_dir / "translate" / "bundle"

    def _phrases(self) -> Stage:
        settings = self.config.phrases
        assert settings is not None

        def action() -> dict[str, Any]:
            from speechjepa.data.synthetic.pairs import make_pairs

            make_pairs(self._phrases_folder(), settings, num_workers=min(os.cpu_count() or 1, 8))
            return {}

        return Stage(
            name="prepare",
            inputs=lambda: {"phrases": settings, "folder": str(self._phrases_folder())},
            action=action,
        )

    def _phrases_folder(self) -> Path:
        entry = self.recipe.data.train
        assert entry is not None
        corpus = self.recipe.data.complete(entry)
        if str(corpus.location).startswith("hf:") or Path(str(corpus.location)).name != "train":
            raise ConfigError(
                "`translation.phrases` are written into the folder that holds `data.train`, which "
                f"must therefore be a folder called train, but is {corpus.location} instead"
            )
        return Path(str(corpus.location)).parent

    def _check(self) -> Stage:
        def action() -> dict[str, Any]:
            from speechjepa.inference.search import import_flashlight

            found = {split: self._count(split) for split in SPLITS}
            for split, counts in found.items():
                logger.info("%s: %s", split, ", ".join(f"{n} {what}" for what, n in counts.items()))
            missing = [
                pair.target
                for pair in [*self.pairs.train, *self.pairs.dev]
                if pair.target is not None
                and pair.target.audio_path.parent != self.run_dir / "spoken"
                and not pair.target.audio_path.exists()
            ]
            if missing:
                raise DataError(
                    f"{missing[0].source}: the target audio {missing[0].audio_path} is not there, "
                    f"nor are {len(missing) - 1} others; correct the manifest or get the files"
                )
            if self.config.writes == "units":
                self.pairs.spoken("train")
            if has_translator_language_model(self.recipe):
                import_flashlight()  # said now, not after hours of training
            write_json(self.run_dir / "check.json", {"pairs": found})
            return {"pairs": found}

        return Stage(
            name="check",
            inputs=lambda: {**self._pairs_fingerprint(), "writes": self.config.writes},
            action=action,
            outputs=("check.json",),
            after=("prepare",),
        )

    def _count(self, split: str) -> dict[str, int]:
        pairs = self.pairs.of(split)
        return {
            "pairs": len(pairs),
            "with target speech": sum(pair.target is not None for pair in pairs),
            "with target text": sum(bool(pair.text) for pair in pairs),
            "with source text": sum(bool(pair.source.text) for pair in pairs),
        }

    def _pairs_fingerprint(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for split in SPLITS:
            pairs = self.pairs.of(split)
            found[split] = self.corpora.fingerprint([pair.source for pair in pairs])
            targets = [pair.target for pair in pairs if pair.target is not None]
            # What is synthesised here follows from the text, and is written after it is asked for.
            own = [t for t in targets if t.audio_path.parent == self.run_dir / "spoken"]
            found[f"{split}_target"] = self.corpora.fingerprint(
                [t for t in targets if t not in own]
            )
            if own:
                found[f"{split}_spoken"] = digest([[t.id, t.text] for t in own])
        return found | {"language": self.config.language, "spoken_by": self.config.spoken_by}

    def _units(self) -> Stage:
        config = self.config.units

        def inputs() -> dict[str, Any]:
            return {
                **self._pairs_fingerprint(),
                "units": config,
                "seed": self.recipe.seed,
                "init": start_fingerprint(self.recipe) if config is None else None,
            }

        def action() -> dict[str, Any]:
            from speechjepa.workflow.translation_units import make_units

            written = self.pairs.synthesise()
            start = self._start_of_translation() if config is None else None
            folder = self.run_dir / "units"
            rates = make_units(self.pairs, config, start, folder, seed=self.recipe.seed)
            return {"units_per_second": rates, "synthesised": written}

        return Stage(
            name="units",
            inputs=inputs,
            action=action,
            outputs=("units/units.json", "units/train.jsonl", "units/dev.jsonl"),
            after=("check",),
            is_shared=True,
        )

    def _start_of_translation(self) -> Path:
        start = starting_bundle(self.recipe)
        if start is None or not (start / "units").is_dir():
            raise ConfigError(
                "`translation.units: null` takes the units of `init`, which must then be a run of "
                f"translation, but {start or 'fresh weights'} holds none"
            )
        return start

    def _voice(self) -> Stage:
        config = self.config

        def action() -> dict[str, Any]:
            from speechjepa.inference.model import load
            from speechjepa.training.vocoder import VocoderTraining
            from speechjepa.units.kmeans import load_units
            from speechjepa.workflow.voice import fit_voice

            assert config.voice is not None
            chosen, seconds = [], 0.0
            for pair in self.pairs.spoken("train"):
                if seconds >= 60 * config.voice_minutes:
                    break
                assert pair.target is not None
                chosen.append(pair.target)
                seconds += total_seconds([pair.target])
            folder = self.run_dir / "units"
            training = VocoderTraining(minutes=config.vocoder_minutes, seed=self.recipe.seed)
            _, skipped = fit_voice(
                load(units_model(folder)),
                load_units(folder),
                chosen,
                config.voice,
                self.run_dir / "voice",
                training=training,
            )
            self._assemble()
            return {"minutes_of_voice": seconds / 60, "left_out": len(skipped)}

        return Stage(
            name="voice",
            inputs=lambda: {
                "voice": config.voice,
                "seed": self.recipe.seed,
                "minutes": config.vocoder_minutes,
                "voice_minutes": config.voice_minutes,
            },
            action=action,
            outputs=("voice/voice.json",),
            after=("units",),
            is_shared=True,
        )

    def _translate(self) -> Stage:
        config = self.config
        after = ("check", "units") if config.writes == "units" else ("check",)

        def inputs() -> dict[str, Any]:
            return {
                **self._pairs_fingerprint(),
                "train": config.train,
                "text": self.recipe.text,
                "encoder": self.recipe.encoder,
                "init": start_fingerprint(self.recipe),
                "seed": self.recipe.seed,
            }

        return Stage(
            name="translate",
            inputs=inputs,
            action=self._train,
            outputs=("translate/bundle",),
            after=after,
        )

    def _train(self) -> dict[str, Any]:
        from speechjepa.models.bundle import update_bundle
        from speechjepa.text.vocabulary import Vocabulary
        from speechjepa.training.translation import Target, train_translator
        from speechjepa.units.kmeans import load_units

        recipe, config = self.recipe, self.config
        source, other = recipe.language, config.language
        if config.writes == "units":
            folder = self.run_dir / "units"
            units = {split: read_units(folder / f"{split}.jsonl") for split in SPLITS}
            examples = {
                split: unit_examples(self.pairs.of(split), units[split], recipe.text)
                for split in SPLITS
            }
            num_tokens = load_units(folder).num_units + 1
            target = Target(
                kind="units", num_tokens=num_tokens, source_language=source, language=other
            )
        else:
            texts = [translated_text(pair, recipe.text) for pair in self.pairs.train]
            vocabulary = Vocabulary.build(texts)
            examples = {
                split: character_examples(self.pairs.of(split), vocabulary, recipe.text)
                for split in SPLITS
            }
            target = Target(
                kind="characters",
                num_tokens=len(vocabulary),
                vocabulary=vocabulary,
                source_language=source,
                language=other,
            )
        start = starting_bundle(recipe)
        train_translator(
            config.train,
            examples["train"],
            examples["dev"],
            self.run_dir / "translate",
            target=target,
            text=recipe.text,
            encoder=recipe.encoder,
            init=start,
            cache_dir=self.cache_dir,
        )
        self._assemble()
        update_bundle(self.bundle, licence=recipe.licence)
        seconds = total_seconds([pair.source for pair in self.pairs.train])
        return {"pair_minutes": seconds / 60, "pairs": len(examples["train"])}

    def _assemble(self) -> None:
        """Put units and voice into the bundle, as far as they are there."""
        if self.config.writes != "units" or not self.bundle.is_dir():
            return
        for name in ("units", "voice"):
            if (self.run_dir / name).is_dir():
                shutil.rmtree(self.bundle / name, ignore_errors=True)
                shutil.copytree(self.run_dir / name, self.bundle / name)
        for split in SPLITS:  # the corpus is not part of the model
            (self.bundle / "units" / f"{split}.jsonl").unlink(missing_ok=True)

    def _recogniser(self) -> Stage:
        config = self.config.recogniser
        assert config is not None

        def action() -> dict[str, Any]:
            from speechjepa.models.shipped import shipped_encoder
            from speechjepa.training.finetune import finetune

            self.pairs.synthesise()
            told = {
                split: [
                    dataclasses.replace(pair.target, text=pair.text)
                    for pair in self.pairs.spoken(split)
                    if pair.target is not None and pair.text
                ]
                for split in SPLITS
            }
            finetune(
                config,
                told["train"],
                told["dev"],
                self.run_dir / "recogniser",
                text=self.recipe.text,
                init=shipped_encoder(),
                cache_dir=self.cache_dir,
            )
            return {"utterances": len(told["train"])}

        return Stage(
            name="recogniser",
            inputs=lambda: {
                **self._pairs_fingerprint(),
                "recogniser": config,
                "text": self.recipe.text,
            },
            action=action,
            outputs=("recogniser/bundle",),
            after=("check",),
            is_shared=True,
        )

    def _evaluate(self) -> Stage:
        def action() -> dict[str, Any]:
            from speechjepa.workflow.translation_scores import evaluate_translation

            return evaluate_translation(self)

        return Stage(
            name="evaluate",
            inputs=lambda: {
                **self._pairs_fingerprint(),
                "max_dev_pairs": self.config.max_dev_pairs,
                "num_examples": self.config.num_examples,
            },
            action=action,
            outputs=("evaluate/results.json", "evaluate/predictions.jsonl"),
            after=("translate", "voice", "recogniser", "language_model"),
        )
