from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tracer.serving import Served, Watch


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A directory with a short name: the path of a unix socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="rayscope-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def served(place: Path) -> Iterator[Served]:
    """One tracer for all tests that need nothing special of it."""
    with Served(place / "tracer.sock") as tracer:
        yield tracer


@pytest.fixture
def watch(served: Served) -> Watch:
    """A client that has polled once."""
    return Watch(served)
