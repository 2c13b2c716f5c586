from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from speechjepa.errors import ConfigError, DataError, ModelError
from speechjepa.workflow.run import Stage, StoppedRun, digest, forget_stage, load_state, run_stages


class Workshop:
    """Three stages that write a file each, and count how often they are called."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.settings: dict[str, Any] = {"pretrain": 1, "finetune": 1, "evaluate": 1}
        self.calls: list[str] = []
        self.hooks: dict[str, Callable[[], None]] = {}

    def stage(self, name: str, after: tuple[str, ...] = ()) -> Stage:
        def action() -> dict[str, Any]:
            self.calls.append(name)
            folder = self.run_dir / name
            folder.mkdir(exist_ok=True)
            (folder / "checkpoint").write_text("half")
            self.hooks.get(name, lambda: None)()
            (folder / "bundle").write_text(f"made of {self.settings[name]}")
            return {"cer": 0.5}

        return Stage(
            name=name,
            inputs=lambda: {"settings": {"value": self.settings[name]}},
            action=action,
            outputs=(f"{name}/bundle",),
            after=after,
        )

    def run(self, **options: Any) -> list[str]:
        self.calls.clear()
        stages = [
            self.stage("pretrain"),
            self.stage("finetune", ("pretrain",)),
            self.stage("evaluate", ("finetune",)),
        ]
        run_stages(stages, self.run_dir, **options)
        return list(self.calls)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "run")


def test_unchanged_stages_are_not_redone_and_this_is_said(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert workshop.run() == ["pretrain", "finetune", "evaluate"]
    caplog.clear()
    assert workshop.run() == []
    assert caplog.text.count("unchanged, not redone") == 3


def test_a_changed_stage_is_redone_with_what_depends_on_it(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    workshop.run()
    workshop.settings["finetune"] = 2
    assert workshop.run() == ["finetune", "evaluate"]
    assert "because of a change in settings.value 1 -> 2" in caplog.text
    assert "evaluate: redone, because a stage before it was" in caplog.text


@dataclass(frozen=True, kw_only=True)
class Before:
    steps: int = 10


@dataclass(frozen=True, kw_only=True)
class After:
    """What a later version of the package makes of `Before`."""

    steps: int = 10
    head_steps: int | None = None
    decays: tuple[float, ...] = (0.9,)
    streaming: Before | None = None


@pytest.mark.parametrize(
    ("later", "is_redone"),
    [
        (After(steps=20), False),
        (After(steps=20, decays=(0.9,)), False),
        (After(steps=20, decays=(0.8,)), True),
        (After(steps=20, head_steps=5), True),
        (After(steps=20, streaming=Before()), True),
        (After(), True),
    ],
)
def test_a_setting_that_did_not_exist_changes_nothing_while_it_has_its_default(
    workshop: Workshop, later: After, is_redone: bool
) -> None:
    workshop.settings["pretrain"] = {"section": Before(steps=20), "nested": [1]}
    workshop.run()
    workshop.settings["pretrain"] = {"section": later, "nested": [1]}
    redone = ["pretrain", "finetune", "evaluate"] if is_redone else []
    assert workshop.run() == redone
    assert workshop.run() == []  # and this is remembered


def test_what_is_made_anew_is_made_with_the_settings_that_there_are_now(workshop: Workshop) -> None:
    workshop.settings["pretrain"] = Before()
    workshop.run()
    workshop.settings["pretrain"] = After()
    assert workshop.run() == []
    workshop.run(redo=["pretrain"])
    kept = load_state(workshop.run_dir)["pretrain"].inputs["settings"]["value"]
    assert set(kept) == {"steps", "head_steps", "decays", "streaming"}


def test_an_unfinished_stage_does_not_go_on_by_another_versions_settings(
    workshop: Workshop,
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    workshop.settings["pretrain"] = Before()
    workshop.hooks["pretrain"] = interrupt
    with pytest.raises(StoppedRun):
        workshop.run()
    del workshop.hooks["pretrain"]
    workshop.settings["pretrain"] = After()
    workshop.run()
    assert (workshop.run_dir / "pretrain.1" / "checkpoint").exists()


def test_earlier_output_is_moved_aside_and_never_overwritten(workshop: Workshop) -> None:
    for value in (1, 2, 3):
        workshop.settings["pretrain"] = value
        workshop.run()
    read = {
        name: (workshop.run_dir / name / "bundle").read_text()
        for name in ("pretrain", "pretrain.1", "pretrain.2")
    }
    assert read == {
        "pretrain": "made of 3",
        "pretrain.1": "made of 1",
        "pretrain.2": "made of 2",
    }
    assert (workshop.run_dir / "evaluate.2").is_dir()


def test_output_inside_another_stages_folder_is_moved_to_its_own(tmp_path: Path) -> None:
    (tmp_path / "finetune").mkdir()
    text = ["first"]

    def action() -> None:
        (tmp_path / "finetune" / "lm.arpa").write_text(text[0])

    stage = Stage(
        name="language_model",
        inputs=lambda: {"text": text[0]},
        action=action,
        outputs=("finetune/lm.arpa",),
    )
    run_stages([stage], tmp_path)
    text[0] = "second"
    run_stages([stage], tmp_path)
    assert (tmp_path / "language_model.1" / "lm.arpa").read_text() == "first"
    assert (tmp_path / "finetune" / "lm.arpa").read_text() == "second"


def test_a_folder_that_no_run_remembers_is_kept(workshop: Workshop) -> None:
    (workshop.run_dir / "pretrain").mkdir(parents=True)
    (workshop.run_dir / "pretrain" / "mine").write_text("precious")
    workshop.run()
    assert (workshop.run_dir / "pretrain.1" / "mine").read_text() == "precious"


def test_ctrl_c_leaves_a_run_that_goes_on_where_it_stopped(workshop: Workshop) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    workshop.hooks["finetune"] = interrupt
    with pytest.raises(StoppedRun) as caught:
        workshop.run()
    assert caught.value.stage == "finetune"
    assert load_state(workshop.run_dir)["finetune"].status == "started"

    workshop.hooks.clear()
    assert workshop.run() == ["finetune", "evaluate"]
    # The half-done work was there to go on from, not moved aside.
    assert not (workshop.run_dir / "finetune.1").exists()


def test_the_exit_that_lightning_makes_of_ctrl_c_counts_as_ctrl_c(workshop: Workshop) -> None:
    def interrupt() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise SystemExit(1)  # noqa: B904

    workshop.hooks["pretrain"] = interrupt
    with pytest.raises(StoppedRun):
        workshop.run()


def test_a_changed_stage_that_was_interrupted_begins_afresh(workshop: Workshop) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    workshop.hooks["pretrain"] = interrupt
    with pytest.raises(StoppedRun):
        workshop.run()
    workshop.hooks.clear()
    workshop.settings["pretrain"] = 2
    workshop.run()
    assert (workshop.run_dir / "pretrain.1" / "checkpoint").exists()
    assert not (workshop.run_dir / "pretrain.1" / "bundle").exists()


def test_an_error_is_recorded_and_the_stage_is_tried_again(workshop: Workshop) -> None:
    def fail() -> None:
        raise ModelError("no")

    workshop.hooks["finetune"] = fail
    with pytest.raises(ModelError):
        workshop.run()
    assert load_state(workshop.run_dir)["finetune"].status == "failed"
    workshop.hooks.clear()
    assert workshop.run() == ["finetune", "evaluate"]


def test_a_stage_whose_output_is_gone_is_redone_with_what_read_it(workshop: Workshop) -> None:
    workshop.run()
    (workshop.run_dir / "finetune" / "bundle").unlink()
    assert workshop.run() == ["finetune", "evaluate"]
    assert workshop.run() == []


def test_a_stage_can_be_redone_on_request(workshop: Workshop) -> None:
    workshop.run()
    assert workshop.run(redo=["evaluate"]) == ["evaluate"]
    with pytest.raises(ConfigError, match="no stage 'evalute'"):
        workshop.run(redo=["evalute"])


def test_a_stage_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    stage = Stage(name="idle", inputs=dict, action=lambda: None, outputs=("idle/bundle",))
    with pytest.raises(DataError, match="without writing idle/bundle"):
        run_stages([stage], tmp_path)


def test_a_shared_stage_is_taken_from_a_run_beside_with_the_same_inputs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    calls: list[str] = []

    def stage(run_dir: Path, value: int) -> Stage:
        def action() -> dict[str, Any]:
            calls.append(run_dir.name)
            (run_dir / "pretrain" / "checkpoints").mkdir(parents=True)
            (run_dir / "pretrain" / "bundle").write_text(str(value))
            return {"hours": value}

        return Stage(
            name="pretrain",
            inputs=lambda: {"value": value},
            action=action,
            outputs=("pretrain/bundle",),
            is_shared=True,
        )

    for name, value in (("first", 1), ("second", 1), ("third", 2)):
        states = run_stages([stage(tmp_path / name, value)], tmp_path / name)
        assert states["pretrain"].figures == {"hours": value}
        assert (tmp_path / name / "pretrain" / "bundle").read_text() == str(value)
    assert calls == ["first", "third"]
    assert not (tmp_path / "second" / "pretrain" / "checkpoints").exists()
    assert "pretrain: not redone, taken from" in caplog.text


def test_minutes_and_figures_are_recorded(workshop: Workshop) -> None:
    workshop.run()
    content = json.loads((workshop.run_dir / "state.json").read_text())
    assert content["stages"]["evaluate"]["figures"] == {"cer": 0.5}
    assert 0 <= content["stages"]["pretrain"]["minutes"] < 1


def test_a_damaged_state_is_named(workshop: Workshop) -> None:
    workshop.run_dir.mkdir()
    (workshop.run_dir / "state.json").write_text("{")
    with pytest.raises(DataError, match=r"state\.json: is damaged"):
        workshop.run()


def _hold(run_dir: Path, ready: Any, release: Any) -> None:
    def wait() -> None:
        ready.set()
        release.wait(30)

    run_stages([Stage(name="wait", inputs=dict, action=wait)], run_dir)


def test_two_processes_cannot_use_one_run_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path, ready, release))
    process.start()
    try:
        assert ready.wait(30)
        with pytest.raises(ConfigError, match="another process is running"):
            run_stages([], tmp_path)
    finally:
        release.set()
        process.join()
    run_stages([], tmp_path)


def test_who_cannot_have_the_folder_changes_nothing_in_it(tmp_path: Path) -> None:
    begun: list[str] = []

    def intrude() -> dict[str, Any]:
        with pytest.raises(ConfigError, match="another process is running"):
            run_stages([], tmp_path, begin=lambda: begun.append("intruder"))
        return {}

    stage = Stage(name="wait", inputs=dict, action=intrude)
    run_stages([stage], tmp_path, begin=lambda: begun.append("owner"))
    assert begun == ["owner"]


@pytest.mark.parametrize("name", ["recipe.yaml", "labels.txt"])
def test_a_folder_with_files_of_the_user_is_no_run_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=f"{name} is not of a run"):
        run_stages([], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_forgotten_stage_leaves_its_files_aside(workshop: Workshop) -> None:
    workshop.run()
    for _ in range(2):
        forget_stage(workshop.run_dir, "evaluate", ("evaluate/bundle",))
    assert "evaluate" not in load_state(workshop.run_dir)
    assert (workshop.run_dir / "evaluate.1" / "bundle").exists()
    assert not (workshop.run_dir / "evaluate").exists()


def test_names_that_are_not_utf8_have_a_digest_of_their_own() -> None:
    assert digest(["caf\udce9.wav"]) != digest(["caf\udce8.wav"])
    # SHA-256 of ["é"], quotation marks and brackets included, as `sha256sum` has it.
    assert digest(["é"])[:12] == hashlib.sha256('["é"]'.encode()).hexdigest()[:12]
