"""`speechjepa convert` as typed."""

from __future__ import annotations

import pytest

from speechjepa.cli.main import main
from speechjepa.models.bundle import load_bundle
from tests.models.test_published import published, stored


def test_there_and_back_again(tmp_path, capsys):
    folder = stored(published("wav2vec2-large"), tmp_path / "m")
    assert main(["convert", str(folder), str(tmp_path / "ours")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'ours'}\n"
    assert load_bundle(tmp_path / "ours").vocabulary == load_bundle(folder).vocabulary
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "back"), "--to", "hf"]) == 0
    theirs, ours = ((f / "model.safetensors").stat().st_size for f in (folder, tmp_path / "back"))
    assert theirs == ours


def test_what_lies_beside_a_model_comes_along_or_is_said_to_stay(tmp_path, capsys):
    folder = stored(published("wav2vec2-base"), tmp_path / "m")
    assert main(["convert", str(folder), str(tmp_path / "ours")]) == 0
    for name in ("lm.arpa", "language.safetensors"):
        (tmp_path / "ours" / name).write_text(name)
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "copy")]) == 0
    assert (tmp_path / "copy" / "lm.arpa").read_text() == "lm.arpa"
    assert (tmp_path / "copy" / "language.safetensors").exists()
    assert "left behind" not in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "hf"), "--to", "hf"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert f"left behind: the language model, {tmp_path / 'ours' / 'lm.arpa'}" in said
    assert not (tmp_path / "hf" / "lm.arpa").exists()


def test_nothing_is_overwritten_and_what_is_missing_is_named(tmp_path, capsys):
    folder = stored(published("wav2vec2-base"), tmp_path / "m")
    assert main(["convert", str(folder), str(folder)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "no" / "such"), str(tmp_path / "new")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_fetched_is_an_error(tmp_path, capsys, monkeypatch):
    import huggingface_hub

    def offline(name, **_):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    assert main(["convert", "facebook/none", str(tmp_path / "new")]) == 2
    assert "facebook/none: no such folder, and it cannot be fetched: no network" in (
        capsys.readouterr().err
    )


def test_of_a_checkpoint_with_many_adapters_one_is_fetched(tmp_path, capsys, monkeypatch):
    import huggingface_hub

    (tmp_path / "vocab.json").write_text('{"swh": {}, "fra": {}, "deu": {}}')
    asked = []

    def fetch(name, allow_patterns):
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    main(["convert", "facebook/mms", str(tmp_path / "new"), "--language", "Swahili"])
    assert [p for p in asked[1] if "adapter" in p] == ["adapter.swh.*"]
    assert main(["convert", "facebook/mms", str(tmp_path / "new"), "--language", "ell"]) == 2
    assert "no adapter for 'ell'; it has deu, fra, swh" in capsys.readouterr().err
    assert len(asked) == 3, "refused before any weights are fetched"


def test_heads_are_for_checkpoint_files(tmp_path, capsys):
    assert main(["convert", str(tmp_path), str(tmp_path / "new"), "--heads", "4"]) == 2
    assert "--heads goes with a checkpoint file" in capsys.readouterr().err


def test_a_file_of_torchaudio_becomes_a_bundle(tmp_path):
    import torch

    from tests.models.test_published_torchaudio import torchaudio_model

    state = torchaudio_model("base", aux_num_out=None).state_dict()
    torch.save(state, tmp_path / "a.pt")
    assert main(["convert", str(tmp_path / "a.pt"), str(tmp_path / "new"), "--heads", "4"]) == 0
    assert load_bundle(tmp_path / "new").encoder.config.num_heads == 4


def test_a_mistyped_folder_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    from speechjepa.models.hub import is_hub_name

    monkeypatch.chdir(tmp_path)
    assert is_hub_name("facebook/mms-1b-all")
    (tmp_path / "mine").mkdir()
    for path in ("mine/model", "model", "a/b/c", "../model", "~/model", "/model", "./a/b"):
        assert not is_hub_name(path), path
    for path in ("runs/quickstart", "runs/quickstart/", "./a/b", "my/a.pt"):  # there are none of it
        assert not is_hub_name(path), path


@pytest.mark.parametrize("model", ["runs/quickstart", "./owner/name"])
def test_a_run_that_was_never_made_asks_no_network(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked"))
    assert main(["info", model]) == 2
    said = capsys.readouterr().err
    assert "there is no such folder" in said and "`make quickstart`" in said and "`shipped`" in said


@pytest.mark.parametrize("name", ["recipe.yaml", "state.json"])
def test_an_unfinished_run_says_that_it_can_go_on(name, tmp_path, capsys):
    (tmp_path / name).write_text("{}")
    assert main(["info", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path}: this run has no finished model yet; the same `speechjepa run`" in said


def test_a_model_may_be_named_as_on_the_hub(tmp_path, monkeypatch):
    import huggingface_hub

    from speechjepa.inference.model import load

    folder = stored(published("wavlm-base"), tmp_path / "m")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    assert load("microsoft/wavlm").encoder.config.bias_buckets == 16
