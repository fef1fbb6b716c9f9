"""A writer that is killed leaves a whole number of commits, and the store free for the next."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.core.errors import StoreBusy
from cluster.stores.sqlite import SqliteStore, read_only
from tests.stores.writer import check


@contextmanager
def writing(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-m", "tests.stores.writer", str(path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def acknowledged(process: subprocess.Popen[str], count: int) -> int:
    """The number of the `count`-th line from now."""
    assert process.stdout is not None
    number = -1
    for _ in range(count):
        number = int(process.stdout.readline())
    return number


def test_kill_at_random_moments_leaves_a_prefix(tmp_path: Path) -> None:
    path, chance = tmp_path / "rayscope.db", random.Random(7)
    for _ in range(8):
        with writing(path) as process:
            seen = acknowledged(process, chance.randint(1, 40))
            time.sleep(chance.random() / 100)  # a random moment within a commit; nothing depends on its length
            process.kill()
            assert process.stdout is not None
            seen = max([seen, *map(int, process.stdout.read().split())])
            process.wait()
        assert check(read_only(path)) in (seen, seen + 1)
    store = SqliteStore(path)
    assert store.open().fence == 9
    store.close()


def test_the_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "rayscope.db"
    store = SqliteStore(path)
    with writing(path) as process:
        acknowledged(process, 1)
        with pytest.raises(StoreBusy, match=rf"another rayscope has the store open \(pid {process.pid}\)\. End it"):
            store.open()
        process.kill()
        process.wait()
        assert store.open().fence == 2
    store.close()
