import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open

from speechjepa.nn import tensor_files
from speechjepa.nn.tensor_files import save_tensors

SOURCES = Path(__file__).parents[2] / "speechjepa"


@pytest.fixture(params=[0o022, 0o007])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_file_of_tensors_has_the_rights_of_any_new_file(umask, tmp_path):
    path = tmp_path / "model.safetensors"
    save_tensors({"a": torch.ones(2)}, path, metadata={"of": "test"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    with safe_open(path, "pt") as file:
        assert file.get_tensor("a").tolist() == [1, 1]
        assert file.metadata() == {"of": "test"}


def test_every_file_of_tensors_is_written_that_way():
    writers = [p.name for p in SOURCES.rglob("*.py") if "save_file" in p.read_text("utf-8")]
    assert writers == ["tensor_files.py"]


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path, monkeypatch):
    def no_space(tensors, path, metadata):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(tensor_files, "save_file", no_space)
    with pytest.raises(OSError, match=r"a\.safetensors: cannot be written: .*No space left"):
        save_tensors({"a": torch.ones(2)}, tmp_path / "a.safetensors")
