from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from speechjepa.config import load_yaml, save_yaml
from speechjepa.data.utterance import Utterance
from speechjepa.errors import ConfigError, DataError
from speechjepa.models.speech_encoder import PRESETS
from speechjepa.models.wav2vec2 import PRESETS as PUBLISHED
from speechjepa.workflow.catalogue import find_recipe, list_recipes
from speechjepa.workflow.corpora import Corpora
from speechjepa.workflow.recipe import DataConfig, Recipe, build_recipe, load_recipe, save_recipe
from speechjepa.workflow.stages import run_recipe

MINIMAL = {"name": "mine", "data": {"train": "train", "dev": "dev"}}


@pytest.fixture(autouse=True)
def _no_data_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPEECHJEPA_DATA", raising=False)


def build(tmp_path: Path, *overrides: str) -> Recipe:
    return build_recipe(MINIMAL, overrides, tmp_path)


def test_a_missing_data_root_is_an_error_that_says_both_ways() -> None:
    with pytest.raises(ConfigError) as caught:
        build_recipe(MINIMAL)
    assert "--data-root" in str(caught.value)
    assert "SPEECHJEPA_DATA" in str(caught.value)


def test_the_data_root_comes_from_the_flag_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flag").mkdir()
    (tmp_path / "variable").mkdir()
    monkeypatch.setenv("SPEECHJEPA_DATA", str(tmp_path / "variable"))
    assert build_recipe(MINIMAL).data.root == tmp_path / "variable"
    assert build_recipe(MINIMAL, data_root=tmp_path / "flag").data.root == tmp_path / "flag"


def test_a_data_root_that_is_no_folder_is_named_unless_a_program_makes_it(tmp_path: Path) -> None:
    save_yaml(MINIMAL, tmp_path / "recipe.yaml")
    with pytest.raises(ConfigError, match="is no folder"):
        load_recipe(tmp_path / "recipe.yaml", data_root=tmp_path / "none")
    (tmp_path / "prepare.py").touch()
    assert load_recipe(tmp_path / "recipe.yaml", data_root=tmp_path / "none").name == "mine"


def test_the_program_beside_a_recipe_fetches_its_data(tmp_path: Path) -> None:
    program = tmp_path / "prepare.py"
    program.write_text(
        "import pathlib, sys\n"
        "assert sys.argv[1] == '--data-root'\n"
        "pathlib.Path(sys.argv[2], 'fetched').touch()\n"
    )
    recipe = build_recipe(MINIMAL, data_root=tmp_path / "data")
    run_recipe(recipe, tmp_path / "run", prepare=program, only=("prepare",))
    assert (tmp_path / "data" / "fetched").exists()
    program.write_text("raise SystemExit(3)")
    with pytest.raises(DataError, match=r"prepare\.py: ended with status 3"):
        run_recipe(recipe, tmp_path / "run", prepare=program, only=("prepare",))


def test_absolute_locations_and_hub_ids_need_no_data_root(tmp_path: Path) -> None:
    recipe = build_recipe(
        {"name": "x", "data": {"train": str(tmp_path / "a"), "dev": "hf:google/fleurs:sw_ke"}}
    )
    locations = [corpus.location for corpus in recipe.data.corpora()]
    assert locations == [str(tmp_path / "a"), "hf:google/fleurs:sw_ke"]


def test_one_corpus_with_splits_is_named_once(tmp_path: Path) -> None:
    data = {"corpus": "c", "train": {"split": "train"}, "dev": {"split": "test"}}
    recipe = build_recipe({"name": "x", "data": data}, ["data.corpus=d"], tmp_path)
    found = {(corpus.location, corpus.split) for corpus in recipe.data.corpora()}
    assert found == {(str(tmp_path / "d"), "train"), (str(tmp_path / "d"), "test")}


def test_presets_are_where_encoder_settings_start(tmp_path: Path) -> None:
    assert build(tmp_path).encoder == PRESETS["tiny"]
    small = build(tmp_path, "encoder={preset: small, width: 96}").encoder
    assert (small.width, small.num_layers) == (96, PRESETS["small"].num_layers)
    published = build(tmp_path, "encoder={type: wav2vec2, preset: base}").encoder
    assert published == PUBLISHED["base"]


@pytest.mark.parametrize(
    ("flag", "complaint"),
    [
        ("encoder.preset=huge", "`encoder.preset` must be one of tiny, small, base"),
        ("encoder.type=lstm", "`encoder.type` must be native or wav2vec2, but is 'lstm' instead"),
        ("encoder.witdh=3", "unknown key `encoder.witdh`; did you mean `encoder.width`?"),
        ("encoder=tiny", "for example `encoder: {preset: tiny}`"),
        ("finetune.max_steps=abc", "`finetune.max_steps` must be an integer, but is 'abc' instead"),
        ("pretrain.objektive=jepa", "did you mean `pretrain.objective`?"),
        ("data.labels=3", "`data.labels` must be text or a section of keys, but is 3 instead"),
        ("data.labels={minuts: 3}", "did you mean `data.labels.minutes`?"),
        ("labels=first.txt", "unknown key `labels`; did you mean `data.labels`?"),
        ("minutes=3", "did you mean `pretrain.minutes` or `finetune.minutes`?"),
        ("width=3", "did you mean `encoder.width`?"),
        ("language=not a language", "null for none or several), but is 'not a language' instead"),
        ("language=Scottish Gaelic", "did you mean `gd`?"),
        ("name=a/b", "`name` must be letters"),
        ("data.train=null", "`data.train` is missing"),
    ],
)
def test_a_recipe_that_cannot_be_run_says_why(tmp_path: Path, flag: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(tmp_path, flag)
    assert complaint in str(caught.value)


def test_a_code_that_no_language_has_is_kept_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for code in ("mdw", "qaa", "null"):
        build(tmp_path, f"language={code}")
    assert not caplog.records
    assert build(tmp_path, "language=zzz").language == "zzz"
    assert "`language` is zzz, which is no code" in caplog.text


def test_the_seed_is_the_seed_of_both_trainings_unless_they_have_their_own(
    tmp_path: Path,
) -> None:
    recipe = build(tmp_path, "seed=7", "finetune.seed=2")
    assert recipe.pretrain is not None and recipe.pretrain.seed == 7
    assert recipe.finetune is not None and recipe.finetune.seed == 2


def test_sections_can_be_left_out(tmp_path: Path) -> None:
    recipe = build(tmp_path, "pretrain=null", "language_model=null", "seed=1")
    assert recipe.pretrain is None
    assert recipe.language_model is None


def test_a_saved_recipe_is_the_same_recipe(tmp_path: Path) -> None:
    for encoder in ("{type: wav2vec2}", "{preset: small, width: 96}"):
        recipe = build(tmp_path, f"encoder={encoder}", "data.labels={minutes: 3}", "language=no")
        save_recipe(recipe, tmp_path / "recipe.yaml")
        assert load_recipe(tmp_path / "recipe.yaml") == recipe


def test_recipes_are_found_by_path_and_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "recipes" / "ours"
    folder.mkdir(parents=True)
    (folder / "asr_5min.yaml").write_text("name: ours")
    (folder / "recipe.yaml").write_text("name: ours")
    monkeypatch.chdir(tmp_path)
    assert "ours/asr_5min" in list_recipes()
    for name in ("ours/asr_5min", "recipes/ours/asr_5min.yaml", str(folder / "asr_5min.yaml")):
        assert load_yaml(find_recipe(name)) == {"name": "ours"}
    assert find_recipe("ours").name == "recipe.yaml"
    with pytest.raises(ConfigError, match="did you mean `ours/asr_5min`"):
        find_recipe("ours/asr_5mins")
    with pytest.raises(ConfigError, match=r"no file '.*5mins\.yaml'; did you mean `ours/asr_5min`"):
        find_recipe("recipes/ours/asr_5mins.yaml")


def test_what_is_near_no_recipe_is_answered_without_a_guess_or_a_long_list() -> None:
    for name, what in (
        ("nosuchrecipe/asr", "recipe"),
        ("other/asr_10min", "recipe"),
        ("nosuch.yaml", "file"),
        ("/x/nosuch.yml", "file"),
    ):
        with pytest.raises(ConfigError) as caught:
            find_recipe(name)
        assert str(caught.value) == (
            f"there is no {what} '{name}'; `speechjepa recipes` lists those there are"
        )


def corpus(folder: Path, count: int, labelled: int) -> Path:
    folder.mkdir(parents=True)
    for index in range(count):
        soundfile.write(folder / f"{index}.wav", [0.1, -0.1] * 8000, 16000)
        if index < labelled:
            (folder / f"{index}.txt").write_text(f"word {index}")
    return folder


def test_without_a_dev_set_some_labels_are_held_out(tmp_path: Path) -> None:
    corpus(tmp_path / "all", 12, 10)
    config = DataConfig(root=tmp_path, pool=("all",), train="all", dev_minutes=0.03)
    corpora = Corpora(config, tmp_path / "run")
    labelled, dev = {u.id for u in corpora.labelled}, {u.id for u in corpora.dev}
    assert len(dev) == 2
    assert len(labelled) == 8
    assert not labelled & dev
    # A new transcript must not begin pretraining again: the pool is the same whatever is drawn.
    assert len(corpora.pool) == 12
    # The same again, whatever else is recorded later.
    again = Corpora(config, tmp_path / "run2")
    assert {u.id for u in again.dev} == dev


def test_held_out_transcripts_come_from_outside_a_named_list(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "all", 8, 8)
    (folder / "tiny.txt").write_text("0\n1\n2\n")
    config = DataConfig(root=tmp_path, train="all", labels="tiny", dev_minutes=0.03)
    corpora = Corpora(config, tmp_path / "run")
    assert {u.id for u in corpora.labelled} == {"0", "1", "2"}
    assert not {u.id for u in corpora.dev} & {"0", "1", "2"}
    assert (tmp_path / "run" / "labels.txt").read_text() == "0\n1\n2\n"


def test_too_few_transcripts_to_hold_some_out_is_an_error(tmp_path: Path) -> None:
    corpus(tmp_path / "all", 2, 1)
    corpora = Corpora(DataConfig(root=tmp_path, train="all"), tmp_path / "run")
    with pytest.raises(DataError, match="too few to hold some out"):
        corpora.labelled  # noqa: B018


def test_the_pool_holds_each_stretch_of_audio_once_and_none_of_dev(tmp_path: Path) -> None:
    corpus(tmp_path / "train", 3, 3)
    corpus(tmp_path / "dev", 2, 2)
    config = DataConfig(root=tmp_path, pool=("train", "dev", "train"), train="train", dev="dev")
    assert len(Corpora(config, tmp_path / "run").pool) == 3


def test_dev_that_is_all_the_audio_there_is_leaves_nothing_to_learn_from(tmp_path: Path) -> None:
    corpus(tmp_path / "train", 2, 2)
    config = DataConfig(root=tmp_path, train="train", dev="train")
    with pytest.raises(DataError, match="every labelled utterance is one of `data.dev`"):
        Corpora(config, tmp_path / "run").read_all()


@pytest.mark.parametrize(
    "flag",
    ["pretrain.max_steps=0", "pretrain.minutes=-1", "finetune.learning_rate=.nan", "seed=-1"],
)
def test_numbers_that_cannot_train_are_refused_at_once(flag: str) -> None:
    setting = flag.partition("=")[0].rpartition(".")[2]
    with pytest.raises(ConfigError, match=rf"`(pretrain|finetune)\.{setting}` must be"):
        build_recipe({"name": "x", "data": {"train": "/x"}}, [flag])


def test_a_fingerprint_sees_a_changed_file_and_a_changed_transcript(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"one")
    fingerprint = Corpora(DataConfig(), tmp_path / "run").fingerprint
    before = fingerprint([Utterance(id="a", audio_path=path, text="x")])
    assert fingerprint([Utterance(id="a", audio_path=path, text="x")]) == before
    changed = [Utterance(id="a", audio_path=path, text="y")]
    assert fingerprint(changed) != before
    assert fingerprint(changed, use_text=False) == fingerprint(
        [Utterance(id="a", audio_path=path, text="x")], use_text=False
    )
    path.write_bytes(b"three")
    assert fingerprint([Utterance(id="a", audio_path=path, text="x")]) != before


def test_a_pool_that_names_the_folder_of_train_reads_the_same_tier(tmp_path: Path) -> None:
    train = {"location": "mine", "columns": {"text": "mdw"}, "split": "train"}
    mapping = {"name": "x", "data": {"train": train, "pool": ["mine", "other"]}}
    pool = build_recipe(mapping, (), tmp_path).data.pool_corpora()
    assert [(Path(str(c.location)).name, c.columns, c.split) for c in pool] == [
        ("mine", {"text": "mdw"}, None),
        ("other", None, None),
    ]
