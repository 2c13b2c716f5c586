"""The stage `self_training` in a recipe whose trainings are stood in for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from speechjepa.errors import ConfigError
from speechjepa.inference import pseudo_labels
from speechjepa.inference.model import load
from speechjepa.workflow import self_training
from speechjepa.workflow.run import load_state
from speechjepa.workflow.stages import run_recipe
from tests.workflow.test_stages import Trainings, recipe, root, trainings  # noqa: F401

THREE = ("data.labels=few", "language_model=null", "pretrain=null", "init=fresh")


@pytest.fixture
def labels(root: Path) -> Path:  # noqa: F811
    (root / "train" / "few.txt").write_text("train0\ntrain1\ntrain2\n")
    return root


@pytest.fixture
def taught() -> list[tuple[Path, dict[str, Any]]]:
    """Which model taught, and how it was asked; `heard` fills it."""
    return []


@pytest.fixture
def heard(
    monkeypatch: pytest.MonkeyPatch, taught: list[tuple[Path, dict[str, Any]]]
) -> list[list[str]]:
    """Say "ba bo" in everything, since random weights may hear nothing; keep what was asked."""
    asked: list[list[str]] = []

    def stand_in(model: Any, unlabelled: Any, **options: Any) -> list[Any]:
        asked.append(sorted(u.id for u in unlabelled))
        taught.append((model.path, options))
        return [
            pseudo_labels.PseudoLabelled(
                utterance=pseudo_labels.replace(u, text="ba bo"), confidence=-0.5
            )
            for u in unlabelled
        ]

    monkeypatch.setattr(self_training, "pseudo_label", stand_in)
    return asked


def test_the_next_model_learns_from_the_labels_and_from_the_rest_of_train_alone(
    labels: Path,
    tmp_path: Path,
    trainings: Trainings,  # noqa: F811
    heard: list[list[str]],
) -> None:
    run_dir = tmp_path / "run"
    states = run_recipe(recipe(labels, *THREE, "self_training.keep=1.0"), run_dir)
    rest = [f"train{n}" for n in range(3, 10)]
    assert heard == [rest]  # no label and nothing of dev
    learned = {u.id.partition("#")[0]: u.text for u in trainings.calls["finetune"]["train"]}
    assert sorted(learned) == ["train0", "train1", "train2", *rest]
    assert {learned[name] for name in rest} == {"ba bo"}
    assert learned["train1"] == "bo bo"
    assert states["self_training"].figures["recognised_utterances"] == 7
    assert load(run_dir).path == run_dir / "self_training" / "bundle"


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_closed_set_is_that_of_the_labels(
    is_closed: bool,
    labels: Path,
    tmp_path: Path,
    trainings: Trainings,  # noqa: F811
    heard: list[list[str]],
    taught: list[tuple[Path, dict[str, Any]]],
) -> None:
    settings = [f"self_training.closed_set={is_closed}", "self_training.closed_set_slack=1.5"]
    run_recipe(recipe(labels, *THREE, *settings), tmp_path / "run")
    said = Counter((labels / "train" / f"train{n}.txt").read_text().strip() for n in range(3))
    ((_, options),) = taught
    assert options == {"closed_set": dict(said) if is_closed else None, "slack": 1.5}


def test_labels_that_are_no_closed_set_stop_the_run_before_training(
    labels: Path,
    tmp_path: Path,
    trainings: Trainings,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(self_training, "MAX_CLOSED_SET", 1)
    with pytest.raises(ConfigError, match="at most 1 different transcripts"):
        run_recipe(recipe(labels, *THREE, "self_training.closed_set=true"), tmp_path / "run")
    assert not trainings.calls


def test_a_second_round_has_the_first_as_its_teacher(
    labels: Path,
    tmp_path: Path,
    trainings: Trainings,  # noqa: F811
    heard: list[list[str]],
    taught: list[tuple[Path, dict[str, Any]]],
) -> None:
    run_dir = tmp_path / "run"
    run_recipe(recipe(labels, *THREE, "self_training.rounds=2"), run_dir)
    assert [path.relative_to(run_dir).as_posix() for path, _ in taught] == [
        "finetune/bundle",
        "self_training/round1/bundle",
    ]


def test_the_round_that_refines_goes_on_from_the_model_before_it(
    labels: Path,
    tmp_path: Path,
    trainings: Trainings,  # noqa: F811
    heard: list[list[str]],
) -> None:
    run_dir = tmp_path / "run"
    refine = ("self_training.refine_steps=7", "self_training.refine_learning_rate=1e-4")
    states = run_recipe(recipe(labels, *THREE, "self_training.max_steps=9", *refine), run_dir)
    started = [(call["config"].max_steps, call["init"]) for call in trainings.finetunings]
    assert started[1:] == [(9, None), (7, run_dir / "self_training" / "round1" / "bundle")]
    rates = [call["config"].learning_rate for call in trainings.finetunings]
    assert rates == [None, None, 1e-4]
    assert len(heard) == 2 and states["self_training"].figures["rounds"] == 2


def test_a_run_stopped_in_its_second_round_neither_hears_nor_learns_the_first_again(
    labels: Path,
    tmp_path: Path,
    trainings: Trainings,  # noqa: F811
    heard: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_dir = tmp_path / "run"
    settings = recipe(labels, *THREE, "self_training.rounds=2")
    stand_in, stopped = self_training.pseudo_label, []

    def stop_once(model: Any, unlabelled: Any, **options: Any) -> Any:
        if "round1" in str(model.path) and not stopped:
            stopped.append(model.path)
            raise KeyboardInterrupt
        return stand_in(model, unlabelled, **options)

    monkeypatch.setattr(self_training, "pseudo_label", stop_once)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(settings, run_dir)
    weights = run_dir / "self_training" / "round1" / "bundle" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    states = run_recipe(settings, run_dir)
    assert len(heard) == 2 and weights.stat().st_mtime_ns == before
    assert states["self_training"].figures["rounds"] == 2


def test_a_recipe_that_leaves_it_out_again_goes_back_to_the_first_model(
    labels: Path,
    tmp_path: Path,
    trainings: Trainings,  # noqa: F811
    heard: list[list[str]],
) -> None:
    run_dir = tmp_path / "run"
    run_recipe(recipe(labels, *THREE, "self_training.rounds=1"), run_dir)
    run_recipe(recipe(labels, *THREE), run_dir)
    assert load(run_dir).path == run_dir / "finetune" / "bundle"
    assert (run_dir / "self_training.1" / "bundle").exists()  # kept, not lost
    assert "self_training" not in load_state(run_dir)


def test_where_everything_is_labelled_the_first_model_is_the_last(
    labels: Path,
    tmp_path: Path,
    trainings: Trainings,  # noqa: F811
    heard: list[list[str]],
) -> None:
    run_dir = tmp_path / "run"
    (labels / "train" / "few.txt").write_text("".join(f"train{n}\n" for n in range(10)))
    states = run_recipe(recipe(labels, *THREE, "self_training.rounds=2"), run_dir)
    assert heard == []
    assert states["self_training"].figures["rounds"] == 0
    first = run_dir / "finetune" / "bundle" / "model.safetensors"
    last = run_dir / "self_training" / "bundle" / "model.safetensors"
    assert last.read_bytes() == first.read_bytes()


def test_where_nothing_is_heard_the_first_model_is_the_last(
    labels: Path,
    tmp_path: Path,
    trainings: Trainings,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(self_training, "pseudo_label", lambda *a, **k: [])
    states = run_recipe(recipe(labels, *THREE, "self_training.rounds=2"), tmp_path / "run")
    assert len(trainings.finetunings) == 1 and "nothing is heard" in caplog.text
    assert states["self_training"].figures["recognised_utterances"] == 0
    assert "cer" in states["evaluate"].figures


def test_a_round_stopped_after_its_training_is_not_trained_again(
    labels: Path,
    tmp_path: Path,
    trainings: Trainings,  # noqa: F811
    heard: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = recipe(labels, *THREE, "self_training.rounds=1")
    with monkeypatch.context() as patched:

        def stop(*args: Any) -> None:
            raise KeyboardInterrupt

        patched.setattr(self_training, "attach", stop)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(settings, tmp_path / "run")
    states = run_recipe(settings, tmp_path / "run")
    assert len(trainings.finetunings) == 2 and len(heard) == 1
    assert states["self_training"].figures["recognised_utterances"] == 7


def test_a_round_has_the_steps_that_the_labels_got(
    labels: Path,
    tmp_path: Path,
    trainings: Trainings,  # noqa: F811
    heard: list[list[str]],
) -> None:
    run_recipe(recipe(labels, *THREE, "self_training.rounds=1"), tmp_path / "run")
    assert [call["config"].max_steps for call in trainings.finetunings] == [None, 33]
