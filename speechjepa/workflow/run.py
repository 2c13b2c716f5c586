"""Run stages in order, skip those whose inputs have not changed, and survive being stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from speechjepa.config import to_dict
from speechjepa.errors import ConfigError, DataError, SpeechJepaError
from speechjepa.inference.output_folder import prepare_folder
from speechjepa.workflow.record import write_json

logger = logging.getLogger(__name__)

STATE_FILE = "state.json"
LOCK_FILE = ".lock"
RUN_FILES = ("recipe.yaml", "labels.txt", "check.json", "skipped.jsonl", "report.html")
"""Written into the run folder itself, so not into one that holds the user's own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a run: what it depends on, what it writes, and the function that does it."""

    name: str
    inputs: Callable[[], dict[str, Any]]
    """Everything that its output depends on, as JSON and settings; asked just before the stage.

    Settings are given as their dataclass: a stage that is done stays done when a later version of
    the package adds one, while that has its default."""
    action: Callable[[], dict[str, Any] | None]
    """Does the work, going on from whatever an interrupted call left; returns figures to keep."""
    outputs: tuple[str, ...] = ()
    """Files and folders that it writes, relative to the run folder."""
    after: tuple[str, ...] = ()
    """Stages whose output it reads; it is redone whenever one of them was."""
    is_shared: bool = False
    """Its folder is copied from another run beside this one that had the very same inputs."""


@dataclasses.dataclass
class StageState:
    """What `state.json` remembers of one stage."""

    fingerprint: str
    """SHA-256 of the inputs and of the fingerprints of the stages before it."""
    inputs: dict[str, Any]
    status: str = "started"
    """started | failed | done."""
    minutes: float = 0.0
    """Time spent in it, all attempts together."""
    times: int = 0
    """How often it was brought to its end; later stages are redone when this grows."""
    date: str = ""
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)


class StoppedRun(KeyboardInterrupt):
    """Ctrl-C during a stage; the run folder can be continued.

    Args:
        stage: The stage that was interrupted.
        minutes: Time it has taken so far.
    """

    def __init__(self, stage: str, minutes: float) -> None:
        super().__init__(stage)
        self.stage = stage
        self.minutes = minutes


def run_stages(
    stages: Sequence[Stage],
    run_dir: Path,
    *,
    redo: Sequence[str] = (),
    begin: Callable[[], None] = lambda: None,
) -> dict[str, StageState]:
    """Run the stages that need it, in order.

    A stage is skipped when it is done, its inputs and those of the stages before it have not
    changed, and its outputs are there. When they have changed, what it wrote earlier is moved
    aside (`pretrain` becomes `pretrain.1`) and it runs afresh. One that was interrupted goes on.

    Args:
        stages: In order; `after` may only name earlier ones.
        run_dir: The run folder; made if absent.
        redo: Stages to run again in any case.
        begin: Called before the stages, once no other process can use the folder.

    Returns:
        The state of every stage by name.

    Raises:
        StoppedRun: Ctrl-C; calling again with the same stages continues.
        ConfigError: `redo` names no stage, another process is using the folder, or it holds
            files of the user's, or nothing can be written to it.
    """
    names = [stage.name for stage in stages]
    for name in redo:
        if name not in names:
            raise ConfigError(f"there is no stage '{name}' to redo; there are: {', '.join(names)}")
    prepare_folder(run_dir, "a run")
    if _is_helper():
        # Lightning started this process with the same command, to take part in one stage.
        _join_stage(stages, load_state(run_dir))
    with _exclusive(run_dir):
        begin()
        states = load_state(run_dir)
        for stage in stages:
            _run_stage(stage, run_dir, states, forced=stage.name in redo)
    return {name: states[name] for name in names}


def _is_helper() -> bool:
    return int(os.environ.get("LOCAL_RANK", "0")) > 0


def _join_stage(stages: Sequence[Stage], states: dict[str, StageState]) -> NoReturn:
    for stage in stages:
        state = states.get(stage.name)
        if state is not None and state.status == "started":
            stage.inputs()
            stage.action()
            break
    raise SystemExit(0)


def _run_stage(stage: Stage, run_dir: Path, states: dict[str, StageState], *, forced: bool) -> None:
    given = stage.inputs()
    inputs = json.loads(json.dumps(to_dict(given), sort_keys=True))
    upstream = {
        name: [states[name].fingerprint, states[name].times]
        for name in stage.after
        if name in states
    }
    old = states.get(stage.name)
    missing = [name for name in stage.outputs if not (run_dir / name).exists()]
    if old is not None and old.status == "done" and not missing and not forced:
        known = _as_known(given, inputs, old.inputs)
        if digest([known, upstream]) == old.fingerprint:
            inputs = known
    fingerprint = digest([inputs, upstream])
    if old is not None and old.fingerprint == fingerprint and not forced:
        if old.status == "done" and not missing:
            logger.info(
                "%s: unchanged, not redone (%.1f min on %s)", stage.name, old.minutes, old.date
            )
            return
        if old.status == "done":
            logger.info("%s: redone, because %s is missing", stage.name, ", ".join(missing))
        else:
            logger.info("%s: going on after %.1f min", stage.name, old.minutes)
        state = dataclasses.replace(old, status="started")
    else:
        reason = "as asked" if forced else _what_changed(old, inputs)
        aside = move_aside(run_dir, stage)
        times = old.times if old is not None else 0
        state = StageState(fingerprint=fingerprint, inputs=inputs, times=times)
        twin = _twin(stage, run_dir, fingerprint) if stage.is_shared and not forced else None
        if twin is not None:
            source, made = twin
            ignore = shutil.ignore_patterns("checkpoints", "tensorboard")
            shutil.copytree(source / stage.name, run_dir / stage.name, ignore=ignore)
            states[stage.name] = dataclasses.replace(made, times=times + 1)
            save_state(run_dir, states)
            logger.info("%s: not redone, taken from %s (same inputs)", stage.name, source)
            return
        if old is not None or aside:
            kept = f"; the earlier output is kept in {aside}" if aside else ""
            logger.info("%s: redone, %s%s", stage.name, reason, kept)
        else:
            logger.info("%s: begins", stage.name)
    states[stage.name] = state
    state.date = datetime.now(UTC).date().isoformat()
    save_state(run_dir, states)
    _perform(stage, run_dir, states)


def _perform(stage: Stage, run_dir: Path, states: dict[str, StageState]) -> None:
    state = states[stage.name]
    before = state.minutes
    begin = time.monotonic()
    try:
        figures = stage.action()
    except BaseException as error:
        state.minutes = before + (time.monotonic() - begin) / 60
        state.status = "failed" if isinstance(error, Exception) else "started"
        save_state(run_dir, states)
        if _is_interrupt(error):
            raise StoppedRun(stage.name, state.minutes) from error
        if isinstance(error, SpeechJepaError):
            logger.error("%s: failed after %.1f min", stage.name, state.minutes)
        raise
    state.minutes = before + (time.monotonic() - begin) / 60
    state.status, state.figures = "done", figures or {}
    absent = [name for name in stage.outputs if not (run_dir / name).exists()]
    if absent:
        state.status = "failed"
    state.times += 1
    save_state(run_dir, states)
    if absent:
        raise DataError(
            f"the stage '{stage.name}' ended without writing {', '.join(absent)}", path=run_dir
        )
    logger.info("%s: done in %.1f min", stage.name, state.minutes)


def _is_interrupt(error: BaseException) -> bool:
    # Lightning turns Ctrl-C into SystemExit after it has saved what it holds.
    return isinstance(error, KeyboardInterrupt) or (
        isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt)
    )


def _as_known(given: Any, now: Any, before: Any) -> Any:
    """Leave out of `now` the settings that `before` does not know and that have their default.

    Args:
        given: Settings, or a mapping that holds some.
        now: The same as JSON.
        before: What a stage that is done kept of them, also as JSON.
    """
    if not isinstance(now, dict) or not isinstance(before, dict):
        return now
    defaults = _defaults(given)
    below = given if isinstance(given, Mapping) else vars(given)
    return {
        key: _as_known(below[key], value, before[key]) if key in before else value
        for key, value in now.items()
        if key in before or key not in defaults or value != defaults[key]
    }


def _defaults(settings: Any) -> dict[str, Any]:
    """Return the defaults of a dataclass as JSON; a mapping has none."""
    if not dataclasses.is_dataclass(settings):
        return {}
    found: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        if field.default is not dataclasses.MISSING:
            found[field.name] = to_dict(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = to_dict(field.default_factory())
    return found


def _what_changed(old: StageState | None, inputs: dict[str, Any]) -> str:
    if old is None:
        return "because nothing is known about what is there"
    changes = ", ".join(dict.fromkeys(_changes("", old.inputs, inputs)))
    return f"because of a change in {changes}" if changes else "because a stage before it was"


def _changes(path: str, before: Any, now: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            below = f"{path}.{key}" if path else key
            yield from _changes(below, before.get(key), now.get(key))
    elif before != now:
        named = path.endswith("digest") or isinstance(before, dict) or isinstance(now, dict)
        yield path.removesuffix(".digest") if named else f"{path} {before!r} -> {now!r}"


def _twin(stage: Stage, run_dir: Path, fingerprint: str) -> tuple[Path, StageState] | None:
    for path in sorted(run_dir.parent.glob(f"*/{STATE_FILE}")):
        if path.parent == run_dir:
            continue
        try:
            made = load_state(path.parent).get(stage.name)
        except DataError as error:
            logger.warning("not looked at: %s", error)
            continue
        if made is None or (made.status, made.fingerprint) != ("done", fingerprint):
            continue
        if all((path.parent / name).exists() for name in stage.outputs):
            return path.parent, made
    return None


def move_aside(run_dir: Path, stage: Stage) -> str:
    """Rename what a stage wrote earlier to the first free `<stage>.<n>`, and return that name.

    Returns "" where there is nothing to keep.
    """
    present = [name for name in stage.outputs if (run_dir / name).exists()]
    # The stage's folder may hold checkpoints before any of its outputs is complete.
    folder = run_dir / stage.name
    owns_folder = any(Path(name).parts[0] == stage.name for name in stage.outputs)
    if not present and not (owns_folder and folder.exists()):
        return ""
    number = 1
    while (run_dir / f"{stage.name}.{number}").exists():
        number += 1
    aside = run_dir / f"{stage.name}.{number}"
    if owns_folder and folder.exists():
        os.rename(folder, aside)
    for name in present:
        if (run_dir / name).exists():  # not inside the folder that was just renamed
            aside.mkdir(exist_ok=True)
            os.rename(run_dir / name, aside / Path(name).name)
    return aside.name


def forget_stage(run_dir: Path, name: str, outputs: tuple[str, ...]) -> None:
    """Move aside what a stage wrote that the run no longer has."""
    states = load_state(run_dir)
    if states.pop(name, None) is not None:
        aside = move_aside(run_dir, Stage(name=name, inputs=dict, action=dict, outputs=outputs))
        save_state(run_dir, states)
        logger.info("%s: no longer part of the run; what it wrote is kept in %s", name, aside)


# ---------------------------------------------------------------------------------------------
# state.json


def load_state(run_dir: Path) -> dict[str, StageState]:
    """Read what the run folder remembers; empty for a new one."""
    path = run_dir / STATE_FILE
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: StageState(**entry) for name, entry in content["stages"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"is damaged ({error}); move it away to begin the run afresh", path=path
        ) from error


def save_state(run_dir: Path, states: dict[str, StageState]) -> None:
    """Write `state.json` in one go."""
    stages = {name: dataclasses.asdict(state) for name, state in states.items()}
    write_json(run_dir / STATE_FILE, {"format_version": 1, "stages": stages})


def digest(content: Any) -> str:
    """Return the SHA-256 of JSON content, the same for the same content in any key order."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    # Names of files that are not UTF-8 hold what cannot be encoded.
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


@contextlib.contextmanager
def _exclusive(run_dir: Path) -> Iterator[None]:
    """Hold the run folder; the system lets go of it however the process ends."""
    if not any((run_dir / name).exists() for name in (STATE_FILE, LOCK_FILE)):
        for path in filter(Path.exists, map(run_dir.joinpath, RUN_FILES)):
            raise ConfigError(f"{path} is not of a run; give another run folder with -o")
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with open(run_dir / LOCK_FILE, "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another process is running in {run_dir}; wait for it, or give another run "
                "folder with -o"
            ) from error
        yield
