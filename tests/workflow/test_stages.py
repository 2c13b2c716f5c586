"""The whole plan of a recipe on made-up speech; both trainings are replaced by random weights."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from speechjepa.audio.files import write_wav
from speechjepa.config import load_yaml
from speechjepa.data.utterance import Utterance
from speechjepa.errors import ConfigError, DataError
from speechjepa.models.bundle import Bundle, build_encoder, load_bundle, save_bundle
from speechjepa.models.ctc import CtcModel
from speechjepa.text.vocabulary import Vocabulary
from speechjepa.workflow.outcome import summary_line, write_result
from speechjepa.workflow.recipe import Recipe, build_recipe
from speechjepa.workflow.run import digest
from speechjepa.workflow.self_training import unlabelled
from speechjepa.workflow.stages import Plan, default_run_dir, run_recipe

WORDS = ("ba", "bo", "da", "do")


class Trainings:
    """Stand-ins for the two training functions; they keep what they were called with."""

    def __init__(self) -> None:
        self.calls: dict[str, dict[str, Any]] = {}
        self.finetunings: list[dict[str, Any]] = []

    def pretrain(
        self, config: object, pool: Sequence[Utterance], run_dir: Path, **options: Any
    ) -> Path:
        self.calls["pretrain"] = {"pool": pool, **options}
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "skipped.jsonl").write_text('{"id": "bad"}\n')
        return save_bundle(Bundle(encoder=build_encoder(options["encoder"])), run_dir / "bundle")

    def finetune(
        self,
        config: object,
        train: Sequence[Utterance],
        dev: Sequence[Utterance],
        run_dir: Path,
        **options: Any,
    ) -> Path:
        self.calls["finetune"] = {"config": config, "train": train, "dev": dev, **options}
        self.finetunings.append(self.calls["finetune"])
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "skipped.jsonl").write_text('{"id": "bad"}\n{"id": "worse"}\n')
        settled = {"finetune": {"max_steps": getattr(config, "max_steps", None) or 33}}
        (run_dir / "config.json").write_text(json.dumps(settled))
        torch.manual_seed(0)
        sizes = options["encoder"] or self.calls.get("pretrain", {}).get("encoder")
        encoder = build_encoder(sizes or load_bundle(options["init"]).encoder.config)
        vocabulary = Vocabulary.build([u.text or "" for u in train])
        ctc = CtcModel(encoder, len(vocabulary), 1)
        bundle = Bundle(encoder=encoder, ctc=ctc, vocabulary=vocabulary, text=options["text"])
        return save_bundle(bundle, run_dir / "bundle")


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    stand_ins = Trainings()
    for name in ("pretrain", "finetune"):
        module: Any = types.ModuleType(f"speechjepa.training.{name}")
        setattr(module, name, getattr(stand_ins, name))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return stand_ins


@pytest.fixture
def root(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for split, count in (("train", 10), ("dev", 6)):
        folder = tmp_path / "data" / split
        folder.mkdir(parents=True)
        for index in range(count):
            waveform = generator.normal(0, 0.1, 16000).astype(np.float32)
            soundfile.write(folder / f"{split}{index}.wav", waveform, 16000)
            text = f"{WORDS[index % 4]} {WORDS[(index + index // 4) % 4]}"
            (folder / f"{split}{index}.txt").write_text(text)
    return tmp_path / "data"


def recipe(root: Path, *overrides: str) -> Recipe:
    return build_recipe(
        {
            "name": "made-up",
            "language": "xx",
            "licence": "CC0",
            "data": {"train": "train", "dev": "dev"},
            "encoder": {"width": 16, "num_layers": 1, "num_heads": 1, "ffn_width": 16},
            "language_model": {"kind": "character", "num_trials": 2, "order_characters": 2},
        },
        overrides,
        root,
    )


def test_a_recipe_goes_from_audio_to_error_rates(
    root: Path, tmp_path: Path, trainings: Trainings
) -> None:
    pytest.importorskip("flashlight.lib.text")
    run_dir = tmp_path / "runs" / "made-up"
    states = run_recipe(recipe(root), run_dir)
    assert list(states) == [
        *("check", "pretrain", "finetune", "language_model", "evaluate", "report"),
    ]
    assert {len(trainings.calls["finetune"][name]) for name in ("train", "dev")} == {10, 6}
    assert trainings.calls["finetune"]["init"] == run_dir / "pretrain" / "bundle"
    for name in ("recipe.yaml", "check.json", "report.html", "finetune/bundle/decoder.json"):
        assert (run_dir / name).exists()
    assert (run_dir / "skipped.jsonl").read_text() == '{"id": "bad"}\n{"id": "worse"}\n'
    bundle = json.loads((run_dir / "finetune" / "bundle" / "config.json").read_text())
    assert (bundle["licence"], bundle["languages"]) == ("CC0", ["xx"])
    assert bundle["results"]["cer"] == states["evaluate"].figures["cer"]
    measured = json.loads((run_dir / "evaluate" / "results.json").read_text())["confidence"]
    assert set(measured) == {"greedy", "lm"}
    assert bundle["calibration"] == {k: v["map"] for k, v in measured.items() if v}

    line = summary_line(recipe(root), states)
    assert line.startswith("made-up dev: CER ")
    assert "with language model CER" in line

    record = json.loads(
        write_result(recipe(root), states, tmp_path / "results", "speechjepa run x").read_text()
    )
    wanted = "recipe split cer wer cer_lm wer_lm label_minutes pretraining_minutes"
    wanted += " unlabelled_hours parameters what figure unit command commit seed hardware date"
    assert set(wanted.split()) <= set(record)
    assert record["label_minutes"] == pytest.approx(10 / 60, abs=0.01)
    assert record["unlabelled_hours"] == pytest.approx(10 / 3600, abs=0.001)
    assert record["figure"] == pytest.approx(100 * record["cer_lm"], abs=0.01)
    assert (tmp_path / "results" / "recipes" / "made-up-0.json").exists()


def test_a_changed_section_redoes_its_stage_and_those_behind_it(
    root: Path, tmp_path: Path, trainings: Trainings
) -> None:
    run_dir, off = tmp_path / "run", "language_model=null"
    run_recipe(recipe(root, off), run_dir)
    trainings.calls = {"pretrain": trainings.calls["pretrain"]}
    run_recipe(recipe(root, off), run_dir)
    assert "finetune" not in trainings.calls
    run_recipe(recipe(root, off, "finetune.max_steps=3"), run_dir)
    assert "finetune" in trainings.calls
    moved = sorted(path.name for path in run_dir.glob("*.1"))
    assert moved == ["evaluate.1", "finetune.1", "report.1"]
    assert load_yaml(run_dir / "recipe.yaml")["finetune"]["max_steps"] == 3


def test_a_run_of_an_earlier_version_is_not_done_again(
    root: Path, tmp_path: Path, trainings: Trainings
) -> None:
    run_dir = tmp_path / "run"
    run_recipe(recipe(root), run_dir)
    state = json.loads((run_dir / "state.json").read_text())
    fingerprints: dict[str, list[Any]] = {}
    for stage in Plan(recipe(root), run_dir, tmp_path, None).stages():
        entry = state["stages"][stage.name]
        for section, setting in (
            ("pretrain", "precision"),
            ("finetune", "layer_decay"),
            ("encoder", "normalization_prior_seconds"),
            ("text", "lowercase"),
        ):  # let us say that they did not exist yet
            if section in entry["inputs"]:
                del entry["inputs"][section][setting]
        upstream = {name: fingerprints[name] for name in stage.after}
        entry["fingerprint"] = digest([entry["inputs"], upstream])
        fingerprints[stage.name] = [entry["fingerprint"], 1]
    (run_dir / "state.json").write_text(json.dumps(state))
    states = run_recipe(recipe(root), run_dir)
    assert {name for name, stage in states.items() if stage.times > 1} == set()
    assert not list(run_dir.glob("*.1"))


def test_a_changed_transcript_keeps_pretraining(
    root: Path, tmp_path: Path, trainings: Trainings
) -> None:
    settings = recipe(root, "language_model=null")
    run_recipe(settings, tmp_path / "run")
    (root / "train" / "train0.txt").write_text("do do")
    states = run_recipe(settings, tmp_path / "run")
    assert states["finetune"].times == 2
    assert states["pretrain"].times == 1


def test_data_that_would_break_training_stops_the_run_before_it(
    root: Path, tmp_path: Path, trainings: Trainings
) -> None:
    for path in (root / "train").glob("*.wav"):
        path.write_bytes(b"not audio")
    with pytest.raises(DataError, match="training would break: .*check.json"):
        run_recipe(recipe(root), tmp_path / "run")
    assert not trainings.calls
    assert (tmp_path / "run" / "check.json").exists()


def test_a_missing_corpus_stops_the_run_before_anything(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        run_recipe(recipe(root, "data.dev=devv"), tmp_path / "run")


def test_a_stage_that_the_recipe_does_not_have_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none of the stages pretrain"):
        run_recipe(recipe(root, "pretrain=null"), tmp_path / "run", only=("pretrain",))


def test_fine_tuning_without_pretraining_starts_from_fresh_weights_or_from_init(
    root: Path, tmp_path: Path, trainings: Trainings
) -> None:
    off = ("language_model=null", "pretrain=null")
    run_recipe(recipe(root, "language_model=null"), tmp_path / "a")
    run_recipe(recipe(root, *off), tmp_path / "b")
    assert trainings.calls["finetune"]["init"] is None
    assert trainings.calls["finetune"]["encoder"] == recipe(root).encoder
    run_recipe(recipe(root, *off, f"init={tmp_path / 'a'}"), tmp_path / "c")
    assert trainings.calls["finetune"]["init"] == tmp_path / "a" / "pretrain" / "bundle"


def test_every_seed_has_its_own_run_folder(root: Path) -> None:
    assert default_run_dir(recipe(root)) == Path("runs/made-up")
    assert default_run_dir(recipe(root, "seed=3")) == Path("runs/made-up-3")


def test_what_a_recipe_gives_up_is_no_longer_in_its_results(
    root: Path, tmp_path: Path, trainings: Trainings
) -> None:
    pytest.importorskip("flashlight.lib.text")
    run_dir = tmp_path / "run"
    run_recipe(recipe(root), run_dir)
    states = run_recipe(recipe(root, "language_model=null"), run_dir)
    assert states["evaluate"].figures["cer_lm"] is None
    assert not (run_dir / "finetune" / "bundle" / "lm.arpa").exists()
    assert (run_dir / "language_model.1" / "lm.arpa").exists()
    assert states["finetune"].times == 1

    states = run_recipe(recipe(root, "language_model=null", "pretrain=null"), run_dir)
    assert trainings.calls["finetune"]["init"] is None
    assert states["finetune"].times == 2


def test_the_data_may_move(root: Path, tmp_path: Path, trainings: Trainings) -> None:
    run_recipe(recipe(root, "language_model=null"), tmp_path / "run")
    moved = root.rename(tmp_path / "another disk")
    states = run_recipe(recipe(moved, "language_model=null"), tmp_path / "run")
    assert {name: state.times for name, state in states.items()} == {
        **dict.fromkeys(("check", "pretrain", "finetune", "evaluate"), 1),
        "report": 2,  # it shows the recipe, and with it the data root
    }


def test_another_licence_or_language_reaches_the_bundle_without_training(
    root: Path, tmp_path: Path, trainings: Trainings
) -> None:
    run_recipe(recipe(root, "language_model=null"), tmp_path / "run")
    settings = recipe(root, "language_model=null", "language=yy", "licence=CC BY 4.0")
    states = run_recipe(settings, tmp_path / "run")
    bundle = json.loads((tmp_path / "run" / "finetune" / "bundle" / "config.json").read_text())
    assert (bundle["licence"], bundle["languages"]) == ("CC BY 4.0", ["yy"])
    assert states["finetune"].times == 1


@pytest.mark.parametrize("setting", ["language_model.extra_text=[no.txt]", "init=no-model"])
def test_a_missing_file_stops_the_run_before_training(
    setting: str, root: Path, tmp_path: Path, trainings: Trainings
) -> None:
    with pytest.raises((ConfigError, DataError), match=r"no\.txt|no-model"):
        run_recipe(recipe(root, setting), tmp_path / "run")
    assert not trainings.calls


def test_a_run_that_would_write_over_its_own_start_is_refused_before_anything_is_moved(
    root: Path, tmp_path: Path, trainings: Trainings
) -> None:
    run_dir = tmp_path / "run"
    run_recipe(recipe(root), run_dir)
    before = sorted(path.name for path in run_dir.iterdir())
    again = recipe(root, "pretrain=null", f"init={run_dir / 'finetune'}", "finetune.seed=7")
    with pytest.raises(ConfigError, match="which this run would write anew"):
        run_recipe(again, run_dir)
    assert sorted(path.name for path in run_dir.iterdir()) == before


def test_a_stage_alone_says_what_it_is_missing(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run the stage pretrain first"):
        run_recipe(recipe(root), tmp_path / "run", only=("finetune", "evaluate", "report"))


def test_another_program_that_prepares_the_same_data_redoes_no_training(
    root: Path, tmp_path: Path, trainings: Trainings
) -> None:
    program = tmp_path / "prepare.py"
    for text in ("", "# as before"):
        program.write_text(text)
        states = run_recipe(recipe(root, "language_model=null"), tmp_path / "run", prepare=program)
    assert (states["prepare"].times, states["pretrain"].times) == (2, 1)


def test_a_bundle_of_several_languages_learns_to_tell_them_apart(tmp_path: Path) -> None:
    from speechjepa.inference.model import load
    from speechjepa.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
    from speechjepa.workflow.languages import teach_languages

    torch.manual_seed(0)
    encoder = SpeechEncoder(SpeechEncoderConfig(width=16, num_layers=1, num_heads=2))
    utterances = []
    for number in range(12):
        language, hertz = ("low", 200) if number % 2 else ("high", 3000)
        path = tmp_path / f"{number}.wav"
        time = np.arange(8000) / 16000
        write_wav(path, 0.3 * np.sin(2 * np.pi * (hertz + 5 * number) * time))
        utterances.append(
            Utterance(id=path.stem, audio_path=path, language=language, speaker=f"s{number % 4}")
        )
    bundle = save_bundle(Bundle(encoder=encoder, languages=("high", "low")), tmp_path / "b")
    assert load(bundle).language_classifier is None
    teach_languages(bundle, [*utterances, *utterances], seed=0)
    assert load(bundle).language_classifier.languages == ("high", "low")
    save_bundle(Bundle(encoder=encoder, languages=("high",)), bundle)
    teach_languages(bundle, utterances, seed=0)
    assert load(bundle).language_classifier is None, "it knows one language now"


def test_a_letter_of_an_unreadable_recording_stops_no_language_model(
    root: Path, tmp_path: Path, trainings: Trainings, caplog: pytest.LogCaptureFixture
) -> None:
    finetune = trainings.finetune

    def of_readable(config: object, train: Any, *args: Any, **options: Any) -> Path:
        return finetune(config, [u for u in train if u.id != "bad"], *args, **options)

    sys.modules["speechjepa.training.finetune"].finetune = of_readable  # type: ignore[attr-defined]
    (root / "train" / "bad.wav").write_bytes(b"not audio")
    (root / "train" / "bad.txt").write_text("ba zo")
    states = run_recipe(recipe(root, "pretrain=null", "init=fresh"), tmp_path / "run")
    assert states["evaluate"].figures["cer_lm"] is not None
    assert "1 transcript with characters that occur in no recording learnt from" in caplog.text


def test_what_is_measured_on_is_no_label(
    root: Path, tmp_path: Path, trainings: Trainings, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [
        json.dumps({"file_name": f"train{n}.wav", "text": WORDS[n % 4]}) + "\n" for n in (1, 2, 3)
    ]
    (root / "train" / "some.jsonl").write_text("".join(lines))
    settings = recipe(root, "data.dev=train/some.jsonl", "pretrain=null", "init=fresh")
    Plan(settings, tmp_path / "run", tmp_path / "cache", None).corpora.read_all()
    corpora = Plan(settings, tmp_path / "run", tmp_path / "cache", None).corpora
    assert sorted(u.id for u in corpora.labelled) == [f"train{n}" for n in (0, 4, 5, 6, 7, 8, 9)]
    assert "3 of 10 labelled utterances are in `data.dev`" in caplog.text
    only = recipe(root, "data.train=train/some.jsonl", "data.dev=train", "pretrain=null")
    with pytest.raises(DataError, match="every labelled utterance is one of `data.dev`"):
        Plan(only, tmp_path / "run", tmp_path / "cache", None).corpora.read_all()


def test_a_story_with_one_transcript_is_no_label_but_text_and_sound(
    root: Path, tmp_path: Path, trainings: Trainings, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("story", "tale"):
        soundfile.write(root / "train" / f"{name}.flac", np.zeros(121 * 16000, np.float32), 16000)
        (root / "train" / f"{name}.txt").write_text("bo da bo")
    settings = recipe(root, "data.dev=null", "data.dev_minutes=0.05", "data.labels=all")
    corpora = Plan(settings, tmp_path / "run", tmp_path / "cache", None).corpora
    names = {u.id for u in [*corpora.labelled, *corpora.dev]}
    assert names == {f"train{n}" for n in range(10)}
    assert [u.id for u in corpora.stories] == ["story", "tale"]
    assert "story has one transcript for 121 s, too long" in caplog.text
    assert "2 recordings in all" in caplog.text and "ELAN" in caplog.text
    assert [u.id for u in unlabelled(corpora)] == ["story", "tale"]
    for number in range(10):
        (root / "train" / f"train{number}.txt").unlink()
    with pytest.raises(DataError, match="too long to learn from .* No label is left"):
        Plan(settings, tmp_path / "run", tmp_path / "cache", None).corpora.read_all()
