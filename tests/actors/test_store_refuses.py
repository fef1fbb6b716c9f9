"""A store that refuses stops nothing: it is said, ingest goes on, and all is there when it takes again."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Iterator

import pytest

from actors.options import AGGREGATOR, QUERY, STORAGE_WRITER
from cluster.core.query import Filter
from tests.actors.conftest import Running
from tests.actors.waiting import wait_for
from tests.traffic import Traffic

pytestmark = pytest.mark.ray
LIMIT = 40_000  # bytes of a file: less than a store has


@contextlib.contextmanager
def full_disk(pid: int) -> Iterator[None]:
    """No file of this process may grow beyond LIMIT: to SQLite that is a full disk (EFBIG)."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def refusal(running: Running) -> str:
    """What the aggregator says of the store."""
    return str(running.peer(AGGREGATOR).call("status", group=QUERY)["store_error"])


def shown(running: Running, traffic: Traffic) -> int:
    """How many transactions of this traffic the aggregator has."""
    return len(running.peer(AGGREGATOR).call("transactions", Filter(port=traffic.port), "key", None, group=QUERY))


def test_a_full_disk_is_said_and_mended(running: Running) -> None:
    with Traffic(seed=3) as traffic:
        wait_for(lambda: running.seen(traffic) > 20)
        with full_disk(running.pid(STORAGE_WRITER)):
            assert str(running.store) in wait_for(lambda: refusal(running))
            before = shown(running, traffic)
            wait_for(lambda: shown(running, traffic) > before + 20)  # ingest goes on
            assert refusal(running)
        wait_for(lambda: not refusal(running))
        traffic.stop()
        running.assert_totals(traffic)


def test_an_aggregator_that_dies_while_the_disk_is_full_loses_nothing(running: Running) -> None:
    with Traffic(seed=4) as traffic:
        wait_for(lambda: running.seen(traffic) > 20)
        with full_disk(running.pid(STORAGE_WRITER)):
            wait_for(lambda: refusal(running))
            before = shown(running, traffic)
            wait_for(lambda: shown(running, traffic) > before + 20)
            os.kill(running.pid(AGGREGATOR), signal.SIGKILL)
        wait_for(lambda: not refusal(running))
        traffic.stop()
        running.assert_totals(traffic)
