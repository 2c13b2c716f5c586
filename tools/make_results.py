"""Write docs/RESULTS.md, recipes/*/RESULTS.md and the table of README.md from results/.

python tools/make_results.py            rewrite the documents
python tools/make_results.py --check    exit 1 if one of them differs from results/
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechjepa.config import load_yaml
from speechjepa.errors import DataError, SpeechJepaError

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # run as a program
    sys.path.insert(0, str(ROOT))

from tools import learning_results, representation_results, translation_results  # noqa: E402
from tools.learning_plot import learning_plot  # noqa: E402

FIELDS = ("what", "figure", "unit", "command", "commit", "seed", "hardware", "date")
RECIPE_FIELDS = (
    *("recipe", "split", "cer", "wer", "cer_lm", "wer_lm", "label_minutes"),
    *("pretraining_minutes", "unlabelled_hours", "parameters", "shipped_encoder"),
)
WANTED = {
    "recipes": FIELDS + RECIPE_FIELDS,
    "learning": learning_results.FIELDS,
    "translation": translation_results.FIELDS,
}
"""What the files of a folder below results/ must say; others, `FIELDS`."""
EARLIER = "†"
EARLIER_NOTE = f"{EARLIER}: made with an encoder that shipped before the present one."
SHIPPED_CHECKSUM = "speechjepa/assets/tiny/SHA256SUMS"
NOT_RUN = learning_results.NOT_RUN
GENERATED = "<!-- Written by tools/make_results.py; change results/ and run `make results`. -->"
PLOT = "learning.svg"
README_BEGIN = "<!-- results: written by tools/make_results.py -->\n"
README_END = "<!-- end of results -->"
README_HEADER = (
    *("Recipe", "Labels (min)", "CER (%)", "WER (%)", "CER with LM (%)", "WER with LM (%)"),
    "Unlabelled audio (h)",
)
RECIPE_HEADER = (
    *("Recipe", "Labels (min)", "Split", "CER (%)", "WER (%)", "CER with LM (%)"),
    *("WER with LM (%)", "Seed", "Pretraining (min)", "Unlabelled audio (h)", "Parameters (M)"),
    *("Date", "File"),
)


@dataclass(frozen=True)
class Result:
    """One file under results/."""

    path: Path
    """Relative to the repository."""
    fields: Mapping[str, Any]
    """What it holds, and `mark`: `EARLIER` or nothing."""

    @property
    def is_translation(self) -> bool:
        """Whether it is a row of the table of translations."""
        return self.path.parts[1] == "translation"

    @property
    def recipe(self) -> str | None:
        """Name of the recipe it is a result of."""
        return self.fields.get("recipe")


def read_results(root: Path) -> list[Result]:
    """Read every JSON file under `root`/results, in the order of their paths.

    Raises:
        DataError: A file is not JSON, or lacks one of the fields.
    """
    results = []
    shipped = root / SHIPPED_CHECKSUM
    present = shipped.read_text(encoding="ascii") if shipped.exists() else ""
    for path in sorted((root / "results").rglob("*.json")):
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"is not JSON: {error}", path=path) from error
        folder = path.relative_to(root / "results").parts[0]
        wanted = WANTED.get(folder, FIELDS)
        missing = [name for name in wanted if name not in fields]
        if missing:
            raise DataError(f"lacks {', '.join(missing)}; measure it again", path=path)
        is_earlier = not present.startswith(fields.get("shipped_encoder") or "")
        fields["mark"] = EARLIER if is_earlier else ""
        results.append(Result(path.relative_to(root), fields))
    return results


def documents(root: Path) -> dict[Path, str]:
    """Return what every generated document should hold, by absolute path."""
    everything = read_results(root)
    translations = [result for result in everything if result.is_translation]
    others = [result for result in everything if not result.is_translation]
    cells = [result for result in others if "row" in result.fields]
    results = [result for result in others if "row" not in result.fields]
    recipes = _recipes_by_folder(root)
    pages = {root / "docs" / "RESULTS.md": _overview(results, recipes, cells, translations)}
    if cells:
        pages[root / "docs" / PLOT] = learning_plot([cell.fields for cell in cells])
    readme = root / "README.md"
    if readme.exists():
        pages[readme] = _with_table(readme, [result for result in results if result.recipe])
    for folder, entries in recipes.items():
        pages[root / "recipes" / folder / "RESULTS.md"] = _recipe_page(folder, entries, results)
    for folder, entries in _recipes_by_folder(root, translating=True).items():
        page = _recipe_page(folder, entries, translations)
        pages[root / "recipes" / folder / "RESULTS.md"] = page
    return pages


def _recipes_by_folder(
    root: Path, *, translating: bool = False
) -> dict[str, list[tuple[str, str, str]]]:
    """Return (name, title, path) of every recipe of one of the two kinds, by folder."""
    folders: dict[str, list[tuple[str, str, str]]] = {}
    for path in sorted((root / "recipes").glob("*/*.yaml")):
        settings = load_yaml(path)
        if (settings.get("translation") is not None) != translating:
            continue
        entry = (str(settings["name"]), str(settings.get("title", "")), str(path.relative_to(root)))
        folders.setdefault(path.parent.name, []).append(entry)
    return folders


def _overview(
    results: Sequence[Result],
    recipes: Mapping[str, Sequence[tuple[str, str, str]]],
    cells: Sequence[Result],
    translations: Sequence[Result],
) -> str:
    rows, unlisted = [], [result for result in results if result.recipe]
    for entries in recipes.values():
        for name, _, path in entries:
            mine = [result for result in unlisted if result.recipe == name]
            unlisted = [result for result in unlisted if result.recipe != name]
            rows += [_recipe_row(result, "../") for result in mine] or [_not_run(path, name)]
    rows += [_recipe_row(result, "../") for result in unlisted]
    figures = [result for result in results if not result.recipe]
    parts = [
        "# Results",
        GENERATED,
        "Every figure is one JSON file under `results/`, written by the command that it names. "
        "CER and WER are greedy decoding unless the column says LM (n-gram beam search, tuned on "
        f"the same dev split it is shown for). {EARLIER_NOTE}",
        "## Recipes",
        _table(RECIPE_HEADER, rows) if rows else "There are no recipes.",
        "## What pretraining is worth",
        _learning(cells) if cells else "Nothing was measured yet.",
        "## What frames tell apart",
        _representation(figures) or "Nothing was measured yet.",
        "## Translation",
        translation_results.EXPLANATION,
        _translations(translations, "../") if translations else "Nothing was measured yet.",
        "## Speed, memory, time, and other figures",
        _figure_table(figures, "../") if figures else "Nothing was measured yet.",
    ]
    return "\n\n".join(parts) + "\n"


def _translations(found: Sequence[Result], up: str) -> str:
    rows = [(result.fields, _link(result, up)) for result in found]
    return translation_results.translation_table(rows, _table, _number)


def _representation(figures: Sequence[Result]) -> str:
    found = (result for result in figures if result.path.name == representation_results.NAME)
    tables = [
        representation_results.representation_table(result.fields, _table, _number)
        for result in found
    ]
    return "\n\n".join(tables)


def _learning(cells: Sequence[Result]) -> str:
    rows = [(cell.fields, _link(cell, "../")) for cell in cells]
    return learning_results.learning_tables(rows, PLOT, _table, _number)


def _with_table(readme: Path, results: Sequence[Result]) -> str:
    """Return the text of the README with the table between its two marks written anew."""
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(README_BEGIN)
    _, end, after = rest.partition(README_END)
    if not end:
        raise DataError(f"lacks the lines {README_BEGIN.strip()} and {README_END}", path=readme)
    rows = [
        [
            f"[{result.recipe}]({result.path.as_posix()}){result.fields['mark']}",
            _number(result.fields.get("label_minutes"), 1),
            *(_percent(result.fields.get(name)) for name in ("cer", "wer", "cer_lm", "wer_lm")),
            _number(result.fields.get("unlabelled_hours"), 1),
        ]
        for result in results
    ]
    table = _table(README_HEADER, rows) if rows else "No recipe was run yet."
    if any(result.fields["mark"] for result in results):
        table += f"\n\n{EARLIER_NOTE}"
    return f"{before}{begin}{table}\n{end}{after}"


def _recipe_page(
    folder: str, entries: Sequence[tuple[str, str, str]], results: Sequence[Result]
) -> str:
    parts = [f"# Results of recipes/{folder}", GENERATED]
    for name, title, path in entries:
        mine = [result for result in results if result.recipe == name]
        parts += [f"## {name}", f"{title}\n\n`speechjepa run {path}`".strip()]
        if not mine:
            parts.append(f"This recipe was {NOT_RUN}.")
            continue
        if mine[0].is_translation:
            parts.append(_translations(mine, "../../"))
            continue
        parts.append(_table(RECIPE_HEADER, [_recipe_row(result, "../../") for result in mine]))
        parts += [_provenance(result) for result in mine]
    return "\n\n".join(parts) + "\n"


def _recipe_row(result: Result, up: str) -> list[str]:
    get = result.fields.get
    return [
        f"{result.recipe}{get('mark')}",
        _number(get("label_minutes"), 1),
        str(get("split")),
        *(_percent(get(name)) for name in ("cer", "wer", "cer_lm", "wer_lm")),
        _number(get("seed")),
        _number(get("pretraining_minutes"), 1),
        _number(get("unlabelled_hours"), 1),
        _number(get("parameters"), 1, scale=1e-6),
        str(get("date")),
        _link(result, up),
    ]


def _not_run(path: str, name: str) -> list[str]:
    return [name, *["–"] * 2, NOT_RUN, *["–"] * (len(RECIPE_HEADER) - 5), f"[recipe](../{path})"]


def _provenance(result: Result) -> str:
    get = result.fields.get
    return (
        f"Seed {_number(get('seed'))}: `{get('command')}` at commit {get('commit')}, "
        f"on {get('hardware')}, {get('date')}."
    )


def _figure_table(figures: Sequence[Result], up: str) -> str:
    header = ("What", "Figure", "Unit", "Seed", "Hardware", "Command", "Commit", "Date", "File")
    rows = []
    for result in figures:
        get = result.fields.get
        rows.append(
            [
                f"{get('what')}{get('mark')}",
                _number(get("figure"), 2),
                str(get("unit")),
                _number(get("seed")),
                str(get("hardware")),
                f"`{get('command')}`",
                str(get("commit")),
                str(get("date")),
                _link(result, up),
            ]
        )
    return _table(header, rows)


def _link(result: Result, up: str) -> str:
    return f"[{result.path.name}]({up}{result.path.as_posix()})"


def _percent(value: float | None) -> str:
    return _number(value, 1, scale=100)


def _number(value: float | None, digits: int = 0, scale: float = 1) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value * scale:.{digits}f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Write the documents, or compare them; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if one differs")
    check = parser.parse_args(argv).check
    try:
        pages = documents(root)
    except SpeechJepaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    status = 0
    for path, text in pages.items():
        old = path.read_text(encoding="utf-8") if path.exists() else None
        if old == text:
            continue
        print(f"{path.relative_to(root)}: {'differs from results/' if check else 'written'}")
        if check:
            status = 1
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if status:
        print("error: run `make results` and commit what it writes", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
