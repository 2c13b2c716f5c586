"""What the tests of translation share."""

from __future__ import annotations

import numpy as np
import pytest

from speechjepa.data.synthetic.espeak import synthesise
from speechjepa.inference.model import load
from tests.translation_bundle import bundle


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """One that translates into units, speaks them and writes text."""
    return load(bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """(S,) at 16 kHz."""
    return synthesise("uno dos tres cuatro cinco", "es").waveform
