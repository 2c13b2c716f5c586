"""Find units in the target speech of pairs, and write it in them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from speechjepa.data.pairs import Pair
from speechjepa.errors import AudioError
from speechjepa.inference.model import SpeechModel, load
from speechjepa.inference.recognise import read_utterance
from speechjepa.inference.units import check_encoder, encode_units, fit
from speechjepa.progress import track
from speechjepa.units.kmeans import Units, load_units
from speechjepa.units.sequences import deduplicate
from speechjepa.workflow.record import write_json
from speechjepa.workflow.translation_data import (
    SPLITS,
    UNITS_MODEL,
    Pairs,
    units_model,
    write_units,
)
from speechjepa.workflow.translation_recipe import UnitsConfig

logger = logging.getLogger(__name__)


def make_units(
    pairs: Pairs, config: UnitsConfig | None, start: Path | None, folder: Path, *, seed: int
) -> dict[str, float]:
    """Find units, or take those of another translation, and write every target in them.

    Args:
        pairs: Of the recipe.
        config: Which units; None = those of `start`.
        start: Bundle of another translation.
        folder: Gets the units, the name of their encoder, and train.jsonl and dev.jsonl.
        seed: Of the units.

    Returns:
        Units per second of each split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spoken = {split: pairs.spoken(split) for split in SPLITS}
    if config is None:
        assert start is not None
        units, model = load_units(start / "units"), load(units_model(start / "units"))
        check_encoder(model, units)
        shutil.copyfile(start / "units" / UNITS_MODEL, folder / UNITS_MODEL)
    else:
        model = load(config.model)
        targets = [pair.target for pair in spoken["train"] if pair.target is not None]
        units, _ = fit(
            model,
            targets,
            layer=config.layer,
            num_units=config.num_units,
            seed=seed,
            phases=config.phases,
            change_penalty=config.change_penalty,
        )
        write_json(folder / UNITS_MODEL, {"model": str(config.model)})
    units.save(folder)
    return {split: _write(spoken[split], model, units, folder, split) for split in SPLITS}


def _write(
    pairs: Sequence[Pair], model: SpeechModel, units: Units, folder: Path, split: str
) -> float:
    sequences: dict[str, Any] = {}
    frames = 0
    for pair in track(pairs, f"units of {split}", len(pairs)):
        assert pair.target is not None
        try:
            waveform = torch.from_numpy(read_utterance(pair.target, model.sample_rate))
        except AudioError as error:
            logger.warning("left out: %s", error)
            continue
        found = encode_units(model, units, waveform)
        sequence, durations = deduplicate(found)
        sequences[pair.id] = sequence.tolist(), durations.tolist()
        frames += len(found)
    write_units(sequences, folder / f"{split}.jsonl")
    total = sum(len(sequence) for sequence, _ in sequences.values())
    return total * units.frame_rate / max(1, frames)
