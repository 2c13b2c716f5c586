from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

RECIPES = Path(__file__).resolve().parent.parent.parent / "recipes"


@pytest.fixture(scope="module")
def prepare(request: pytest.FixtureRequest) -> ModuleType:
    """Return the program of recipes/NAME that test_NAME.py is about."""
    name = request.path.stem.removeprefix("test_")
    spec = importlib.util.spec_from_file_location(f"{name}_prepare", RECIPES / name / "prepare.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
