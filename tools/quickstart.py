"""Run the main job end to end on synthetic speech, and show that it worked.

    python tools/quickstart.py                      what `make quickstart` runs
    python tools/quickstart.py --results results    also write results/quickstart.json

The recipe synthesises its corpus, pretrains, fine-tunes and measures; then three recordings of the
test split, of voices and texts that no stage has seen, are transcribed from the command line.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECIPE = "recipes/quickstart/asr.yaml"
INSTALLED = ROOT / ".venv" / ".installed"
"""Holds the seconds that the installation took; `make setup` writes it."""
NUM_FILES = 3


def run_speechjepa(*arguments: str) -> None:
    """Run one command of speechjepa, showing it as a user would type it.

    Raises:
        subprocess.CalledProcessError: It failed; it has said why.
    """
    print(f"\n$ speechjepa {shlex.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "speechjepa", *arguments], cwd=ROOT, check=True)


def shorten(path: Path) -> str:
    """Return a path as one types it in the repository."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def held_out(split: Path, count: int = NUM_FILES) -> list[dict[str, Any]]:
    """Return some transcribed utterances of a split, of different voices where there are any."""
    lines = (split / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row.get("text")]
    chosen: dict[str, dict[str, Any]] = {}
    for row in rows:
        chosen.setdefault(str(row.get("speaker")), row)
    first_of_each = list(chosen.values())
    return (first_of_each + [row for row in rows if row not in first_of_each])[:count]


def show(files: Sequence[Path], references: Sequence[str], folder: Path) -> None:
    """Print what was said in each file, and what was heard."""
    print()
    for file, said in zip(files, references, strict=True):
        result = json.loads((folder / f"{file.stem}.json").read_text(encoding="utf-8"))
        print(f"{file.name}\n  said   {said}\n  heard  {result['text'].strip()}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run everything; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-root", type=Path, default=Path("data"), metavar="DIR")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/quickstart"), metavar="DIR")
    parser.add_argument("--results", type=Path, metavar="DIR", help="also write what it took here")
    parser.add_argument("settings", nargs="*", metavar="key.sub=value", help="for a shorter trial")
    args = parser.parse_args(argv)
    begin = time.monotonic()
    data, run_dir = ROOT / args.data_root, ROOT / args.run_dir
    shown_run = shorten(run_dir)
    where = ["--data-root", str(args.data_root), "-o", shown_run]
    kept = [] if args.results is None else ["--results", str(args.results)]
    try:
        run_speechjepa("run", RECIPE, *args.settings, *where, *kept)
        rows = held_out(data / "quickstart" / "test")
        files = [data / "quickstart" / "test" / row["file_name"] for row in rows]
        out = run_dir / "transcripts"
        names = [shorten(file) for file in files]
        formats = ["-o", shorten(out), "-f", "json,srt", "--overwrite"]
        run_speechjepa("transcribe", *names, "--model", shown_run, *formats, "--word_timestamps")
    except subprocess.CalledProcessError as error:
        return int(error.returncode)
    show(files, [row["text"] for row in rows], out)
    results = json.loads((run_dir / "evaluate" / "results.json").read_text(encoding="utf-8"))
    minutes = (time.monotonic() - begin) / 60
    install = float(INSTALLED.read_text().strip() or 0) / 60 if INSTALLED.exists() else 0.0
    print(f"\nheld-out voices:  {rates(results)}")
    print(f"report:           {shown_run}/report.html")
    print(f"time:             {minutes:.1f} min, after {install:.1f} min of installation")
    if args.results is not None:
        record(args.results, install + minutes, results, install)
    return 0


def rates(results: dict[str, Any]) -> str:
    """Say the error rates in words."""
    text = f"CER {results['cer']:.1%}, WER {results['wer']:.1%}"
    if results.get("cer_lm") is not None:
        text += (
            f"; with the language model CER {results['cer_lm']:.1%}, WER {results['wer_lm']:.1%}"
        )
    return text


def record(folder: Path, minutes: float, results: dict[str, Any], install: float) -> None:
    """Write how long it all took."""
    from speechjepa.workflow.record import make_record, write_json

    content = make_record(
        what="make quickstart, from a fresh clone to the printed CER, installation included",
        figure=round(minutes, 1),
        unit="min",
        command="make quickstart QUICKSTART_ARGS='--results results'",
        seed=0,
        installation_minutes=round(install, 1),
        cer=results["cer"],
        cer_lm=results.get("cer_lm"),
    )
    write_json(ROOT / folder / "quickstart.json", content)


if __name__ == "__main__":
    sys.exit(main())
