"""Write three translations of each run to docs/examples, to hear, and the table that lists them.

    python tools/make_examples.py runs/s2st-phrases-es-en runs/s2st-mboshi-speech \\
        --voice s2st-prompts-es-en-pretrained=runs/s2st-phrases-es-en

Only synthetic speech is written: sources and true targets that espeak-ng spoke, and translations by
a vocoder, or by a voice that joins recordings of espeak-ng. A translation that is joined from
recordings of a person is none; `--voice NAME=FOLDER` has the same units spoken by another voice (a
folder of `speechjepa voice fit --kind vocoder`, or a run of synthetic targets with the same units).
The words of a corpus whose recipe names no licence are left out of the table, and so is the true
target, which says them; `--with-words` is for those who may show them.

A run's examples are a folder of docs/examples, and docs/examples/README.md lists all folders that
are there: a run that is not named keeps its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from speechjepa.audio.files import read_audio, write_wav
from speechjepa.config import load_yaml
from speechjepa.errors import ConfigError, DataError, SpeechJepaError
from speechjepa.inference.voice import load_voice
from speechjepa.units.kmeans import load_units

ROOT = Path(__file__).resolve().parent.parent
COUNT = 3
EXAMPLES_FILE = "examples.json"
KINDS = ("source", "reference", "translation")
LINKS = {"source": "source", "reference": "true", "translation": "translation"}
_INTRO = """\
# Examples of translation

<!-- Written by tools/make_examples.py from run folders. -->

Three dev pairs of each run, chosen by their places in the list, not by ear. What is written is the
translator's own text, where it learned any; what is heard is what a recogniser of the target
language makes of the translation. All speech here is synthetic; sources that people spoke are not
shipped. Scores: [docs/RESULTS.md](../RESULTS.md).
"""


@dataclass(frozen=True)
class Run:
    """A run folder that was evaluated."""

    folder: Path
    recipe: Mapping[str, Any]
    results: Mapping[str, Any]
    predictions: Mapping[str, Mapping[str, Any]]
    """By the id of the pair."""

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read a run folder.

        Raises:
            DataError: It is no run of translation, or was not evaluated.
        """
        recipe = load_yaml(folder / "recipe.yaml")
        if not recipe.get("translation"):
            raise DataError("this run does not translate", path=folder)
        path = folder / "evaluate" / "results.json"
        if not path.is_file():
            raise DataError("this run was not evaluated: there is no results.json", path=folder)
        lines = (folder / "evaluate" / "predictions.jsonl").read_text(encoding="utf-8")
        entries = map(json.loads, filter(None, lines.split("\n")))
        results = json.loads(path.read_text(encoding="utf-8"))
        return cls(folder, recipe, results, {entry["id"]: entry for entry in entries})

    @property
    def name(self) -> str:
        """Of the recipe."""
        return str(self.recipe["name"])

    @property
    def ids(self) -> list[str]:
        """The pairs that are shown."""
        paths = sorted((self.folder / "evaluate" / "examples").glob("*-source.wav"))
        there = [path.name.removesuffix("-source.wav") for path in paths]
        return [name for name in there or self.predictions if name in self.predictions][:COUNT]

    @property
    def synthetic(self) -> frozenset[str]:
        """Which of `KINDS` nobody said."""
        settings = self.recipe["translation"]
        targets = _has_synthetic_targets(settings)
        said = {"source": settings.get("phrases") is not None, "reference": targets}
        voice = self.folder / "voice"
        if (voice / "voice.json").is_file():
            said["translation"] = targets or _kind(voice) == "vocoder"
        return frozenset(kind for kind, is_synthetic in said.items() if is_synthetic)

    @property
    def training_minutes(self) -> float | None:
        """Of the translator; None = the run does not remember."""
        path = self.folder / "state.json"
        if not path.is_file():
            return None
        stages = json.loads(path.read_text(encoding="utf-8")).get("stages", {})
        minutes = stages.get("translate", {}).get("minutes")
        return None if minutes is None else round(minutes, 1)

    @property
    def may_show_words(self) -> bool:
        """Whether the words of the corpus are ours, or its licence is known."""
        made = self.recipe["translation"].get("phrases") is not None
        return made or bool(self.recipe.get("licence"))


def _has_synthetic_targets(settings: Mapping[str, Any]) -> bool:
    """Say whether espeak-ng spoke the targets of a recipe's `translation`."""
    return settings.get("phrases") is not None or bool(settings.get("spoken_by"))


def _kind(voice: Path) -> str:
    return str(json.loads((voice / "voice.json").read_text(encoding="utf-8"))["kind"])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("runs", nargs="*", type=Path, metavar="RUN", help="run folders; none = the table alone")
    add("--voice", action="append", default=[], metavar="NAME=FOLDER", help="may be repeated")
    add("--with-words", action="store_true", help="show words of corpora without a licence")
    add("-o", "--output", type=Path, default=ROOT / "docs" / "examples")
    args = parser.parse_args()
    failed = 0
    try:
        voices = dict(_voice(text) for text in args.voice)
        runs = [Run.read(folder) for folder in args.runs]
        unknown = sorted(set(voices) - {run.name for run in runs})
        if unknown:
            raise ConfigError(f"--voice {unknown[0]}=...: no run of that name is given")
        for run in runs:
            left_out = write_examples(run, args.output, voices.get(run.name), args.with_words)
            failed += bool(left_out)
            for line in left_out:
                print(f"{run.name}: {line}", file=sys.stderr)
        print(f"wrote {write_table(args.output)}")
    except SpeechJepaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 1 if failed else 0


def _voice(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not equals:
        raise ConfigError(f"--voice must be NAME=FOLDER, but is {text!r} instead")
    return name, Path(folder)


def write_examples(
    run: Run, output: Path, voice: Path | None = None, with_words: bool = False
) -> list[str]:
    """Write the examples of a run in place of those that were there; return what is left out.

    Args:
        run: That was evaluated.
        output: Gets a folder of the run's name.
        voice: What speaks the translations in place of the run's own; a voice, or a run.
        with_words: Show words although the recipe names no licence.

    Raises:
        ConfigError: The voice is not synthetic, or speaks other units.
    """
    show_words = with_words or run.may_show_words
    kinds = run.synthetic if show_words else run.synthetic - {"reference"}
    speak = None if voice is None else _other_voice(run, voice)
    folder = output / run.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    head = str(run.results["head"])
    rows = []
    for name in run.ids:
        entry = run.predictions[name]
        files = {}
        for kind in KINDS:
            path = folder / f"{name}-{kind}.wav"
            if kind == "translation" and speak is not None:
                write_wav(path, speak.speak(torch.tensor(entry[head]["units"])))
            elif kind in kinds and (there := _example(run, name, kind)).is_file():
                write_wav(path, read_audio(there))
            else:
                continue
            files[kind] = path.name
        words = {"source": entry.get("source"), "reference": entry.get("reference")}
        found = {"written": entry[head].get("text")}
        found["heard"] = entry[head].get("heard") if speak is None else None
        shown = words if show_words else {}
        rows.append({"id": name, **shown, **found, "files": files})
    described = {
        "recipe": run.name,
        "title": run.recipe.get("title"),
        "licence": run.recipe.get("licence"),
        "head": head,
        "training_minutes": run.training_minutes,
        "rows": rows,
    }
    text = json.dumps(described, ensure_ascii=False, indent=2)
    (folder / EXAMPLES_FILE).write_text(text + "\n", encoding="utf-8")
    return _left_out(run, rows, show_words)


def _example(run: Run, name: str, kind: str) -> Path:
    return run.folder / "evaluate" / "examples" / f"{name}-{kind}.wav"


def _left_out(run: Run, rows: Sequence[Mapping[str, Any]], show_words: bool) -> list[str]:
    lines = []
    speaks = run.recipe["translation"].get("writes", "units") == "units"
    if speaks and not any("translation" in row["files"] for row in rows):
        lines.append(
            "no translation is synthetic: its voice joins recordings of a person; give "
            f"--voice {run.name}=FOLDER, a vocoder of the same units"
        )
    if not show_words:
        lines.append("no words are shown: the recipe names no licence (--with-words)")
    return lines


def _other_voice(run: Run, folder: Path) -> Any:
    """Return a voice that may speak the units of a run in examples."""
    path = folder / "voice" if (folder / "recipe.yaml").is_file() else folder
    voice = load_voice(path)
    if path == folder:
        is_synthetic = voice.kind == "vocoder"
    else:
        settings = load_yaml(folder / "recipe.yaml").get("translation") or {}
        is_synthetic = _has_synthetic_targets(settings) or voice.kind == "vocoder"
    if not is_synthetic:
        raise ConfigError(f"{folder}: this voice joins recordings of a person; give a vocoder")
    own = load_units(run.folder / "units")
    same = own.centroids.shape == voice.units.centroids.shape
    if not same or not torch.allclose(own.centroids, voice.units.centroids, atol=1e-4):
        raise ConfigError(f"{folder}: this voice speaks other units than those of {run.folder}")
    return voice


def write_table(output: Path) -> Path:
    """Write README.md of all examples that are there; return it."""
    parts = [_INTRO]
    for path in sorted(output.glob(f"*/{EXAMPLES_FILE}")):
        described = json.loads(path.read_text(encoding="utf-8"))
        parts.append(f"## {described['recipe']}\n\n{_facts(described)}\n\n{_rows(described, path)}")
    readme = output / "README.md"
    readme.write_text("\n".join(parts), encoding="utf-8")
    return readme


def _facts(described: Mapping[str, Any]) -> str:
    title = str(described["title"] or "").rstrip(".")
    licence = f" Corpus: {described['licence']}." if described["licence"] else ""
    minutes = described.get("training_minutes")
    trained = "" if minutes is None else f", trained for {minutes:g} minutes"
    return f"{title}. Head: {described['head']}{trained}.{licence}"


def _rows(described: Mapping[str, Any], path: Path) -> str:
    words = {"source": "Said", "reference": "True translation"}
    words |= {"written": "Written", "heard": "Heard"}
    rows = described["rows"]
    columns = [key for key in words if any(row.get(key) is not None for row in rows)]
    head = ["Pair", *(words[key] for key in columns), "Listen"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for row in rows:
        links = (f"[{LINKS[k]}]({path.parent.name}/{name})" for k, name in row["files"].items())
        cells = [row["id"], *(row.get(key) or "–" for key in columns), ", ".join(links) or "–"]
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
