"""Read frozen keyword-only dataclasses from YAML and flags, and say plainly what does not fit.

YAML is read by the 1.2 core schema on top of PyYAML's safe loader, because the 1.1 rules bite
exactly here: `1e-4` would be text, the language code `no` would be False, `1:30` would be 90.
There is no interpolation, no tag and no evaluation: a recipe is data.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from speechjepa.errors import ConfigError

ConfigType = TypeVar("ConfigType")

_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INTEGER = re.compile(r"[-+]?[0-9]+")


class _Loader(yaml.SafeLoader):
    """The safe loader with the scalars of YAML 1.2 and with duplicate keys refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key_node.value}' is given twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """The safe dumper, which also quotes text that the 1.2 rules would read as a number."""


def _exactly(pattern: str) -> re.Pattern[str]:
    return re.compile(f"^(?:{pattern})$")


_Loader.yaml_implicit_resolvers = {}
_Dumper.yaml_implicit_resolvers = {
    first: list(rules) for first, rules in yaml.SafeDumper.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", _exactly("true|True|TRUE|false|False|FALSE"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:null", _exactly("~|null|Null|NULL|"), ["~", "n", "N", ""]
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", _exactly("0|[-+]?[1-9][0-9]*"), list("-+0123456789")
)
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        _exactly(_NUMBER.pattern + r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"),
        list("-+.0123456789"),
    )
_Dumper.add_representer(tuple, yaml.SafeDumper.represent_list)


# ---------------------------------------------------------------------------------------------
# YAML


def parse_yaml(text: str, *, where: str) -> Any:
    """Parse YAML text; errors say `where` and the line."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = where if mark is None else f"{where}:{mark.line + 1}"
        raise ConfigError(f"{place}: {error.problem or error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: {error}") from error


def load_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a YAML file that holds one mapping.

    Raises:
        ConfigError: The file is missing, is not YAML, repeats a key, or is not a mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    content = parse_yaml(text, where=str(path))
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must hold `key: value` lines, but holds {content!r} instead")
    return content


def save_yaml(config: Any, path: str | os.PathLike[str]) -> None:
    """Write a dataclass or mapping as YAML, replacing the file in one go."""
    path = Path(path)
    text = yaml.dump(
        to_dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
    )
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def to_dict(config: Any) -> Any:
    """Turn a dataclass into mappings, lists and primitives that YAML and JSON can hold."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {key: to_dict(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_dict(value) for value in config]
    return str(config) if isinstance(config, Path) else config


def apply_overrides(mapping: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Put `key.sub=value` flags on top of a mapping.

    Args:
        mapping: The settings underneath; it is not changed.
        overrides: Flags such as `finetune.learning_rate=1e-4`; values are YAML.

    Returns:
        A new mapping. Whether the keys exist is checked by `from_dict`.
    """
    result = _copy(mapping)
    for override in overrides:
        dotted, equals, value = override.partition("=")
        keys = dotted.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(
                f"'{override}' is not a setting; write it as `key.sub=value`, "
                "for example `finetune.max_steps=500`"
            )
        section = result
        for depth, key in enumerate(keys[:-1]):
            if section.get(key) is None:
                section[key] = {}
            elif not isinstance(section[key], dict):
                whole = ".".join(keys[: depth + 1])
                raise ConfigError(
                    f"`{dotted}` cannot be set, because `{whole}` is {section[key]!r} and not a "
                    f"section; set it whole: `{whole}='{{...}}'`"
                )
            section = section[key]
        section[keys[-1]] = parse_yaml(value, where=f"`{dotted}`")
    return result


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


# ---------------------------------------------------------------------------------------------
# Dataclasses


def from_dict(
    cls: type[ConfigType], mapping: Mapping[str, Any], *, where: str = "recipe.yaml"
) -> ConfigType:
    """Build a configuration dataclass, with every key known and every value of its type.

    Args:
        cls: A dataclass; fields may be dataclasses, `Literal`s, unions, lists, tuples, mappings,
            paths and primitives.
        mapping: The settings; what is left out keeps its default.
        where: Put in front of every error: the file or command that the settings come from.

    Raises:
        ConfigError: A key is unknown (the nearest known one is named), a required one is
            missing, or a value does not fit.
    """
    try:
        return _build(cls, mapping, "")
    except _Misfit as misfit:
        raise ConfigError(f"{where}: {misfit}") from misfit


class _Misfit(Exception):
    """A value that does not fit; `from_dict` adds where it was written."""


def _build(cls: type[Any], mapping: Any, path: str) -> Any:
    if not isinstance(mapping, Mapping):
        raise _Misfit(f"{_quoted(path)} must be a section of keys, but is {mapping!r} instead")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for key in mapping:
        if key not in fields:
            inside = [f"`{_join(path, name)}.{key}`" for name in _sections_with(key, hints)]
            near = f"; did you mean {' or '.join(inside)}?" if inside else ""
            near = near or suggestion(str(key), fields, prefix=f"{path}." if path else "")
            raise _Misfit(f"unknown key `{_join(path, key)}`{near}")
    missing = [
        name
        for name, f in fields.items()
        if name not in mapping
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise _Misfit(f"`{_join(path, missing[0])}` is missing; it has no default")
    values = {key: _convert(value, hints[key], _join(path, key)) for key, value in mapping.items()}
    try:
        return cls(**values)
    except (ConfigError, ValueError) as error:
        raise _Misfit(f"{_quoted(path)}: {error}" if path else str(error)) from error


def _sections_with(key: str, hints: Mapping[str, Any]) -> list[str]:
    """Return the names of the fields that are sections which know a key."""
    found = []
    for name, hint in hints.items():
        sections = [s for s in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(s)]
        if any(f.name == key for section in sections for f in dataclasses.fields(section)):
            found.append(name)
    return found


def suggestion(word: str, known: Iterable[str], *, prefix: str = "") -> str:
    """Say which known word is nearest, or list the known words where none is near."""
    words = list(known)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    if near:
        return f"; did you mean `{prefix}{near[0]}`?"
    return f"; known: {', '.join(words)}" if words else ""


def _convert(value: Any, expected: Any, path: str) -> Any:
    origin = typing.get_origin(expected)
    arguments = typing.get_args(expected)
    if expected in (Any, object):
        return value
    if isinstance(value, float) and value != value:
        raise _misfit(path, _kind(expected), value)  # it would pass every check of a range
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, arguments, path)
    if origin is Literal:
        for choice in arguments:
            if value == choice and type(value) is type(choice):
                return choice
        near = suggestion(value, map(str, arguments)) if isinstance(value, str) else ""
        near = near if "did you mean" in near else ""
        raise _misfit(path, _kind(expected), value, near)
    if dataclasses.is_dataclass(expected):
        if isinstance(value, typing.cast(type, expected)):
            return value
        return _build(typing.cast(type, expected), value, path)
    if (origin or expected) in (list, tuple, Sequence):
        return _convert_list(value, expected, path)
    if (origin or expected) in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise _misfit(path, _kind(expected), value)
        key_type, item_type = arguments or (Any, Any)
        return {
            _convert(key, key_type, f"{path} (key)"): _convert(item, item_type, _join(path, key))
            for key, item in value.items()
        }
    return _convert_primitive(value, expected, path)


def _convert_primitive(value: Any, expected: Any, path: str) -> Any:
    if expected is type(None) and value is None:
        return None
    if expected is bool and isinstance(value, bool):
        return value
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if expected is float:
        if is_number:
            return float(value)
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            return float(value)  # a mapping that some other YAML reader made
    if expected is int:
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            value, is_number = float(value) if not _INTEGER.fullmatch(value) else int(value), True
        if is_number and value == value // 1:
            return int(value)
    if expected is str:
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            raise _misfit(path, "text", value, "; put it in quotes (YAML 1.1 reads no as false)")
        if is_number:
            raise _misfit(path, "text", value, f'; put it in quotes: "{value}"')
    if expected is Path and isinstance(value, (str, Path)):
        return Path(value)
    raise _misfit(path, _kind(expected), value)


def _convert_list(value: Any, expected: Any, path: str) -> Any:
    origin = typing.get_origin(expected) or expected
    arguments = typing.get_args(expected)
    if not isinstance(value, (list, tuple)):
        raise _misfit(path, _kind(expected), value)
    if origin is tuple and arguments and Ellipsis not in arguments:
        if len(value) != len(arguments):
            raise _misfit(path, _kind(expected), value)
        kinds: Sequence[Any] = arguments
    else:
        kinds = [arguments[0] if arguments else Any] * len(value)
    items = [
        _convert(item, kind, f"{path}[{index}]")
        for index, (item, kind) in enumerate(zip(value, kinds, strict=True))
    ]
    return tuple(items) if origin is tuple else items


def _convert_union(value: Any, choices: tuple[Any, ...], path: str) -> Any:
    if value is None and type(None) in choices:
        return None
    # An exact match first, so that `int | str` keeps "5" as text.
    for choice in choices:
        if isinstance(choice, type) and choice is not type(None) and type(value) is choice:
            return value
    sections = [choice for choice in choices if dataclasses.is_dataclass(choice)]
    if isinstance(value, Mapping) and sections:
        return _convert(value, _pick_section(value, sections), path)
    misfits: list[_Misfit] = []
    for choice in choices:
        try:
            return _convert(value, choice, path)
        except _Misfit as misfit:
            misfits.append(misfit)
    plain = [choice for choice in choices if choice is not type(None)]
    if len(plain) == 1:
        raise misfits[choices.index(plain[0])]
    raise _misfit(path, " or ".join(_kind(choice) for choice in choices), value)


def _pick_section(value: Mapping[str, Any], sections: list[Any]) -> Any:
    """Choose among dataclasses by their `Literal` fields, then by the keys that they know."""

    def score(section: Any) -> tuple[int, int]:
        hints = typing.get_type_hints(section)
        literals = [k for k in value if k in hints and typing.get_origin(hints[k]) is Literal]
        agreeing = sum(value[k] in typing.get_args(hints[k]) for k in literals)
        return 2 * agreeing - len(literals), sum(key in hints for key in value)

    return max(sections, key=score)


def _kind(expected: Any) -> str:
    """Say in words what a type wants."""
    origin = typing.get_origin(expected)
    arguments = typing.get_args(expected)
    if origin is Literal:
        return "one of " + ", ".join(repr(choice) for choice in arguments)
    if dataclasses.is_dataclass(expected) or (origin or expected) in (dict, Mapping):
        return "a section of keys"
    if (origin or expected) in (list, tuple, Sequence):
        if origin is tuple and Ellipsis not in arguments:
            return f"a list of {len(arguments)} values"
        return "a list"
    words = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
    words |= {Path: "a path", type(None): "empty (null)"}
    return words.get(expected, str(expected))


def _misfit(path: str, kind: str, value: Any, advice: str = "") -> _Misfit:
    return _Misfit(f"{_quoted(path)} must be {kind}, but is {value!r} instead{advice}")


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _quoted(path: str) -> str:
    return f"`{path}`" if path else "the settings"
