"""No total ever wraps: what no socket can count is refused, and a sum that grows beyond its limit stops there."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.core import query
from cluster.core.aggregate import AggregateLimits
from cluster.core.checkpoint import VIEW
from cluster.core.completeness import status
from cluster.core.edges import TOTAL_LIMIT
from cluster.core.history import History
from cluster.core.records import COUNTER_LIMIT, Flag
from tests.core.stream import AT, Talk, opened

MANY = 40  # rows of COUNTER_LIMIT bytes: together more than 64 bits
CLOSED = int(Flag.CLOSED)


def begun(*, held: int = 1_000, rows: int = MANY, remote: int = 2) -> Talk:
    talk = Talk(AggregateLimits(rows=held))
    talk.greet()
    talk.ok(0, opened=[opened(slot, sent=COUNTER_LIMIT, recv=1, remote=remote) for slot in range(rows)])
    return talk


def sent(talk: Talk, name: str = "sent") -> list[int]:
    return [dict(zip(VIEW, edge.views[0], strict=True))[name] for edge in talk.aggregate.snapshot().edges.values() if edge.client]


@pytest.mark.parametrize("name", ["sent", "recv"])
@pytest.mark.parametrize("section", ["opened", "changed"])
def test_a_counter_that_no_socket_can_have_is_refused(section: str, name: str) -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0, opened=[opened(0)])
    row = opened(1, **{name: COUNTER_LIMIT + 1}) if section == "opened" else {"id": 0, name: 2**64 - 1}
    answer = talk.say(1, **{section: [row]})
    assert (answer.verdict, answer.reason.split(":")[1:2]) == ("refused", [f" {section}"])
    assert f"{name} of" in answer.reason
    talk.ok(1, changed=[{"id": 0, name: COUNTER_LIMIT}])


def test_an_edge_stops_at_its_limit_and_is_counted() -> None:
    talk = begun()
    assert sent(talk) == sent(talk, "exported_sent") == [TOTAL_LIMIT]
    assert sent(talk, "recv") == [MANY]
    assert status(talk.aggregate.snapshot(), AT)["saturated"] == 1
    talk.ok(1, changed=[{"id": slot, "sent": COUNTER_LIMIT, "recv": 3} for slot in range(MANY)])
    talk.ok(2, changed=[{"id": slot, "sent": 5, "recv": 1, "generation": 1} for slot in range(MANY)])
    assert sent(talk) == [TOTAL_LIMIT]
    assert sent(talk, "recv") == [MANY * 4]
    talk.commit()
    talk.start()
    assert sent(talk) == sent(talk, "exported_sent") == [TOTAL_LIMIT]


def test_a_full_edge_stays_full_where_its_rows_move_away() -> None:
    talk = begun()
    talk.ok(1, attributed=[{"id": slot, "pid": 7, "local": 3, "remote": 2, "role": 1} for slot in range(MANY)])
    assert sent(talk) == sent(talk, "exported_sent")[:1] * 2 == [TOTAL_LIMIT] * 2
    talk.ok(2, changed=[{"id": slot, "sent": 5, "recv": 1, "generation": 1} for slot in range(MANY)])
    assert sent(talk) == [TOTAL_LIMIT] * 2


@pytest.mark.parametrize("per_sequence", [1, 5])
def test_an_edge_below_its_limit_is_exact(per_sequence: int) -> None:
    talk = begun(rows=3)
    for number in range(1, 6):
        rows = [opened(5 * number + index, sent=2**55 + 1, recv=1, remote=2) for index in range(per_sequence)]
        talk.ok(number, opened=rows)
    assert sent(talk) == [3 * COUNTER_LIMIT + 5 * per_sequence * (2**55 + 1)]


def test_the_generations_of_a_row_stop_at_the_limit() -> None:
    talk = begun(rows=1)
    for number in range(1, 20):
        talk.ok(number, changed=[{"id": 0, "sent": COUNTER_LIMIT, "retransmits": 2**32 - 1, "generation": number}])
    (row,) = query.transactions(talk.aggregate.snapshot())
    assert (row["total_sent_bytes"], row["total_retransmits"]) == (2 * COUNTER_LIMIT, 2 * (2**32 - 1))
    talk.greet(stream=2)
    talk.ok(0, opened=[opened(0, sent=1, cookie=100)])
    (row,) = query.transactions(talk.aggregate.snapshot())
    assert row["total_sent_bytes"] == COUNTER_LIMIT + 1


def test_a_fold_row_stops_at_the_limit() -> None:
    talk = begun(held=2)
    for number in range(1, 4):
        talk.ok(number, closed=[{"id": slot, "flags": CLOSED} for slot in range((number - 1) * 10, number * 10)])
        talk.commit()
    talk.commit()
    (fold,) = (row for row in query.transactions(talk.aggregate.snapshot()) if row["folded"])
    assert (fold["total_sent_bytes"], fold["total_recv_bytes"]) == (COUNTER_LIMIT, 30)
    assert talk.store.read_only().rows.columns["sent"].max() == COUNTER_LIMIT


def test_what_a_collector_carries_over_stops_at_the_limit() -> None:
    history = History(1)
    for number in range(1, 50):
        ended = {"sent": np.array([COUNTER_LIMIT]), "recv": np.array([1]), "retransmits": np.array([2**32 - 1])}
        history.ended(number, np.array([3]), ended)
    sums = history.since(9, 5)
    assert {name: column[3] for name, column in sums.items()} == {
        "generations": 40,
        "sent": COUNTER_LIMIT,
        "recv": 40,
        "retransmits": 2**32 - 1,
    }
