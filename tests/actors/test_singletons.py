"""There is one aggregator, whoever else thinks so too; and what was stopped half-way is started anew."""

from __future__ import annotations

import pytest
from ray.util import list_named_actors

from actors import deploy
from actors.aggregator import Aggregator
from actors.calls import Peer
from actors.deploy import end, ensure
from actors.options import AGGREGATOR, GROUPS, INGEST, QUERY, SINGLETON, SUPERVISOR
from tests.actors.conftest import Running
from tests.actors.waiting import ended, wait_for
from tests.traffic import Traffic

pytestmark = pytest.mark.ray


def fence(running: Running) -> int:
    """The number of the aggregator that answers."""
    return int(running.peer(AGGREGATOR).call("status", group=QUERY)["fence"])


def test_of_two_aggregators_only_the_one_that_has_the_store_goes_on(running: Running) -> None:
    with Traffic(seed=8) as traffic:
        wait_for(lambda: running.seen(traffic) > 20)
        first, before = running.pid(AGGREGATOR), fence(running)
        try:
            ensure(Aggregator, {**SINGLETON, "name": "rival", "max_restarts": 0}, GROUPS[AGGREGATOR], (running.settings,))
            rival = wait_for(lambda: Peer("rival").call("status", group=QUERY)["pid"])
            wait_for(lambda: ended(first))  # its next commit was refused: the rival has raised the fence
            wait_for(lambda: fence(running) >= before + 2)  # Ray has started it again, which raised the fence once more
            Peer("rival").call("hello", "nobody", 1, group=INGEST)  # something to commit
            wait_for(lambda: ended(rival))
        finally:
            end("rival")
        traffic.stop()
        running.assert_totals(traffic)


def test_what_was_stopped_and_not_taken_down_is_started_anew(running: Running) -> None:
    before = running.pid(SUPERVISOR)
    assert running.peer(SUPERVISOR).call("stop", 10.0, group=QUERY, timeout=30.0)
    deploy.deploy(str(running.store), running.socket, running.settings)
    assert running.pid(SUPERVISOR) != before
    with Traffic(seed=9) as traffic:
        wait_for(lambda: running.peer(AGGREGATOR).call("status", group=QUERY)["nodes_covered"] >= 1)
        wait_for(lambda: running.seen(traffic) > 20)
    assert "rival" not in list_named_actors()
