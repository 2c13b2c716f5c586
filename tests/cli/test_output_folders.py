"""An output that cannot be written is noticed before any work."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

import speechjepa.inference.model
from speechjepa.cli.main import main


@pytest.fixture
def words(tmp_path, monkeypatch):
    """Files to name in a command; no model may be loaded."""

    def load(*_, **__):
        pytest.fail("the model is loaded first")

    monkeypatch.setattr(speechjepa.inference.model, "load", load)
    monkeypatch.setattr("speechjepa.workflow.stages.Plan.begin", load)
    (tmp_path / "speech").mkdir()
    soundfile.write(tmp_path / "speech" / "a.wav", np.full(16000, 0.1), 16000)
    (tmp_path / "speech" / "a.txt").write_text("text")
    (tmp_path / "recipe.yaml").write_text(
        f"{{name: a, data: {{train: {tmp_path}/speech}}, pretrain: null}}"
    )
    (tmp_path / "file").write_text("mine")
    names = {"speech": "speech", "wav": "speech/a.wav", "text": "speech/a.txt", "file": "file"}
    names |= {"recipe": "recipe.yaml", "list": "file/first.txt", "none": "none"}
    return {name: str(tmp_path / path) for name, path in names.items()}


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("units fit {speech} -o {file}", "units"),
        ("units apply {wav} --units {none} -o {file}", "units"),
        ("voice fit {speech} --units {none} -o {file}", "a voice"),
        ("voice speak {wav} --voice {none} -o {file}", "speech"),
        ("select {speech} --minutes 1 -o {list}", "lists"),
        ("align {wav} {text} --model m -o {file}", "times"),
        ("surprise {wav} --model m -o {file}", "curves"),
        ("evaluate {speech} --model m -o {file}", "results"),
        ("run {recipe} -o {file}", "a run"),
        ("pretrain {speech} -o {file}", "a run"),
    ],
)
def test_a_file_in_place_of_the_folder_is_said_before_the_work(words, command, what, capsys):
    assert main([part.format(**words) for part in command.split()]) == 2
    message = f"{words['file']}: {what} cannot be written there: this is a file; give another"
    assert message in capsys.readouterr().err
    with open(words["file"]) as file:
        assert file.read() == "mine"


def test_a_folder_that_takes_no_files_is_said_before_the_work(words, capsys):
    assert main(["select", words["speech"], "--minutes", "1", "-o", "/proc/first.txt"]) == 2
    assert "/proc: lists cannot be written there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("select {speech} --minutes 1 --overwrite -o {speech}/b.txt", "b.tsv"),
        ("align {wav} {text} --model m --overwrite -o {speech}", "a.json"),
    ],
)
def test_a_folder_in_place_of_the_file_is_said_before_the_work(
    words, command, output, tmp_path, capsys
):
    (tmp_path / "speech" / output).mkdir()
    assert main([part.format(**words) for part in command.split()]) == 2
    assert f"a folder is where {tmp_path}/speech/{output} should be" in capsys.readouterr().err


def test_an_evaluation_replaces_none_but_its_own_files(tmp_path, capsys):
    for name in ("results.json", "predictions.jsonl"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text('{"mine": 1}')
        assert main(["evaluate", str(tmp_path), "--model", "m", "-o", str(folder)]) == 2
        assert f"{folder / name}: is there already and no evaluation" in capsys.readouterr().err
        assert (folder / name).read_text() == '{"mine": 1}'
