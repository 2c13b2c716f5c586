"""What the README says can be typed, opened and found."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/LOG.md")
COMMAND_PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "recipes").glob("*/README.md")),
]


def _blocks(text: str, language: str) -> list[str]:
    pattern = rf"^ *```{language}\n(.*?)^ *```"
    return re.findall(pattern, text, flags=re.MULTILINE | re.DOTALL)


def _commands(page: Path) -> list[list[str]]:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = "\n".join(_blocks(text, "sh")).splitlines()
    lines += re.findall(r"^    (speechjepa .*)$", text, flags=re.MULTILINE)
    words = [shlex.split(line, comments=True) for line in lines]
    return [line for line in words if line]


SPEECHJEPA = [
    (page.relative_to(ROOT).as_posix(), words[1:])
    for page in COMMAND_PAGES
    for words in _commands(page)
    if words[0] in ("speechjepa", ".venv/bin/speechjepa")
]


@pytest.mark.parametrize(
    ("page", "arguments"),
    SPEECHJEPA,
    ids=[f"{page}: {' '.join(words)}" for page, words in SPEECHJEPA],
)
def test_the_command_line_accepts(page: str, arguments: list[str]) -> None:
    from speechjepa.cli.main import build_parser

    assert build_parser().parse_args(arguments).command == arguments[0]


def test_the_readme_shows_every_kind_of_command() -> None:
    shown = {words[0] for page, words in SPEECHJEPA if page == "README.md"}
    assert {"run", "recipes", "check", "transcribe", "info"} <= shown


def test_recipes_named_in_commands_exist() -> None:
    named = [
        word
        for _, words in SPEECHJEPA
        for word in words
        if re.fullmatch(r"recipes/\S+\.yaml", word)
    ]
    assert named
    for name in named:
        assert (ROOT / name).is_file(), name


def test_make_targets_in_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [words[1] for words in _commands(ROOT / "README.md") if words[0] == "make"]
    assert targets[:2] == ["quickstart", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_the_python_example_uses_what_exists() -> None:
    import speechjepa
    from speechjepa.inference.model import SpeechModel

    homes = {"speechjepa": speechjepa, "model": SpeechModel}
    used = set()
    for block in _blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used.add((node.value.id, node.attr))
    assert ("speechjepa", "load") in used
    for owner, name in used:
        assert hasattr(homes[owner], name), f"{owner}.{name}"


def test_the_file_tree_names_what_exists_and_leaves_out_nothing() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text.split("## Where things are")[1].split("```")[1]
    shown: set[str] = set()
    parent = ""
    for line in filter(str.strip, tree.splitlines()):
        name = line.split()[0]
        if not line.startswith(" "):
            parent = name
            shown.add(name)
        else:
            shown.add(parent + name)
    for name in shown:
        assert (ROOT / name).exists(), name
    package = [
        f"speechjepa/{path.name}/" if path.is_dir() else f"speechjepa/{path.name}"
        for path in (ROOT / "speechjepa").iterdir()
        if not path.name.startswith("__") and path.suffix != ".typed"
    ]
    assert set(package) <= shown


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith(("http://", "https://")):
            assert ((ROOT / page).parent / target).exists(), f"{page} -> {target}"


def test_the_path_to_the_loss_names_files_and_functions_that_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    path = text.split("## Follow the loss")[1].split("\n## ")[0]
    files = re.findall(r"`([a-z_/]+\.py)`", path)
    assert len(files) >= 5
    sources = [(ROOT / "speechjepa" / name).read_text(encoding="utf-8") for name in files]
    for name in re.findall(r"`([A-Za-z_]+)(?:\.forward)?`", path):
        assert any(re.search(rf"\b{name}\b", source) for source in sources), name
