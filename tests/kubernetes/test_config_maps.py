"""The publisher on a real API server, with no more rights than it is to have: what is there, who may write it, what is repaired."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cluster.core.errors import PublishError
from cluster.core.paging import Wanted
from cluster.stores.api_server import ApiServer
from cluster.stores.lease import Mark
from tests.kubernetes.proxy import Fault, proxied
from tests.kubernetes.publishing import Content, Publishing, until

KEY = "10.0.0.0-10.96.0.1-40000-443"


def edit(publishing: Publishing, name: str, patch: dict[str, Any], kind: str = "configmap") -> None:
    publishing.plane.kubectl("-n", publishing.namespace, "patch", kind, name, "--type=merge", "-p", json.dumps(patch))


def remove(publishing: Publishing, *names: str, kind: str = "configmap") -> None:
    publishing.plane.kubectl("-n", publishing.namespace, "delete", kind, *names)


def versions(publishing: Publishing) -> dict[str, str]:
    pages = publishing.pages("transactions") | publishing.pages("metadata")
    return {name: page["metadata"]["resourceVersion"] for name, page in pages.items()}


def working(status: dict[str, Any]) -> bool:
    return bool(status["state"] == "publishing")


# What is there


def test_a_publication_is_what_the_user_asked_for(publishing: Publishing) -> None:
    publisher = publishing.publisher(Content(number=7), pages=3)
    publisher.step(1)
    assert publisher.status()["state"] == "publishing", publisher.status()
    assert list(publishing.shown()[KEY][0]) == [
        *("node", "protocol", "pid", "net_ns", "direction", "state"),
        *("monotonic_sent_bytes", "monotonic_recv_bytes", "monotonic_retransmits"),
        *("total_sent_bytes", "total_recv_bytes", "total_retransmits", "last_update_epoch", "first_seen", "last_seen"),
    ]
    assert publishing.shown("metadata") == {"10.96.0.1": {"apiserver": {"uid": {"kind": "service"}}}}
    assert set(publishing.pages()) == {"transactions", "transactions-1", "transactions-2"}
    page = publishing.pages()["transactions"]["metadata"]
    assert page["annotations"] | {"rayscope/published": ""} == {
        "rayscope/term": "1",
        "rayscope/fence": "1",
        "rayscope/store": "one",
        "rayscope/publisher": "first",
        "rayscope/pages": "1",
        "rayscope/left-out": "0",
        "rayscope/format": "1",
        "rayscope/published": "",
    }
    assert page["labels"] == {"app.kubernetes.io/name": "rayscope"}
    assert "managedFields" not in page  # they would repeat every key


def test_only_pages_that_changed_are_written(publishing: Publishing) -> None:
    content = Content(rows=3_000)
    publisher = publishing.publisher(content, pages=4)
    until(publisher, 1, lambda status: working(status) and not status["pending"])
    before = versions(publishing)
    publisher.step(1)
    assert versions(publishing) == before
    content.metadata = {}
    until(publisher, 1, lambda status: not status["pending"] and not publishing.shown("metadata"))
    assert {name for name, version in versions(publishing).items() if version != before[name]} == {"metadata"}


def test_a_round_writes_no_more_than_it_may_and_all_comes_in_the_end(publishing: Publishing) -> None:
    content = Content(rows=9_000)
    publisher = publishing.publisher(content, pages=8, bytes_per_round=1_500_000)
    written = []
    while len(publishing.shown()) < 9_000:
        publisher.step(1)
        written.append(publisher.status()["written"])
        assert len(written) < 50
    assert max(written) <= 1_500_000
    assert publisher.status()["left_out"] == {"transactions": 0, "metadata": 0}
    content.rows = 10  # all but one page go, and none of what remains is missing meanwhile
    while sum(bool(page.get("data")) for page in publishing.pages().values()) > 1:
        publisher.step(1)
        assert KEY in publishing.shown()
    assert len(publishing.shown()) == 10


def test_the_busiest_are_kept_and_what_is_left_out_is_counted(publishing: Publishing) -> None:
    publisher = publishing.publisher(Content(rows=7_000), pages=2)
    status = until(publisher, 1, lambda status: working(status) and not status["pending"])
    shown = publishing.shown()
    assert len(shown) + status["left_out"]["transactions"] == 7_000
    assert publishing.pages()["transactions"]["metadata"]["annotations"]["rayscope/left-out"] == str(7_000 - len(shown))
    assert KEY in shown


def test_pages_from_a_larger_setting_are_emptied(publishing: Publishing) -> None:
    until(publishing.publisher(Content(rows=9_000), pages=5), 1, lambda status: working(status) and not status["pending"])
    publisher = publishing.publisher(Content(fence=2, rows=5), "second", pages=1)
    until(publisher, 2, lambda status: working(status) and not status["pending"])
    publisher.step(2)
    assert len(publishing.shown()) == 5


# Who may write


def test_whoever_was_cut_off_can_change_no_page_nor_create_one(publishing: Publishing) -> None:
    """Its successor changes nothing but the marks, and ends; nobody renews the Lease any more."""
    old = publishing.publisher(Content(number=1))
    old.step(1)
    with proxied(publishing.plane) as proxy:
        successor = publishing.publisher(Content(fence=2, number=2), "second", proxy.url)
        proxy.always(Fault(500), "PUT", "/configmaps/")  # its pages are marked, and it writes none
        until(successor, 2, lambda status: status["state"] == "failing" and "500" in status["error"])
    marked = versions(publishing)
    assert {page["metadata"]["annotations"]["rayscope/fence"] for page in publishing.pages().values()} == {"2"}
    mine = Mark(1, 1, "one", "first")
    for pages in old._kinds.values():
        for index, page in enumerate(pages.pages):
            with pytest.raises(PublishError) as refused:  # what it knows of the page is of no use
                pages.write(index, mine, Wanted(b"", 0), {KEY: "[]"}, 1, "now", 0)
            assert refused.value.status == 409
            known, page.version = page.version, ""
            with pytest.raises(PublishError) as refused:  # it is there
                pages.write(index, mine, Wanted(b"", 0), {KEY: "[]"}, 1, "now", 0)
            assert refused.value.status == 409
            page.version = known
    for content in (Content(number=3, rows=9), Content(number=4, rows=9_000, metadata={})):
        old._source = content
        old._next = 0.0
        old.step(1)
    assert old.status()["state"] == "superseded"
    assert versions(publishing) == marked
    remove(publishing, *marked)
    again = publishing.publisher(Content(number=5), "of the old aggregator, anew")
    for publisher in (old, again):
        publisher._ended = 0  # as if it had not noticed yet
        publisher.step(1)
        assert publisher.status()["state"] == "superseded"
    assert versions(publishing) == {}


def test_a_writer_that_is_in_the_middle_of_its_round_stops_at_the_first_page(publishing: Publishing) -> None:
    with proxied(publishing.plane) as proxy:
        old = publishing.publisher(Content(number=1, rows=6_000), server=proxy.url, pages=3, bytes_per_round=10**9)
        old.step(1)
        successor = publishing.publisher(Content(fence=2, number=2), "second", pages=3, bytes_per_round=10**9)
        old._source = Content(number=3, rows=6_000)
        written = []

        def overtake(method: str, path: str) -> Fault | None:
            if method == "PUT" and "/configmaps/" in path:
                written.append(path)
                if len(written) == 2:
                    until(successor, 2, working)
            return None

        proxy.fault = overtake
        old._next = 0.0
        old.step(1)
        assert old.status()["state"] in ("waiting", "superseded"), old.status()
        assert len(written) == 2
        until(successor, 2, lambda status: not status["pending"])
        successor.step(2)
        assert publishing.numbers() == {2}
        old.step(1)
        assert old.status()["state"] == "superseded"


def test_a_restarted_process_of_the_same_aggregator_waits_until_the_lease_ends(publishing: Publishing) -> None:
    now = [100.0]
    publishing.publisher(Content(number=1)).step(1)
    again = publishing.publisher(Content(number=2), "restarted", clock=lambda: now[0])
    for passed in (0.0, 5.0, 9.0):
        now[0] += passed
        again.step(1)
        assert again.status()["state"] == "waiting"
    assert "first publishes" in again.status()["error"]
    now[0] += 1.0
    again.step(1)
    assert working(again.status()), again.status()
    assert publishing.numbers() == {2}
    assert publishing.pages()["transactions"]["metadata"]["annotations"]["rayscope/term"] == "2"


def test_one_that_ends_in_order_lets_the_next_begin_at_once(publishing: Publishing) -> None:
    first = publishing.publisher(Content(number=1))
    first.step(1)
    first.close()
    second = publishing.publisher(Content(number=2), "second")
    second.step(1)
    assert working(second.status()), second.status()


def test_a_new_store_in_place_of_a_lost_one_publishes_though_its_fences_begin_anew(publishing: Publishing) -> None:
    first = publishing.publisher(Content(fence=57, number=1))
    first.step(57)
    now = [0.0]
    second = publishing.publisher(Content(fence=1, number=2, store="another"), "second", clock=lambda: now[0])
    second.step(1)
    assert second.status()["state"] == "waiting"  # the old one may still be at work
    now[0] += 16
    second.step(1)
    assert working(second.status())
    first.step(57)
    assert first.status()["state"] == "waiting"
    assert publishing.numbers() == {2}


def test_it_needs_no_more_rights_than_these_and_says_which_it_lacks(publishing: Publishing) -> None:
    api = ApiServer(str(publishing.kubeconfig))
    publishing.apis.append(api)
    for path in ("configmaps", "configmaps/other", "secrets", "pods"):
        with pytest.raises(PublishError, match="403"):
            api.request("GET", f"/api/v1/namespaces/{publishing.namespace}/{path}")
    publishing.plane.kubectl("-n", publishing.namespace, "delete", "role", "publisher")
    status = until(publishing.publisher(Content()), 1, lambda status: status["state"] == "failing")
    assert "403" in status["error"]
    assert "cannot get resource" in status["error"]


# What is repaired


@pytest.mark.parametrize(
    "patch",
    [
        {"data": {KEY: "[]"}},
        {"data": {"what.is.this": "mine"}},
        {"data": None},
        {"metadata": {"annotations": {"rayscope/term": "2147483999", "rayscope/fence": "99"}}},
        {"metadata": {"annotations": {"rayscope/term": "many", "rayscope/pages": "-1", "rayscope/store": None}}},
        {"metadata": {"annotations": None, "labels": None}},
    ],
    ids=["value", "key", "all", "a later mark", "no numbers", "no annotations"],
)
def test_an_edit_by_somebody_else_is_repaired_from_the_store(publishing: Publishing, patch: dict[str, Any]) -> None:
    content = Content()
    publisher = publishing.publisher(content)
    publisher.step(1)
    before = publishing.pages()["transactions"]
    edit(publishing, "transactions", patch)
    until(publisher, 1, lambda status: working(status) and publishing.pages()["transactions"]["data"] == before["data"])
    after = publishing.pages()["transactions"]["metadata"]
    assert after["annotations"] | {"rayscope/published": ""} == before["metadata"]["annotations"] | {"rayscope/published": ""}
    assert after["labels"] == before["metadata"]["labels"]


def test_what_was_deleted_comes_back(publishing: Publishing) -> None:
    publisher = publishing.publisher(Content())
    publisher.step(1)
    before = set(versions(publishing))
    remove(publishing, "transactions", "transactions-1", "metadata")
    until(publisher, 1, lambda status: working(status) and set(versions(publishing)) == before and bool(publishing.shown()))
    remove(publishing, "rayscope-publisher", kind="lease")
    publisher._lease._renewed -= 60
    until(publisher, 1, lambda status: working(status) and publisher.status()["term"] == 2)


def test_a_changed_page_of_no_use_is_emptied(publishing: Publishing) -> None:
    publisher = publishing.publisher(Content())
    publisher.step(1)
    edit(publishing, "transactions-1", {"data": {"10.9.9.9-10.96.0.1-1-2": "[]"}})
    until(publisher, 1, lambda status: working(status) and "data" not in publishing.pages()["transactions-1"])
    assert len(publishing.shown()) == 4


def test_an_edit_between_the_look_and_the_write_is_not_overwritten_unseen(publishing: Publishing) -> None:
    with proxied(publishing.plane) as proxy:
        content = Content()
        publisher = publishing.publisher(content, server=proxy.url)
        publisher.step(1)
        content.number = 2
        edits = iter([True])

        def meddle(method: str, path: str) -> Fault | None:
            if method == "PUT" and path.endswith("/transactions") and next(edits, False):
                edit(publishing, "transactions", {"data": {KEY: "[]"}})
            return None

        proxy.fault = meddle
        publisher._next = 0.0
        publisher.step(1)
        assert working(publisher.status()), publisher.status()
        assert publishing.numbers() == {2}
