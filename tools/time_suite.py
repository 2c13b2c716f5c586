"""Time the test suite as `make test` runs it, and write the figure to results/suite.json.

python tools/time_suite.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from speechjepa.workflow.record import make_record, write_json

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run pytest; return its exit status."""
    started = time.perf_counter()
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile"],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    minutes = (time.perf_counter() - started) / 60
    summary = found.stdout.strip().splitlines()[-1]
    print(summary)
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped)", summary)}
    record = make_record(
        what="the test suite", figure=round(minutes, 1), unit="min",
        command="python tools/time_suite.py", seed=None, **counts,
    )  # fmt: skip
    if found.returncode == 0:
        write_json(ROOT / "results" / "suite.json", record)
    return found.returncode


if __name__ == "__main__":
    sys.exit(main())
