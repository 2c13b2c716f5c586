"""Files of tensors that others wrote, read so that nothing in them is executed."""

from __future__ import annotations

import json
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from speechjepa.errors import ModelError

CHECKPOINT_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
"""What the name of a file of tensors ends with."""
KNOWN_CLASSES = ("argparse.Namespace", "fairseq.", "numpy.", "omegaconf.", "typing.")
"""Beginnings of the classes that training programs of this family store their settings with."""
KNOWN_TYPES = frozenset(
    [
        *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "str", "tuple")),
        *(f"__builtin__.{name}" for name in ("bool", "dict", "float", "int", "list", "long")),
        *("__builtin__.str", "__builtin__.tuple", "__builtin__.unicode"),
        *("collections.defaultdict", "_operator.getitem", "operator.getitem"),
    ]
)
"""What omegaconf notes the types of settings with, under the names of Python 3 and Python 2."""
MAX_PICKLE = 1 << 28
"""Bytes of the description of a checkpoint, its tensors aside; real ones have a few megabytes."""


class StandIn:
    """What becomes of an object of a class that is not imported: its values, and nothing done."""

    values: dict[Any, Any]

    def __new__(cls, *_: Any) -> StandIn:
        self = super().__new__(cls)
        self.values = {}
        return self

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.values = state


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file that holds tensors and nothing else.

    Raises:
        ModelError: It cannot be read, or holds more than tensors.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path}: the weights cannot be read: {error}") from error
    return require_tensors(_load(path), path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what a training program saved: tensors, and settings as plain values or `StandIn`s.

    torch reads it with `weights_only=True`, which makes nothing but tensors and plain values.
    Settings of fairseq are objects of argparse, omegaconf and fairseq itself; where such a name
    stands, a `StandIn` is made instead, whose whole behaviour is to keep what it is given. No class
    of that name is looked up or imported, so nothing of theirs can run. Any other name is refused.

    Raises:
        ModelError: It cannot be read, or holds what is neither.
    """
    if path.suffix == ".safetensors":
        return dict(read_tensors(path))
    known = KNOWN_TYPES.union(n for n in _class_names(path) if n.startswith(KNOWN_CLASSES))
    with torch.serialization.safe_globals([(StandIn, name) for name in sorted(known)]):
        content = _load(path)
    if not isinstance(content, dict):
        raise ModelError(
            f"{path}: must hold tensors by name, but holds a {type(content).__name__} instead"
        )
    return content


def require_tensors(content: Any, where: Path | str) -> dict[str, Tensor]:
    """Return a state by name, after checking that each value is a tensor that is really there."""
    if not isinstance(content, Mapping):
        raise ModelError(
            f"{where}: must hold tensors by name, but holds a {type(content).__name__} instead"
        )
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ModelError(
                f"{where}: holds more than tensors: {name!r} is a {type(tensor).__name__}"
            )
        is_plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
        if not is_plain or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise ModelError(f"{where}: the values of {name} are not all in the file")
    return cast(dict[str, Tensor], dict(content))


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        ModelError: There is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: must hold one JSON object")
    return content


def _load(path: Path) -> Any:
    _refuse_what_swells(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{path}: the weights cannot be read: {error}") from error
    except Exception as error:  # torch raises UnpicklingError, RuntimeError, EOFError, ...
        foreign = [name for name in _class_names(path) if not _is_torch(name)]
        if foreign:
            raise ModelError(
                f"{path}: holds more than tensors, and is not read: it asks for "
                f"{', '.join(foreign[:5])}. If you trust the file, save its weights alone, in a "
                "container without network: "
                "`torch.save(torch.load(FILE, weights_only=False)['model'], 'weights.pt')`"
            ) from error
        raise ModelError(
            f"{path}: is damaged, or holds more than tensors; copy or download it again "
            f"(torch says: {_reason(error)})"
        ) from error


def _refuse_what_swells(path: Path) -> None:
    """Refuse an archive that would unpack to more than it is: torch stores without compression."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(member.file_size for member in archive.infolist())
            if size > path.stat().st_size:
                raise ModelError(f"{path}: is damaged: it would unpack to {size / 1e6:.0f} MB")
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: the weights cannot be read: {error}") from error


def _is_torch(name: str) -> bool:
    known = ("torch.", "collections.OrderedDict", *KNOWN_CLASSES)
    return name in KNOWN_TYPES or name.startswith(known)


def _class_names(path: Path) -> list[str]:
    """Return the names of the classes and functions that a pickle mentions, without unpickling."""
    names: dict[str, None] = {}
    try:
        with path.open("rb") as file:
            for stream in _pickles(file):
                for code, argument, position in pickletools.genops(stream):
                    if code.name == "GLOBAL":
                        names[str(argument).replace(" ", ".")] = None
                    if (position or 0) > MAX_PICKLE:
                        break
    except Exception:  # whatever is wrong with the file, torch says when it reads it
        return list(names)
    return list(names)


def _pickles(file: IO[bytes]) -> Iterator[IO[bytes]]:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if name.endswith("/data.pkl"):
                    with archive.open(name) as member:
                        yield member
        return
    file.seek(0)
    for _ in range(4):  # files from before torch 1.6: magic number, version, system, content
        yield file


def _reason(error: Exception) -> str:
    """Return what is wrong in a line, without torch's advice to trust the file."""
    text = str(error).strip() or type(error).__name__
    found = re.search(r"WeightsUnpickler error: (.*)", text)
    return (found[1] if found else text.partition("\n")[0])[:200]
