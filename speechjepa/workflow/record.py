"""One measured figure as a JSON file: what, how much, by which command, commit and machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import speechjepa

SOURCES = ("speechjepa", "recipes/*.yaml", "tools/*.py")
"""What a figure depends on, as git names it; `make_results.py` writes into other files."""


def hardware() -> str:
    """Name the machine: processor, its vector instructions, cores that may be used, memory,
    accelerators."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # Processors of one name differ threefold by these.
    vectors = torch.backends.cpu.get_cpu_capability()
    if {"avx512_bf16", "amx_bf16"} & set(_cpuinfo("flags").split()):
        vectors += " with bfloat16"
    parts = [f"{cores} cores of {_processor()}", vectors]
    if hasattr(os, "sysconf"):  # not on Windows
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        parts.append(f"{memory / 2**30:.0f} GiB memory")
    return ", ".join([*parts, *_accelerators()])


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(field: str) -> str:
    """Return what Linux says of the first processor, or nothing."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    found = (line.partition(":")[2].strip() for line in lines if line.startswith(field))
    return next(found, "")


def _accelerators() -> list[str]:
    import torch

    if not torch.cuda.is_available():
        return []
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return [f"{names.count(name)} x {name}" for name in dict.fromkeys(names)]


def commit() -> str:
    """Return the git commit of source and recipes (`+changes` if they differ), or the version."""
    root = Path(speechjepa.__file__).resolve().parent.parent
    version = f"speechjepa {speechjepa.__version__}"
    if not (root / ".git").exists():
        return version
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        tracked = ("--porcelain", "--untracked-files=no", "--", *SOURCES)
        changes = _git(root, "status", *tracked)
    except (OSError, subprocess.CalledProcessError):  # no git, or a checkout it does not trust
        return version
    return head + ("+changes" if changes else "")


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def make_record(
    *, what: str, figure: float | None, unit: str, command: str, seed: int | None, **fields: Any
) -> dict[str, Any]:
    """Put a measured figure together with everything needed to measure it again.

    Args:
        what: What was measured, in words.
        figure: The figure, in `unit`.
        unit: Its unit, for example "% CER" or "s of audio per s".
        command: The command that measures it.
        seed: The random seed, or None where nothing is random.
        fields: Further keys of the record.
    """
    record: dict[str, Any] = {"what": what, "figure": figure, "unit": unit, **fields}
    record |= {"command": command, "commit": commit(), "seed": seed, "hardware": hardware()}
    return record | {"date": datetime.now(UTC).date().isoformat()}


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
