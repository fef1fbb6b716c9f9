"""Bytes from connection tracking over the life of entries: they come, expire and pass to the next socket."""

from __future__ import annotations

import numpy as np

from cluster.tracer.conntrack import FLOW, Flows
from cluster.tracer.rows import UDP, Rows, new_rows
from cluster.tracer.udp import Tracked


def socket_row(cookie: int) -> Rows:
    row = new_rows(1)
    row["key"] = row["cookie"] = cookie
    row["protocol"], row["sport"], row["dport"] = UDP, 5_000, 53
    return row


def entry(number: int, sent: int, received: int, counted: bool = True) -> Flows:
    flow = np.zeros(1, FLOW)
    flow["id"], flow["sent"], flow["received"], flow["counted"] = number, sent, received, counted
    flow["protocol"], flow["sport"], flow["dport"] = UDP, 5_000, 53
    return flow


NONE = np.zeros(0, FLOW)


class Seen:
    """Dumps of one namespace, one after the other."""

    def __init__(self) -> None:
        self.tracked, self.before = Tracked(), new_rows(0)

    def dump(self, cookie: int, flows: Flows) -> tuple[int, int, bool]:
        rows = socket_row(cookie)
        self.tracked.apply(rows, self.before, flows)
        self.before = rows
        return int(rows["sent"][0]), int(rows["received"][0]), bool(rows["bytes_known"][0])


def test_bytes_are_unknown_until_an_entry_counts_them() -> None:
    seen = Seen()
    assert seen.dump(1, NONE) == (0, 0, False)
    assert seen.dump(1, entry(7, 0, 0, counted=False)) == (0, 0, False)
    assert seen.dump(1, entry(7, 10, 20)) == (10, 20, True)


def test_an_entry_that_expires_keeps_what_it_counted_and_the_next_one_adds() -> None:
    seen = Seen()
    assert seen.dump(1, entry(7, 100, 50)) == (100, 50, True)
    assert seen.dump(1, entry(7, 130, 50)) == (130, 50, True)
    assert seen.dump(1, NONE) == (130, 50, True)
    assert seen.dump(1, entry(8, 5, 1)) == (135, 51, True)
    assert seen.dump(1, entry(8, 6, 1)) == (136, 51, True)


def test_a_socket_that_takes_over_an_entry_starts_from_what_it_had() -> None:
    seen = Seen()
    seen.dump(1, entry(7, 100, 50))
    seen.tracked.closed(seen.before)
    assert seen.dump(2, entry(7, 140, 50)) == (40, 0, True)


def test_an_entry_that_starts_again_under_its_number_takes_nothing_back() -> None:
    seen = Seen()
    seen.dump(1, entry(7, 100, 50))
    assert seen.dump(1, entry(7, 3, 2)) == (100, 50, True)
    assert seen.dump(1, entry(7, 9, 2)) == (106, 50, True)
