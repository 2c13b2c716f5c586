"""What the README says can be typed, opened and found."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/LOG.md",
    "docs/ONNX.md",
    "docs/TRANSLATE.md",
    "docs/examples/README.md",
    "docs/TRANSCRIBE.md",
)
COMMAND_PAGES = [
    ROOT / "README.md",
    ROOT / "docs" / "TRANSCRIBE.md",
    ROOT / "docs" / "TRANSLATE.md",
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


@pytest.fixture
def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that has what the README speaks of: recordings, and a run that was trained."""
    import numpy as np
    import soundfile
    import torch

    from speechjepa.models.bundle import Bundle, save_bundle
    from speechjepa.models.ctc import CtcModel
    from speechjepa.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
    from speechjepa.text.vocabulary import Vocabulary

    torch.manual_seed(0)
    encoder = SpeechEncoder(SpeechEncoderConfig(width=16, num_layers=1, num_heads=1, ffn_width=16))
    vocabulary = Vocabulary.build(["a bo da"])
    bundle = Bundle(encoder=encoder, ctc=CtcModel(encoder, len(vocabulary)), vocabulary=vocabulary)
    for name in ("quickstart", "my_language"):
        save_bundle(bundle, tmp_path / "runs" / name / "finetune" / "bundle")
    (tmp_path / "recordings").mkdir()
    for index in range(12):
        file = tmp_path / "recordings" / f"{index}.wav"
        soundfile.write(file, np.random.default_rng(index).normal(0, 0.1, 24000), 16000)
        file.with_suffix(".txt").write_text("a bo da")
    shutil.copy(tmp_path / "recordings" / "0.wav", tmp_path / "interview.wav")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_of_the_readme_run(newcomer: Path) -> None:
    """All but the three that train: `run` stops after `check` here, and `make` is for releases."""
    from speechjepa.cli.main import main

    (newcomer / "recipes").symlink_to(ROOT / "recipes")
    for words in _commands(ROOT / "README.md"):
        if words[0] == "cp":
            text = Path(words[1]).read_text().replace("MY_FOLDER", "recordings")
            Path(words[2]).write_text(text.replace("MY-LANGUAGE", "my_language"))
        elif words[0] == "speechjepa" and "corpora" not in words:
            until = ["--until", "check"] if words[1] == "run" else []
            assert main([*words[1:], *until]) == 0, shlex.join(words)
    assert (newcomer / "transcripts" / "interview.srt").is_file()
    assert len(list((newcomer / "subtitles").rglob("*.srt"))) == 12


def test_the_python_example_runs(newcomer: Path) -> None:
    import torch

    (example,) = _blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python")
    names = {"waveform": torch.zeros(2, 16000), "lengths": torch.tensor([16000, 8000])}
    exec(example, names)  # noqa: S102
    assert {"text", "language", "segments"} <= set(names["result"])
    assert names["logits"].shape[:2] == (2, int(names["logit_lengths"].max()))
