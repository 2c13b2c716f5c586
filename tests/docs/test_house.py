"""The rules of CONTRIBUTING.md that no other tool checks."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*(ROOT / "speechjepa").rglob("*.py"), *(ROOT / "tools").rglob("*.py")])
RECIPE_PROGRAMS = sorted((ROOT / "recipes").rglob("*.py"))
MODULE_OF = {
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "flashlight-text": "flashlight",
    "espeakng-loader": "espeakng_loader",
    "pympi-ling": "pympi",
}


def _id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=_id)
def test_files_and_functions_can_be_read_in_one_go(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400, "more than 400 lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 70, f"{node.name} has {length} lines; at most 70"


@pytest.mark.parametrize("path", SOURCES, ids=_id)
def test_nothing_is_left_for_later(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = re.search(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b", text)
    assert found is None, found


def test_every_third_party_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"]]
    requirements += [line for extra in extras.values() for line in extra]
    declared = set()
    for requirement in requirements:
        name = re.split(r"[<>=!~;\[ ]", requirement)[0].lower()
        declared.add(MODULE_OF.get(name, name.replace("-", "_")))
    for path in SOURCES + RECIPE_PROGRAMS:
        for module in _imported(path) - set(sys.stdlib_module_names) - {"speechjepa", "tools"}:
            assert module in declared, f"{_id(path)} imports {module}; pyproject.toml lacks it"


def _imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_constraints_fix_every_dependency_within_its_range() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    fixed = dict(
        line.lower().replace("_", "-").split("==")
        for line in lines
        if line and not line.startswith("#")
    )
    wanted = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    for requirement in map(Requirement, wanted):
        if requirement.name == "speechjepa":  # an extra that includes another
            continue
        name = requirement.name.lower().replace("_", "-")
        assert name in fixed, f"constraints.txt lacks {name}"
        assert requirement.specifier.contains(fixed[name]), (
            f"{name}=={fixed[name]}: not {requirement}"
        )


def test_torch_and_torchaudio_are_of_one_release() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    fixed = dict(line.split("==") for line in lines if "==" in line)
    assert fixed["torch"] == fixed["torchaudio"]
