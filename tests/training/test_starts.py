"""Pretraining goes on, and fine-tuning starts, from checkpoints that others published."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from speechjepa.errors import ConfigError, ModelError
from speechjepa.inference.language_model import DECODER_FILE
from speechjepa.models.bundle import (
    Bundle,
    build_encoder,
    load_bundle,
    load_init,
    save_bundle,
    update_bundle,
)
from speechjepa.workflow.recipe import build_recipe
from speechjepa.workflow.start import start_fingerprint, starting_bundle
from tests.models.test_published import published, stored
from tests.models.test_published_files import (
    fairseq_state,
    settings_of,
    write_dictionary,
)
from tests.models.test_published_torchaudio import torchaudio_model
from tests.training import test_finetune, test_pretrain
from tests.training.corpus import SMALL

SOURCES = ("wavlm of transformers", "ctc of fairseq", "wavlm of torchaudio")


def stored_source(name: str, folder: Path) -> Path:
    folder.mkdir()
    if name == "wavlm of transformers":
        return stored(published("wavlm-base"), folder / "m")
    if name == "ctc of fairseq":
        model = published("wav2vec2-base")
        cfg = {"model": settings_of(model), "task": {"normalize": True}}
        torch.save({"cfg": cfg, "model": fairseq_state(model)}, folder / "a.pt")
        write_dictionary(folder)
        return folder / "a.pt"
    model = torchaudio_model("large", "wavlm", aux_num_out=None)
    torch.save(model.state_dict(), folder / "a.pth")
    return folder / "a.pth"


def moved(before, after) -> set[str]:
    pairs = after.state_dict()
    return {n for n, tensor in before.state_dict().items() if not torch.equal(tensor, pairs[n])}


@pytest.mark.parametrize("name", SOURCES)
def test_fine_tuning_starts_from_it(name, tmp_path):
    source = stored_source(name, tmp_path / "source")
    config = replace(
        test_finetune.CONFIG, max_steps=3, freeze_finetune_updates=0.0, freeze_feature_encoder=True
    )
    bundle = load_bundle(test_finetune.run(tmp_path, config, encoder=None, init=source))
    start = load_init(source)
    assert bundle.encoder.config == start.config
    changed = moved(start, bundle.encoder)
    assert "blocks.2.ffn_out.weight" in changed
    assert "feature_encoder.convolutions.0.weight" not in changed, "kept as pretrained"
    if "wavlm" in name:
        assert "relative_bias.table.weight" in changed
    assert bundle.training["finetune"]["init"] == str(source)


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        *((name, "jepa") for name in SOURCES),
        (SOURCES[0], "contrastive"),
        (SOURCES[2], "reconstruct"),
    ],
)
def test_pretraining_goes_on_from_it(name, objective, tmp_path):
    source = stored_source(name, tmp_path / "source")
    config = replace(test_pretrain.CONFIG, objective=objective, max_steps=2)
    bundle = load_bundle(test_pretrain.run(tmp_path, config, encoder=None, init=source))
    start = load_init(source)
    assert bundle.encoder.config == start.config
    assert "blocks.0.ffn_in.weight" in moved(start, bundle.encoder)


def test_the_init_of_a_recipe_may_be_a_checkpoint_file(tmp_path):
    source = stored_source("wavlm of torchaudio", tmp_path / "source")
    settings = {"name": "a", "data": {"train": "/corpus"}}
    recipe = build_recipe(settings | {"init": str(source)})
    assert starting_bundle(recipe) == source
    assert set(start_fingerprint(recipe)) == {"digest"}
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ConfigError, match="`init` must be a model"):
        starting_bundle(build_recipe(settings | {"init": str(tmp_path / "notes.txt")}))


def fingerprint_of(folder: Path) -> object:
    settings = {"name": "a", "data": {"train": "/corpus"}, "init": str(folder)}
    return start_fingerprint(build_recipe(settings))


def test_training_depends_on_what_it_starts_from_and_not_on_where_that_lies(tmp_path):
    run = tmp_path / "run"
    bundle = save_bundle(Bundle(encoder=build_encoder(SMALL)), run / "pretrain" / "bundle")
    before = fingerprint_of(bundle)
    assert fingerprint_of(run) == before
    update_bundle(bundle, results={"cer": 0.5}, calibration={"greedy": 1}, licence="CC0")
    (bundle / DECODER_FILE).write_text("{}")
    moved_to = run.rename(tmp_path / "elsewhere")
    assert fingerprint_of(moved_to) == before
    other = save_bundle(Bundle(encoder=build_encoder(SMALL)), tmp_path / "other")
    assert fingerprint_of(other) != before
    for content, message in (("{", "cannot be read"), ("[1]", "must be a mapping, not list")):
        (other / "config.json").write_text(content)
        with pytest.raises(ModelError, match=rf"config\.json: {message}"):
            fingerprint_of(other)


def test_training_depends_on_the_weights_of_a_published_model_in_either_format(tmp_path):
    source = stored(published("wavlm-base"), tmp_path / "m")
    weights = source / "model.safetensors"
    before = fingerprint_of(source)
    (source / "._model.safetensors").write_bytes(b"of another system")
    assert fingerprint_of(source) == before
    weights.rename(source / "pytorch_model.bin")
    found = fingerprint_of(source)
    with (source / "pytorch_model.bin").open("ab") as file:
        file.write(b"x")
    assert fingerprint_of(source) not in (found, before)


@pytest.mark.parametrize("named", ["run", "run/pretrain", "run/pretrain/bundle"])
def test_the_init_of_a_recipe_may_be_a_run_its_stage_or_its_model(named, tmp_path):
    bundle = tmp_path / "run" / "pretrain" / "bundle"
    bundle.mkdir(parents=True)
    for folder in (bundle, bundle.parent):  # a stage says in a file of that name what it was asked
        (folder / "config.json").write_text("{}")
    settings = {"name": "a", "data": {"train": "/corpus"}, "init": str(tmp_path / named)}
    assert starting_bundle(build_recipe(settings)) == bundle


def test_of_a_run_without_pretraining_its_last_model_is_the_start(tmp_path):
    recipe = build_recipe({"name": "a", "data": {"train": "/corpus"}, "init": str(tmp_path)})
    for stage in ("finetune", "self_training", "pretrain"):
        bundle = tmp_path / stage / "bundle"
        bundle.mkdir(parents=True)
        (bundle / "config.json").write_text("{}")
        assert starting_bundle(recipe) == bundle
