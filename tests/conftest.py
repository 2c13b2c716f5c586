"""What every test needs: nothing that it does to the process outlives it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Take back what the command line sets up, or later tests would see its lines on stderr."""
    logger = logging.getLogger("speechjepa")
    level, handlers = logger.level, list(logger.handlers)
    yield
    logger.setLevel(level)
    logger.handlers[:] = handlers
