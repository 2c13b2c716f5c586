from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

import speechjepa
from speechjepa.cli import main as cli
from speechjepa.cli import run as run_command
from speechjepa.errors import ConfigError
from speechjepa.workflow.run import StoppedRun

HEAVY = ("torch", "lightning", "datasets", "matplotlib", "librosa", "transformers", "numpy")


def python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, speechjepa; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert python(code).strip() == "[]"


def test_help_loads_nothing_heavy_and_answers_at_once() -> None:
    code = (
        "import sys\n"
        "from speechjepa.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit: pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    begin = time.monotonic()
    output = python(code)
    assert output.splitlines()[-1] == "[]"
    assert time.monotonic() - begin < 2.0  # 0.05 s on an idle machine; tests share theirs


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    assert f"speechjepa {command}" in capsys.readouterr().out


def test_help_lists_every_command_with_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    listed = dict(re.findall(r"^  (\w+) +(\S.*)$", capsys.readouterr().out, re.MULTILINE))
    assert list(listed) == list(cli.COMMANDS)
    assert listed["info"].startswith("what a bundle holds")


def test_python_m_is_the_same_command() -> None:
    command = [sys.executable, "-m", "speechjepa", "--version"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert output == f"speechjepa {speechjepa.__version__}\n"


def test_the_version_is_the_one_that_is_packaged() -> None:
    text = (Path(speechjepa.__file__).parent.parent / "pyproject.toml").read_text()
    assert f'version = "{speechjepa.__version__}"' in text


def test_names_of_the_package_are_fetched_on_first_use() -> None:
    for name in ("Utterance", "load_recipe", "read_corpus", "run_recipe", "load"):
        assert callable(getattr(speechjepa, name))
        assert name in dir(speechjepa)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        speechjepa.lode  # noqa: B018


def test_an_error_of_ours_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "no/such"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: there is no recipe 'no/such'")
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_ctrl_c_prints_the_command_that_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*args: object, **options: object) -> None:
        raise StoppedRun("pretrain", 3.25)

    monkeypatch.setattr("speechjepa.workflow.stages.run_recipe", stop)
    monkeypatch.setenv("SPEECHJEPA_DATA", str(tmp_path))
    arguments = ["run", "mboshi/asr_10min", "pretrain.minutes=3", "data.labels={minutes: 3}"]
    monkeypatch.setattr(sys, "argv", ["speechjepa", *arguments])
    assert cli.main(arguments) == 130
    captured = capsys.readouterr()
    assert "stopped in pretrain after 3.2 min" in captured.err
    assert (
        "  speechjepa run mboshi/asr_10min pretrain.minutes=3 'data.labels={minutes: 3}' "
        f"--data-root {tmp_path}\n" in captured.err
    )
    assert captured.out == ""


def test_the_command_that_goes_on_does_not_redo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPEECHJEPA_DATA", raising=False)
    argv = ["/x/speechjepa/__main__.py", "run", "a", "--redo", "check", "--redo=report", "-o", "r"]
    monkeypatch.setattr(sys, "argv", argv)
    assert run_command.this_command() == "python -m speechjepa run a -o r"


def test_messages_go_to_stderr_and_results_to_stdout(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(args: object) -> int:
        logging.getLogger("speechjepa.workflow").info("working")
        logging.getLogger("speechjepa.workflow").debug("details")
        print("result")
        return 0

    monkeypatch.setattr(run_command, "run", answer)
    assert cli.main(["recipes"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "result\n"
    assert "working" in captured.err
    assert "details" not in captured.err
    assert cli.main(["recipes", "--verbose"]) == 0
    assert "details" in capsys.readouterr().err


@pytest.mark.parametrize(
    "locale",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_letters_that_the_locale_lacks_are_written_as_utf8(locale: dict[str, str]) -> None:
    code = (
        "import sys\n"
        "from speechjepa.cli import main, run\n"
        r"run.run = lambda _: print('\u014b\u0254\udce9') or print('\u014b', file=sys.stderr) or 0"
        "\nmain.main(['recipes'])\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, env=environment | locale
    )
    assert done.stdout.decode("utf-8").splitlines() == ["\u014b\u0254\\udce9"]
    assert done.stderr.decode("utf-8").splitlines() == ["\u014b"]


def test_a_stream_that_has_no_encoding_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_command, "run", lambda _: print("result") or 0)
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    assert cli.main(["recipes"]) == 0
    assert out.getvalue() == "result\n"


def test_recipes_are_listed_with_their_last_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes, results = tmp_path / "recipes" / "ours", tmp_path / "results" / "recipes"
    recipes.mkdir(parents=True)
    results.mkdir(parents=True)
    (recipes / "asr_3min.yaml").write_text(
        "{name: ours-3, language: no, data: {labels: {minutes: 3}}, language_model: null}"
    )
    (recipes / "half_written.yaml").write_text("data: [one, two]")  # `run` says what is wrong
    for date, cer in (("2026-01-02", 0.25), ("2026-01-01", 0.5)):
        record = {"recipe": "ours-3", "cer": cer, "wer": 0.75, "cer_lm": None, "date": date}
        (results / f"ours-3-{cer}.json").write_text(json.dumps(record))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["recipes"]) == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("ours/asr_3min"))
    assert line.split("  ")[0] == "ours/asr_3min"
    assert " no " in line
    assert "3min, seed 0" in line
    assert "pretrain, finetune" in line
    assert line.endswith("CER 25.0 %, WER 75.0 % (2026-01-02)")


def test_recipes_that_translate_are_listed_with_the_longest_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes, results = tmp_path / "recipes" / "ours", tmp_path / "results" / "translation"
    recipes.mkdir(parents=True)
    results.mkdir(parents=True)
    (recipes / "speech.yaml").write_text("{name: ours-a, translation: {language: yy}}")
    (recipes / "text.yaml").write_text("{name: ours-b, translation: {writes: characters}}")
    for name, minutes, scores in (
        ("ours-a", 60.0, {"asr_bleu": 85.24, "asr_bleu_ceiling": 97.6}),
        ("ours-a", 9.0, {"asr_bleu": 12.0, "asr_bleu_ceiling": 97.6}),
        ("ours-b", 9.0, {"asr_bleu": None, "bleu": 3.0}),
    ):
        record = {"recipe": name, "training_minutes": minutes, **scores}
        (results / f"{name}-{minutes}.json").write_text(json.dumps(record))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    ends = [line.split("  ")[-1].strip() for line in lines if line.startswith("ours/")]
    assert ends == ["ASR-BLEU 85.2 of 97.6", "BLEU 3.0"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["pretrain"], "which audio to learn from"),
        (["pretrain", "."], "say where to put the result: -o OUT"),
        (["finetune", "-o", "x"], "say where the transcripts are"),
        (["finetune", "data", "-o", "x"], "is not a setting"),
        (["evaluate", "."], "say what to measure on what"),
        (["pretrain", "--recipe", "mboshi/asr_1h", "--minutes", "3"], "exclude each other"),
        (["pretrain", "--recipe", "mboshi/asr_1h", "folder"], "leave out 'folder'"),
        (["finetune", "recipes/mboshi/asr_1h.yaml", "--labels", "10min"], "exclude each other"),
        (["evaluate", "recipes/nowhere.yaml"], "nowhere.yaml"),
        (["finetune", "--recipe", "mboshi/asr_1h", "--labels", "10min"], "exclude each other"),
        (["finetune", "--recipe", "mboshi/asr_1h", "--language", "mdw"], "exclude each other"),
    ],
)
def test_flags_that_do_not_make_a_stage_are_explained(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    assert complaint in capsys.readouterr().err


def test_flags_become_a_recipe_with_one_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = {}

    def keep(recipe: object, run_dir: Path, **options: object) -> dict[str, object]:
        seen.update(recipe=recipe, run_dir=run_dir, **options)
        return {}

    monkeypatch.setattr("speechjepa.workflow.stages.run_recipe", keep)
    (tmp_path / "speech").mkdir()
    out = tmp_path / "out"
    arguments = ["pretrain", str(tmp_path / "speech"), "--objective", "contrastive", "--preset"]
    arguments += ["small", "--minutes", "30", "pretrain.max_steps=9", "-o", str(out)]
    assert cli.main(arguments) == 0
    recipe = seen["recipe"]
    assert recipe.pretrain.objective == "contrastive"
    assert (recipe.pretrain.minutes, recipe.pretrain.max_steps) == (30.0, 9)
    assert recipe.encoder.num_layers == 10
    assert recipe.finetune is None
    assert seen["only"] == ("pretrain",)
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "pretrain" / "bundle")


def test_settings_may_stand_behind_options() -> None:
    arguments = ["run", "a", "x.y=1", "--until", "check", "seed=3", "--results", "r", "z.w=a b"]
    args = cli.build_parser().parse_args(arguments)
    assert (args.recipe, args.overrides) == ("a", ["x.y=1", "seed=3", "z.w=a b"])


def test_an_unknown_option_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["run", "a", "--untill", "check"], ["info", "a", "b"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 2
        assert "unrecognized arguments" in capsys.readouterr().err


def test_errors_are_not_caught_beyond_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(args: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(run_command, "run", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["recipes"])


def test_a_config_error_inside_a_command_exits_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: object) -> int:
        raise ConfigError("no good")

    monkeypatch.setattr(run_command, "run", fail)
    assert cli.main(["recipes"]) == 2
    assert capsys.readouterr().err == "error: no good\n"


def test_a_full_disk_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: object) -> int:
        raise OSError(28, "No space left on device", "runs/x/metrics.csv")

    monkeypatch.setattr(run_command, "run", fail)
    assert cli.main(["recipes"]) == 2
    assert "error: [Errno 28] No space left on device: 'runs/x/metrics.csv'" in (
        capsys.readouterr().err
    )


def test_ctrl_c_before_any_stage_says_how_to_go_on_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("speechjepa.workflow.stages.run_recipe", stop)
    arguments = ["run", "mboshi/asr_10min", "--data-root", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["speechjepa", *arguments])
    assert cli.main(arguments) == 130
    expected = f"stopped; continue with:\n  speechjepa run mboshi/asr_10min --data-root {tmp_path}"
    assert expected in capsys.readouterr().err


def test_the_tier_of_a_folder_is_said_to_every_command_that_reads_one(tmp_path, capsys):
    from pympi.Elan import Eaf

    soundfile.write(tmp_path / "a.wav", np.zeros(32000), 16000)
    document = Eaf()
    for tier in ("mdw", "ft"):
        document.add_tier(tier)
        document.add_annotation(tier, 0, 1000, tier)
    document.to_file(str(tmp_path / "a.eaf"))
    folder, out = str(tmp_path), str(tmp_path / "out")
    shipped = ["--model", "shipped"]
    for command in (
        ["evaluate", folder, *shipped],
        ["pretrain", folder, "-o", out, "--minutes", "0.01"],
        ["finetune", "--train", folder, "-o", out],
        ["units", "fit", folder, *shipped, "-o", out],
        ["select", folder, "--minutes", "1", "-o", str(tmp_path / "first.txt")],
    ):
        assert cli.main(command) == 2, command
        assert "has the tiers mdw, ft" in capsys.readouterr().err, command
        cli.main([*command, "--column", "text=nowhere"])
        assert "no tier 'nowhere'; it has" in capsys.readouterr().err, command
