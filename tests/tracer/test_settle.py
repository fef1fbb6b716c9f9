"""The rules for FINs, owners and directions, on rows made by hand: the kernel cannot be made to show every order of things."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from cluster.core.records import pack_address
from cluster.tracer.discovery import Namespaces
from cluster.tracer.fins import unproven
from cluster.tracer.listeners import INCOMING, LOCAL, OUTGOING, Listeners
from cluster.tracer.owners import Owners
from cluster.tracer.rows import Rows, join, match_ends, new_rows
from cluster.tracer.settle import closed_among, settle_closed, settle_open
from cluster.tracer.sockdiag import CLOSE, CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK, LISTEN, TIME_WAIT
from cluster.tracer.vanished import BETWEEN_NS, PATIENCE_NS, SETTLE_NS, Vanished

SPACE = 4_026_531_833
SECOND = 1_000_000_000


def row(
    cookie: int,
    state: int,
    received: int = 0,
    source: str = "10.0.0.1",
    dest: str = "10.0.0.2",
    sport: int = 1_000,
    dport: int = 80,
    **more: int,
) -> Rows:
    made = new_rows(1)
    made["key"] = made["cookie"] = cookie
    made["net_ns"], made["bytes_known"] = SPACE, True
    made["tcp_state"], made["received"] = state, received
    made["source"], made["dest"] = words(source), words(dest)
    made["sport"], made["dport"] = sport, dport
    for name, value in more.items():
        made[name] = value
    return made


def words(address: str) -> np.ndarray:
    return np.frombuffer(pack_address(address), np.uint32)


def listening(source: str, sport: int, pid: int) -> Rows:
    return row(9, LISTEN, source=source, dest="0.0.0.0" if "." in source else "::", sport=sport, dport=0, pid=pid)


NOBODY = Listeners(new_rows(0))


def opened(rows: Rows, before: Rows | None = None, listeners: Listeners = NOBODY) -> Rows:
    settle_open(rows, before if before is not None else new_rows(0), listeners)
    return rows


@dataclass
class Ended:
    """What becomes of destroyed sockets."""

    rows: Rows
    before: Rows = field(default_factory=lambda: new_rows(0))
    left: Rows = field(default_factory=lambda: new_rows(0))
    listeners: Listeners = NOBODY
    counters: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.rows = closed_among(self.rows, self.before)
        settle_closed(self.rows, self.before, self.listeners, self.left, self.counters)

    def received(self) -> list[tuple[int, bool]]:
        return [(int(one["received"]), bool(one["recv_exact"])) for one in self.rows]


@pytest.mark.parametrize("state", [CLOSE_WAIT, LAST_ACK, CLOSING])
def test_a_state_after_the_fin_takes_it_off(state: int) -> None:
    assert opened(row(1, state, 101))["received"].tolist() == [100]
    assert opened(row(1, state, 1))["received"].tolist() == [0]


@pytest.mark.parametrize("state", [ESTABLISHED, FIN_WAIT1, FIN_WAIT2])
def test_a_state_before_the_fin_is_exact_as_it_is(state: int) -> None:
    (one,) = opened(row(1, state, 101))
    assert (one["received"], one["recv_exact"]) == (101, True)


def test_a_value_that_fell_stays_and_is_no_longer_called_exact() -> None:
    before = opened(row(1, ESTABLISHED, 101))  # its FIN came between the kernel's looks at state and count
    after = opened(row(1, CLOSE_WAIT, 101), before)
    assert (after["received"].tolist(), after["recv_exact"].tolist()) == ([101], [False])


def test_the_fin_of_a_destroyed_socket_is_certain_where_the_last_dump_saw_it() -> None:
    assert Ended(row(1, CLOSE, 101), before=opened(row(1, CLOSE_WAIT, 101))).received() == [(100, True)]


def test_no_fin_came_where_the_count_is_that_of_the_last_dump() -> None:
    assert Ended(row(1, CLOSE, 100), before=opened(row(1, ESTABLISHED, 100))).received() == [(100, True)]
    assert Ended(row(1, CLOSE, 0)).received() == [(0, True)]


def test_otherwise_the_value_may_be_one_high() -> None:
    assert Ended(row(1, CLOSE, 101), before=opened(row(1, ESTABLISHED, 100))).received() == [(101, False)]
    assert Ended(row(1, CLOSE, 101)).received() == [(101, False)]


def test_time_wait_proves_an_unread_fin_and_fin_wait_2_that_none_came() -> None:
    assert Ended(row(1, CLOSE, 101, rqueue=1), left=row(7, TIME_WAIT)).received() == [(100, True)]
    assert Ended(row(1, CLOSE, 100), left=row(7, FIN_WAIT2)).received() == [(100, True)]
    # Read to the end after a half-close, or closed before the peer's FIN came: both look like this.
    assert Ended(row(1, CLOSE, 101), left=row(7, TIME_WAIT)).received() == [(101, False)]
    assert Ended(row(1, CLOSE, 101, rqueue=1), left=row(7, TIME_WAIT, sport=1_001)).received() == [(101, False)]


def test_what_is_left_behind_is_of_neither_of_two_sockets_with_the_same_ends() -> None:
    both = join([row(1, CLOSE, 51, rqueue=1), row(2, CLOSE, 101, rqueue=1)])
    assert Ended(both, left=row(7, TIME_WAIT)).received() == [(51, False), (101, False)]


def turned(cookie: int, state: int, **more: int) -> Rows:
    """The other end of `row`."""
    return row(cookie, state, source="10.0.0.2", dest="10.0.0.1", sport=80, dport=1_000, **more)


def test_what_the_peer_sent_tells_whether_a_fin_came_after_it() -> None:
    assert Ended(join([row(1, CLOSE, 101), turned(2, CLOSE, sent=100)])).received()[0] == (100, True)
    assert Ended(join([turned(2, CLOSE, sent=100), row(1, CLOSE, 100)])).received()[1] == (100, True)
    assert Ended(join([turned(2, CLOSE, sent=100), row(1, CLOSE, 60)])).received()[1] == (60, True)
    assert Ended(join([turned(2, CLOSE, sent=100, net_ns=5), row(1, CLOSE, 101)])).received()[1] == (101, False)


def test_a_peer_that_may_be_another_one_tells_nothing() -> None:
    twice = join([row(1, CLOSE, 101), turned(2, CLOSE, sent=100), row(3, CLOSE, 31), turned(4, CLOSE, sent=30)])
    assert [exact for value, exact in Ended(twice).received() if value] == [False, False]
    again = opened(row(9, ESTABLISHED, 5))
    assert Ended(join([row(1, CLOSE, 101), turned(2, CLOSE, sent=100)]), before=again).received()[0] == (101, False)


def test_only_what_is_not_proven_needs_a_look_at_time_wait() -> None:
    before = opened(join([row(1, CLOSE_WAIT, 101), row(2, ESTABLISHED, 100), row(3, ESTABLISHED, 100)]))
    rows = join(
        [row(1, CLOSE, 101), row(2, CLOSE, 100), row(3, CLOSE, 101), row(4, CLOSE, 0), row(5, CLOSE, 1), row(6, CLOSE, 1, protocol=1)]
    )
    rows["raw_received"] = rows["received"]
    assert rows["cookie"][unproven(rows, before)].tolist() == [3, 5]


def test_a_disconnected_socket_keeps_all_of_the_last_dump() -> None:
    before = opened(row(1, ESTABLISHED, 500, sent=70, pid=3, retransmits=2))
    ended = Ended(row(1, CLOSE, 0, dest="0.0.0.0", dport=0, updated=99), before)
    (one,) = ended.rows
    assert [int(one[name]) for name in ("received", "sent", "pid", "retransmits", "dport", "updated")] == [500, 70, 3, 2, 80, 99]
    assert ended.counters["aborted"] == 1


def test_a_socket_that_was_never_a_connection_is_none() -> None:
    assert not len(Ended(row(1, CLOSE, 0, dest="0.0.0.0", dport=0)).rows)


def test_owners_the_dump_then_the_listener_then_nobody() -> None:
    before = opened(row(1, ESTABLISHED, sport=443, pid=5, cgroup_id=50))
    heard = listening("0.0.0.0", 443, pid=6)
    heard["cgroup_id"] = 60
    rows = join([row(1, CLOSE, sport=443), row(2, CLOSE, sport=443), row(3, CLOSE, sport=444)])
    ended = Ended(rows, before, listeners=Listeners(heard))
    assert ended.rows["pid"].tolist() == [5, 6, 0]
    assert ended.rows["cgroup_id"].tolist() == [50, 60, 0]
    assert ended.counters["unattributed"] == 1


@pytest.mark.parametrize(
    ("listener", "source", "dest", "direction"),
    [
        ("0.0.0.0", "10.0.0.1", "10.0.0.2", INCOMING),
        ("::", "10.0.0.1", "10.0.0.2", INCOMING),
        ("::", "2001:db8::1", "2001:db8::2", INCOMING),
        ("10.0.0.1", "10.0.0.1", "10.0.0.2", INCOMING),
        ("10.0.0.9", "10.0.0.1", "10.0.0.2", OUTGOING),
        ("0.0.0.0", "2001:db8::1", "2001:db8::2", OUTGOING),
        ("0.0.0.0", "127.0.0.1", "127.1.2.3", LOCAL),
        ("::", "::1", "::1", LOCAL),
        ("0.0.0.0", "10.0.0.1", "10.0.0.1", LOCAL),
    ],
)
def test_directions(listener: str, source: str, dest: str, direction: int) -> None:
    listeners = Listeners(listening(listener, 1_000, pid=1))
    assert opened(row(1, ESTABLISHED, source=source, dest=dest), listeners=listeners)["direction"].tolist() == [direction]
    assert opened(row(1, ESTABLISHED, source=source, dest=dest, net_ns=5), listeners=listeners)["direction"].tolist() in (
        [OUTGOING],
        [LOCAL],
    )


def test_ends_are_matched_only_where_all_of_them_are_equal() -> None:
    others = join([row(1, 1), row(2, 1, sport=1_001), row(3, 1, dest="10.0.0.3"), row(4, 1, net_ns=5), row(5, 1, protocol=1), row(6, 1)])
    places, found = match_ends(join([row(0, 1), row(0, 1, protocol=1), row(0, 1, dport=81)]), others)
    assert (found.tolist(), places[:2].tolist()) == ([True, True, False], [0, 4])
    assert not match_ends(row(0, 1), new_rows(0))[1].any()


def test_missing_connections_end_only_after_a_loss_or_a_long_wait_and_when_nobody_holds_them() -> None:
    vanished, owners, counters = Vanished(), Owners("/proc"), Counter[str]()
    spaces = Namespaces("/proc", 100_000)
    (space,) = spaces.all.values()
    rows = join([row(1, ESTABLISHED, net_ns=space.inode), row(2, ESTABLISHED, net_ns=space.inode)])
    none = new_rows(0)["key"]

    def ended(now: int) -> list[bool]:
        return [bool(one) for one in vanished.pick(rows, none, spaces.all, owners, now, counters)]

    assert ended(1 * SECOND) == [False, False]
    space.lost_at = 2 * SECOND
    assert ended(3 * SECOND) == [False, False]  # what was not lost must have time to come
    assert ended(3 * SECOND + SETTLE_NS + 1) == [True, True]
    assert counters["vanished"] == 2
    late = vanished.not_late(join([row(1, CLOSE), row(3, CLOSE)]), counters)
    assert (late["cookie"].tolist(), counters["late_closes"]) == ([3], 1)
    rows = row(4, ESTABLISHED, net_ns=space.inode)
    assert ended(10 * SECOND) == [False]
    assert ended(10 * SECOND + PATIENCE_NS + BETWEEN_NS + 1) == [True]
    spaces.close()
