"""Write files of tensors that others may read."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(
    tensors: Mapping[str, Tensor],
    path: str | PathLike[str],
    metadata: dict[str, str] | None = None,
) -> None:
    """Write a .safetensors file with the rights that any new file gets here, as the umask says.

    safetensors itself writes for the owner alone (0600), and a model in a shared folder could not
    be read by the others. The umask is not asked for but seen in an empty file: asking sets it, for
    the other threads too.

    Raises:
        OSError: It cannot be written, for example because the disk is full.
    """
    path = Path(path)
    path.touch()
    mode = path.stat().st_mode & 0o777
    try:
        save_file(dict(tensors), path, metadata=metadata)
    except SafetensorError as error:
        raise OSError(f"{path}: cannot be written: {error}") from error
    path.chmod(mode)
