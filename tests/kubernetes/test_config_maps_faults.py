"""An API server that is slow, away, full, or answers anything: nothing is lost, memory is bounded, it is tried again, status says why."""

from __future__ import annotations

import base64
import gc
import http.client
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from tests.kubernetes.control_plane import ControlPlane, exchange
from tests.kubernetes.proxy import Fault, Proxy
from tests.kubernetes.publishing import Content, Publishing, until, using


def done(status: dict[str, Any]) -> bool:
    return bool(status["state"] == "publishing" and not status["pending"])


FAULTS = {
    "409": (Fault(409), "409"),
    "413": (Fault(413), "413"),
    "422": (Fault(422), "422"),
    "429": (Fault(429, {"Retry-After": "1"}), "429"),
    "500": (Fault(500), "500"),
    "503": (Fault(503, {"Retry-After": "x"}, body=b"upstream\n\x00\xff away"), "503 upstream"),
    "400 without words": (Fault(400, body=b""), "400"),
    "401": (Fault(401), "401"),
    "403": (Fault(403), "403"),
    "200 that is no JSON": (Fault(200, body=b"<html>"), "no JSON"),
    "200 that is no object": (Fault(200, body=b"[]"), "no object"),
    "200 without a version": (Fault(200, body=b"{}"), "no resourceVersion"),
    "301": (Fault(301, {"Location": "http://127.0.0.1:1/"}), "301"),
    "slow": (Fault(stall=1.0), "does not answer"),
    "too large": (Fault(200, body=b" " * 4_100_000), "more than 4000000 bytes"),
    "lost": (Fault(lose=True), "does not answer"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_write_that_fails_is_tried_again_until_it_works(publishing: Publishing, proxy: Proxy, name: str) -> None:
    fault, said = FAULTS[name]
    content = Content()
    publisher = publishing.publisher(content, server=proxy.url, timeout=0.3)
    until(publisher, 1, done)
    content.number = 2
    proxy.always(fault, "PUT", "/configmaps/transactions")
    status = until(publisher, 1, lambda status: status["state"] not in ("publishing", "waiting"))
    assert said in status["error"], status
    assert status["last_published"] is not None
    proxy.always(None)
    until(publisher, 1, lambda status: done(status) and publishing.numbers() == {2})
    assert publisher.status()["error"] == ""


@pytest.mark.parametrize("name", [name for name in FAULTS if not name.startswith("200")])
def test_a_start_that_fails_is_tried_again_until_it_works(publishing: Publishing, proxy: Proxy, name: str) -> None:
    publisher = publishing.publisher(Content(), server=proxy.url, timeout=0.3)
    proxy.always(FAULTS[name][0])
    until(publisher, 1, lambda status: status["error"] != "")
    publisher.step(1)
    proxy.always(None)
    until(publisher, 1, lambda status: done(status) and publishing.numbers() == {1})


def test_a_page_that_is_refused_does_not_keep_the_others_back(publishing: Publishing, proxy: Proxy) -> None:
    content = Content(rows=6_000)
    publisher = publishing.publisher(content, server=proxy.url, pages=3, bytes_per_round=3_000_000)
    until(publisher, 1, done)
    content.number = 2
    proxy.always(Fault(422), "PUT", "/configmaps/transactions-1")
    until(publisher, 1, lambda status: "422" in status["error"])
    until(publisher, 1, lambda _: refreshed(publishing, "transactions") and refreshed(publishing, "transactions-2"))
    assert not refreshed(publishing, "transactions-1")
    proxy.always(None)
    until(publisher, 1, lambda status: done(status) and publishing.numbers() == {2})


def refreshed(publishing: Publishing, name: str) -> bool:
    return all('"total_sent_bytes":2' in value for value in publishing.pages()[name]["data"].values())


def test_it_waits_as_long_as_the_server_asks_and_sends_nothing_meanwhile(publishing: Publishing, proxy: Proxy) -> None:
    publisher = publishing.publisher(Content(), server=proxy.url)
    proxy.always(Fault(429, {"Retry-After": "17"}))
    assert publisher.step(1) == 17.0
    assert len(proxy.seen) == 1  # and the client did not try again by itself
    proxy.always(Fault(429, {"Retry-After": "999999"}))
    assert publisher.step(1) == 300.0


def test_waits_grow_up_to_a_limit(publishing: Publishing, proxy: Proxy) -> None:
    publisher = publishing.publisher(Content(), server=proxy.url)
    proxy.always(Fault(500))
    assert [publisher.step(1) for _ in range(6)] == [0.01, 0.02, 0.04, 0.08, 0.1, 0.1]


def test_a_server_that_is_away_or_stalls_costs_nothing_but_time(publishing: Publishing, control_plane: ControlPlane) -> None:
    content = Content(rows=3_000)
    publisher = publishing.publisher(content, timeout=1.0)
    until(publisher, 1, done)
    for number, (leave, come_back) in enumerate(
        ((control_plane.pause, control_plane.resume), (control_plane.stop_apiserver, control_plane.start_apiserver)), 2
    ):
        content.number = number
        leave()
        until(publisher, 1, lambda status: status["state"] == "failing" and "does not answer" in status["error"])
        held = memory(lambda: publisher.step(1), 30 if number == 3 else 2)
        assert held < 5_000_000
        come_back()
        until(publisher, 1, lambda status: done(status) and publishing.numbers() == {content.number})


def memory(work: Callable[[], object], times: int) -> int:
    """How many more bytes Python holds after doing it so often than after doing it once."""
    work()
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(times):
            work()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_five_minutes_away_then_another_has_the_lease(publishing: Publishing, proxy: Proxy) -> None:
    """The clock is the test's: nothing waits for it."""
    now = [1_000.0]
    content = Content()
    publisher = publishing.publisher(content, server=proxy.url, interval=60.0, clock=lambda: now[0])
    publisher.step(1)
    proxy.always(Fault(503))
    ended = now[0] + 300
    while now[0] < ended:
        now[0] += max(1.0, publisher.step(1))
        assert publisher.status()["state"] in ("failing", "publishing")
    content.number = 2
    proxy.always(None)
    now[0] += publisher.step(1)
    publisher.step(1)
    assert publishing.numbers() == {2}
    assert publisher.status()["term"] == 1  # nobody had taken the Lease meanwhile


def test_a_full_etcd(new_control_plane: Callable[..., ControlPlane]) -> None:
    plane = new_control_plane(etcd=["--quota-backend-bytes=16777216"])
    plane.make_namespace("full")
    with using(plane, "full") as publishing:
        content = Content(rows=5_000)
        publisher = publishing.publisher(content, pages=2, interval=0.01)

        def next_number(status: dict[str, Any]) -> bool:
            content.number += 1
            return "database space exceeded" in status["error"]

        status = until(publisher, 1, next_number)
        assert status["state"] == "failing"
        assert len(publishing.shown()) == 5_000  # what was published before is there
        make_room(plane)
        until(publisher, 1, lambda status: done(status) and publishing.numbers() == {content.number})


def make_room(plane: ControlPlane) -> None:
    """What an administrator does: compact, defragment, disarm (etcd.io, "Maintenance")."""
    revision = plane.etcd("range", {"key": base64.b64encode(b"/").decode()})["header"]["revision"]
    plane.etcd("compaction", {"revision": revision, "physical": True})
    maintain(plane, "defragment", {})
    for alarm in maintain(plane, "alarm", {"action": "GET"})["alarms"]:
        maintain(plane, "alarm", {"action": "DEACTIVATE", **alarm})


def maintain(plane: ControlPlane, verb: str, body: dict[str, Any]) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", plane._ports["etcd"].number, timeout=30)
    status, answer = exchange(connection, "POST", f"/v3/maintenance/{verb}", body)
    assert status == 200, answer
    return answer
