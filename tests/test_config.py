from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from speechjepa.config import apply_overrides, from_dict, load_yaml, parse_yaml, save_yaml, to_dict
from speechjepa.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Training:
    max_steps: int = 100
    learning_rate: float = 1e-3
    objective: Literal["jepa", "contrastive"] = "jepa"
    betas: tuple[float, float] = (0.9, 0.98)
    use_masks: bool = True
    decay: float | None = None

    def __post_init__(self) -> None:
        if self.max_steps < 0:
            raise ConfigError(f"max_steps must not be negative, but is {self.max_steps} instead")


@dataclass(frozen=True, kw_only=True)
class Native:
    type: Literal["native"] = "native"
    width: int = 8


@dataclass(frozen=True, kw_only=True)
class Published:
    type: Literal["wav2vec2"] = "wav2vec2"
    variant: str = "base"


@dataclass(frozen=True, kw_only=True)
class Settings:
    name: str
    language: str | None = None
    labels: str | dict[str, float] = "all"
    pool: tuple[str, ...] = ()
    folder: Path | None = None
    finetune: Training = field(default_factory=Training)
    other: Training | None = None
    encoder: Native | Published = field(default_factory=Native)
    anything: dict[str, Any] = field(default_factory=dict)


def build(text: str, *overrides: str) -> Settings:
    mapping = parse_yaml(text, where="recipe.yaml") or {}
    return from_dict(Settings, apply_overrides({"name": "x", **mapping}, overrides))


def test_values_become_what_the_fields_declare() -> None:
    settings = build(
        "{pool: [a, b], folder: /data, labels: {minutes: 10}, finetune: {betas: [1, 0.5]}}"
    )
    assert settings.pool == ("a", "b")
    assert settings.folder == Path("/data")
    assert settings.labels == {"minutes": 10.0}
    assert settings.finetune.betas == (1.0, 0.5)


@pytest.mark.parametrize(
    ("flag", "complaint"),
    [
        (
            "finetune.max_steps=abc",
            "recipe.yaml: `finetune.max_steps` must be an integer, but is 'abc' instead",
        ),
        ("finetune.max_steps=2.5", "`finetune.max_steps` must be an integer, but is 2.5 instead"),
        ("finetune.max_steps=true", "`finetune.max_steps` must be an integer, but is True instead"),
        ("finetune.max_steps=.inf", "must be an integer, but is inf instead"),
        ("finetune.use_masks=1", "`finetune.use_masks` must be true or false, but is 1 instead"),
        ("finetune.betas=[1]", "`finetune.betas` must be a list of 2 values, but is [1] instead"),
        ("finetune.betas=[1, b]", "`finetune.betas[1]` must be a number, but is 'b' instead"),
        ("pool=a", "`pool` must be a list, but is 'a' instead"),
        ("labels=3", "`labels` must be text or a section of keys, but is 3 instead"),
        ("labels.minutes=x", "`labels` must be text"),
        ("finetune=3", "`finetune` must be a section of keys, but is 3 instead"),
        ("finetune.objective=jeppa", "must be one of 'jepa', 'contrastive', but is 'jeppa'"),
        ("finetune.objective=jeppa", "did you mean `jepa`?"),
        ("finetune.max_steps=-1", "`finetune`: max_steps must not be negative"),
        ("name=3", 'put it in quotes: "3"'),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_what_it_must_be(flag: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build("{}", flag)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("flag", "nearest"),
    [
        (
            "finetune.max_stps=1",
            "unknown key `finetune.max_stps`; did you mean `finetune.max_steps`?",
        ),
        ("finetun.max_steps=1", "unknown key `finetun`; did you mean `finetune`?"),
        ("other.lerning_rate=1", "did you mean `other.learning_rate`?"),
        (
            "max_steps=1",
            "unknown key `max_steps`; did you mean `finetune.max_steps` or `other.max_steps`?",
        ),
        ("zzzzz=1", "unknown key `zzzzz`; known: name, language"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(flag: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build("{}", flag)
    assert nearest in str(caught.value)


def test_a_missing_required_key_is_named() -> None:
    with pytest.raises(ConfigError, match="`name` is missing"):
        from_dict(Settings, {})


def test_numbers_with_an_exponent_are_numbers() -> None:
    assert build("{}", "finetune.learning_rate=1e-4").finetune.learning_rate == 1e-4
    assert build("{}", "finetune.learning_rate=.5").finetune.learning_rate == 0.5
    assert build("{}", "finetune.max_steps=1e3").finetune.max_steps == 1000
    # ... also where another reader left them as text.
    mapping = {"name": "x", "finetune": {"learning_rate": "1e-4", "max_steps": "20"}}
    settings = from_dict(Settings, mapping)
    assert (settings.finetune.learning_rate, settings.finetune.max_steps) == (1e-4, 20)


def test_norwegian_is_a_language_and_not_a_refusal() -> None:
    assert build("language: no").language == "no"
    assert build("{}", "language=no").language == "no"
    with pytest.raises(ConfigError, match="put it in quotes"):
        from_dict(Settings, {"name": "x", "language": False})


def test_text_that_looks_like_a_time_or_a_date_stays_text() -> None:
    parsed = parse_yaml("{a: 1:30, b: 2024-01-01, c: 010}", where="x")
    assert parsed == {"a": "1:30", "b": "2024-01-01", "c": 10.0}


def test_a_union_of_sections_is_chosen_by_its_literal_field() -> None:
    assert build("encoder: {type: wav2vec2, variant: large}").encoder == Published(variant="large")
    assert build("encoder: {width: 4}").encoder == Native(width=4)
    with pytest.raises(ConfigError, match=r"unknown key `encoder.witdh`; did you mean"):
        build("encoder: {type: native, witdh: 4}")


def test_overrides_leave_the_mapping_alone_and_make_sections() -> None:
    mapping = {"finetune": {"max_steps": 1}}
    assert apply_overrides(mapping, ["finetune.max_steps=2", "other.decay=null"]) == {
        "finetune": {"max_steps": 2},
        "other": {"decay": None},
    }
    assert mapping == {"finetune": {"max_steps": 1}}


@pytest.mark.parametrize("flag", ["learning_rate", "=3", "a..b=3"])
def test_a_flag_that_is_no_setting_is_an_error(flag: str) -> None:
    with pytest.raises(ConfigError, match="write it as `key.sub=value`"):
        apply_overrides({}, [flag])


def test_a_flag_cannot_go_below_a_plain_value() -> None:
    with pytest.raises(ConfigError, match=r"`labels` is '10min' and not a section; set it whole"):
        apply_overrides({"labels": "10min"}, ["labels.minutes=3"])


def test_saved_settings_load_as_the_same_settings(tmp_path: Path) -> None:
    settings = build(
        "{language: no, labels: {minutes: 1e-5}, pool: ['1e-4', 'null', '1:30', ŋwàtɔ̀], "
        "folder: /data, encoder: {type: wav2vec2}, anything: {deep: [1, {x: .inf}]}}"
    )
    save_yaml(settings, tmp_path / "recipe.yaml")
    assert from_dict(Settings, load_yaml(tmp_path / "recipe.yaml")) == settings
    assert to_dict(settings)["anything"]["deep"][1]["x"] == math.inf


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1\nb: 2\na: 3\n", "recipe.yaml:3: the key 'a' is given twice"),
        ("a:\n  b: 1\n  b: 2\n", "recipe.yaml:3: the key 'b' is given twice"),
        ("a: 1\nb: [1\n", "recipe.yaml:3:"),
        ("- a\n", "must hold `key: value` lines"),
        ("a: !!python/name:os.system\n", "recipe.yaml:1: could not determine a constructor"),
    ],
)
def test_a_file_that_is_no_recipe_is_an_error_with_its_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_yaml(path)
    assert complaint in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        load_yaml(tmp_path / "none.yaml")
