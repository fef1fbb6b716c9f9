"""What clients are promised: closes until they are acknowledged, and never more memory than a bound."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from cluster.core.errors import TracerError
from cluster.tracer.closes import CLIENTS_LIMIT, EVICT_SECONDS, FORGET_SECONDS, Closes, TooManyClients
from cluster.tracer.http import Request, respond
from cluster.tracer.rows import Rows, new_rows
from cluster.tracer.tracer import Tracer
from tests.tracer.serving import Served, UnixHTTP, Watch

Address = tuple[str, int]


def short_lived() -> tuple[Address, Address]:
    """A connection that is over when this returns."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        with server.accept()[0] as near:
            client.sendall(b"x")
            near.recv(1)
        return client.getsockname(), client.getpeername()


def closes_of(reply: dict[str, Any], port: int) -> set[tuple[int, int]]:
    """(close_id, cookie) of the closed rows with this port."""
    return {
        (row["close_id"], row["cookie"])
        for row in reply["connections"]
        if row["state"] == "closed" and port in (row["sport"], row["dport"])
    }


def test_closes_are_told_again_until_they_are_acknowledged(served: Served) -> None:
    watch = Watch(served, "one")
    near, far = short_lived()
    watch.ended(near, far)
    watch.ended(far, near)
    first, second = closes_of(served.reply("one"), near[1]), closes_of(served.reply("one"), near[1])
    assert len(first) == 2
    assert first == second
    assert not closes_of(served.reply("one", watch.ack), near[1])


def test_a_client_that_dies_while_it_reads_gets_its_closes_again(served: Served) -> None:
    watch = Watch(served, "one")
    near, far = short_lived()
    watch.poll()
    connection = UnixHTTP(served.path)
    connection.request("GET", f"/connections?client_id=one&ack={watch.ack}")
    connection.close()  # without reading a byte of the reply
    other = Watch(served, "one")
    told = {**watch.closed, **other.closed}
    assert len([row for row in told.values() if near[1] in (row["sport"], row["dport"])]) == 2
    assert far[1] in {row["dport"] for row in told.values()}


def test_a_new_client_is_told_of_no_earlier_close_and_clients_do_not_take_from_each_other(served: Served) -> None:
    one, other = Watch(served, "one"), Watch(served, "other")
    near, far = short_lived()
    assert one.ended(near, far)["close_id"] == other.ended(near, far)["close_id"]
    assert not Watch(served, "newcomer").closed


def test_an_ack_of_another_instance_drops_nothing(served: Served) -> None:
    watch = Watch(served, "one")
    near, far = short_lived()
    watch.ended(near, far)
    watch.ended(far, near)
    for ack in ("another-instance.999999", "999999", "x" * 500, "%F0%28", "%2e%2e", watch.ack.rpartition(".")[0] + ".-5"):
        assert len(closes_of(served.reply("one", ack), near[1])) == 2
    assert not closes_of(served.reply("one", watch.ack), near[1])


def test_a_forgotten_client_comes_back_to_another_instance() -> None:
    closes = Closes()
    before = closes.client("c", 0.0).registration
    assert closes.client("c", FORGET_SECONDS).registration == before
    assert closes.client("c", 2 * FORGET_SECONDS + 1).registration != before


def test_last_is_the_growth_since_the_clients_own_last_reply(served: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        client.sendall(b"x" * 100)
        one = Watch(served, "one")
        ends = client.getsockname(), client.getpeername()
        assert one.end(*ends)["last_sent_bytes"] == 100
        client.sendall(b"x" * 11)
        other = Watch(served, "other")
        one.poll()
        assert (one.end(*ends)["last_sent_bytes"], other.end(*ends)["last_sent_bytes"]) == (11, 111)
        one.poll()
        assert (one.end(*ends)["last_sent_bytes"], one.end(*ends)["monotonic_sent_bytes"]) == (0, 111)


def test_values_of_a_cookie_never_fall_and_the_first_owner_stays(served: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        near, _ = server.accept()
        watch = Watch(served, "one")
        ends = client.getsockname(), client.getpeername()
        before = watch.end(*ends)
        for step in range(5):
            near.sendall(b"y" * step)
            if step == 3:
                near.close()  # its FIN counts as a byte in the kernel
                break
            watch.poll()
            after = watch.end(*ends)
            assert after["monotonic_recv_bytes"] >= before["monotonic_recv_bytes"]
            assert (after["pid"], after["cookie"]) == (before["pid"], before["cookie"])
            before = after
        watch.until(lambda: watch.end(*ends)["monotonic_recv_bytes"] == 1 + 2 + 3)


def test_a_dump_that_fails_is_an_error_and_not_half_a_reply() -> None:
    tracer = Tracer()
    list(tracer.connections("c", None))
    for namespace in tracer.namespaces.all.values():
        namespace.diag.close()
    with pytest.raises(TracerError, match="could not be dumped"):
        tracer.connections("c", None)
    assert respond(tracer, Request("/connections", {})).status == 500
    tracer.close()


def closed(count: int) -> Rows:
    return new_rows(count)


def test_the_log_is_bounded_and_what_is_dropped_is_counted() -> None:
    closes = Closes(limit=100)
    slow, quick = closes.client("slow", 0.0), closes.client("quick", 0.0)
    closes.add(closed(60))
    assert len(closes.due(quick)) == 60
    closes.acknowledge(quick, closes.last)
    closes.add(closed(60))
    assert len(closes) == 100
    assert (slow.lost, quick.lost, closes.lost) == (20, 0, 20)
    assert (slow.registration, quick.registration) == (3, 2)  # the slow one must look at what is absent
    assert closes.due(slow)["close_id"].tolist() == list(range(21, 121))
    assert closes.due(quick)["close_id"].tolist() == list(range(61, 121))


def test_the_log_forgets_what_all_clients_have() -> None:
    closes = Closes()
    one, other = closes.client("one", 0.0), closes.client("other", 0.0)
    closes.add(closed(10))
    closes.due(one)
    closes.due(other)
    closes.acknowledge(one, 10)
    assert len(closes) == 10
    closes.acknowledge(other, 4)
    assert len(closes) == 6
    closes.acknowledge(other, 1_000_000)  # more than it was told
    assert (len(closes), other.acked) == (0, 10)


def test_what_was_told_under_the_old_registration_is_not_told_again_under_the_new_one() -> None:
    closes = Closes(limit=100)
    slow = closes.client("slow", 0.0)
    closes.add(closed(80))
    assert len(closes.due(slow)) == 80
    closes.add(closed(40))
    assert slow.registration == 2
    assert closes.due(slow)["close_id"].tolist() == list(range(81, 121))


def test_clients_come_and_go() -> None:
    closes = Closes()
    for number in range(CLIENTS_LIMIT):
        closes.client(f"c{number}", float(number))
    now = float(CLIENTS_LIMIT)
    with pytest.raises(TooManyClients):
        closes.client("one more", now)
    closes.client("one more", now + EVICT_SECONDS)
    assert "c0" not in closes.clients
    assert len(closes.clients) == CLIENTS_LIMIT
    closes.add(closed(5))
    closes.forget(now + EVICT_SECONDS + FORGET_SECONDS + 1)
    assert not closes.clients
    assert len(closes) == 0


def test_memory_stays_bounded_as_clients_come_and_go(place: Path) -> None:
    with Served(place / "memory.sock") as served:
        for number in range(2 * CLIENTS_LIMIT):
            served.get(f"/connections?client_id=first{number}")
        before = served.memory()
        statuses = [served.get(f"/connections?client_id=c{number}")[0] for number in range(500)]
        assert set(statuses) == {503}  # the first ones are not forgotten yet
        assert len(served.get("/debug/stats")[1]["state"]["clients"]) == CLIENTS_LIMIT
        assert served.get("/connections?client_id=first0")[0] == 200
        assert served.memory() - before < 8_000_000
