from __future__ import annotations

import json
from typing import Any

import pytest

from cluster.core.errors import SourceMalformed
from cluster.core.kinds import Service
from cluster.sources import reflector as module
from cluster.sources.cluster_objects import RESOURCES
from cluster.sources.lines import Lines
from cluster.sources.reflector import Reflector, WatchError

SERVICES = next(one for one in RESOURCES if one.name == "services")
OWNERS = next(one for one in RESOURCES if one.name == "replicasets")


def item(name: str, version: str = "5", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop", "uid": f"u-{name}", "resourceVersion": version}, "spec": spec}


def page(*items: Any, version: str = "10", more: str = "") -> bytes:
    return json.dumps({"metadata": {"resourceVersion": version, "continue": more}, "items": items}).encode()


def event(kind: str, thing: Any) -> bytes:
    return json.dumps({"type": kind, "object": thing}).encode()


def listed(*names: str) -> Reflector[Service]:
    made: Reflector[Service] = Reflector(SERVICES)
    made.on_page(page(*map(item, names)))
    made.changed.clear()
    return made


def test_a_list_in_pages_then_a_watch_from_its_version() -> None:
    services: Reflector[Service] = Reflector(SERVICES)
    assert services.query(300) == {"limit": "500"}
    services.on_page(page(item("a"), more="next"))
    assert (services.listing, services.objects) == (True, {}), "half a list is no list"
    assert services.query(300) == {"limit": "500", "continue": "next"}
    services.on_page(page(item("b")))
    assert set(services.objects) == services.changed == {"shop/a", "shop/b"}
    assert services.query(300) == {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": "10", "timeoutSeconds": "300"}


def test_every_event_moves_the_version_and_tells_what_changed() -> None:
    services = listed("a", "b")
    services.on_line(event("ADDED", item("c", "11")))
    services.on_line(event("MODIFIED", item("a", "12", externalName="x.example")))
    services.on_line(event("DELETED", item("b", "13")))
    assert set(services.objects) == {"shop/a", "shop/c"}
    assert services.objects["shop/a"].external_name == "x.example"
    assert (services.changed, services.version) == ({"shop/a", "shop/b", "shop/c"}, "13")
    services.on_line(event("BOOKMARK", {"metadata": {"resourceVersion": "40"}}))
    assert services.query(300)["resourceVersion"] == "40"


def test_what_is_the_same_to_us_is_no_change() -> None:
    services = listed("a")
    services.on_line(event("MODIFIED", item("a", "11")))
    assert (services.changed, services.version) == (set(), "11")


def test_after_410_what_the_new_list_lacks_is_gone() -> None:
    services = listed("a", "b")
    with pytest.raises(WatchError, match="too old") as gone:
        services.on_line(event("ERROR", {"code": 410, "message": "too old resource version"}))
    assert gone.value.code == 410
    services.list_again("gone")
    assert set(services.objects) == {"shop/a", "shop/b"}, "known until the list says otherwise"
    services.on_page(page(item("b"), item("c"), version="99"))
    assert (set(services.objects), services.changed, services.version) == ({"shop/b", "shop/c"}, {"shop/a", "shop/c"}, "99")


def test_a_list_that_is_begun_again_forgets_the_pages_it_had() -> None:
    services: Reflector[Service] = Reflector(SERVICES)
    services.on_page(page(item("a"), more="expired"))
    services.list_again("gone")
    assert services.query(300) == {"limit": "500"}
    services.on_page(page(item("b")))
    assert set(services.objects) == {"shop/b"}


@pytest.mark.parametrize(
    "bad",
    [
        {"metadata": {"name": "bad", "namespace": "shop"}, "spec": {}},
        {"metadata": {"name": "bad", "namespace": "shop", "uid": "u"}},
        {"metadata": {"name": "bad", "namespace": "shop", "uid": "u"}, "spec": {"ports": [{"name": "no number"}]}},
        {"metadata": {"name": "bad", "namespace": "shop", "uid": "u"}, "spec": {"clusterIPs": "10.0.0.1"}},
        {"metadata": {"uid": "u"}, "spec": {}},
        {"metadata": None},
        [],
        None,
        "text",
    ],
    ids=["no uid", "no spec", "port without number", "text for list", "no name", "no metadata", "list", "null", "text"],
)
def test_one_bad_object_costs_itself(bad: Any) -> None:
    services: Reflector[Service] = Reflector(SERVICES)
    services.on_page(page(item("a"), bad, item("b")))
    assert set(services.objects) == {"shop/a", "shop/b"}
    services.on_line(event("MODIFIED", bad))
    services.on_line(event("ADDED", item("c", "77")))
    assert (set(services.objects), services.version) == ({"shop/a", "shop/b", "shop/c"}, "77")
    assert services.counts["refused"] == 2
    assert services.refused


def test_an_object_that_cannot_be_read_any_more_takes_its_old_self_with_it() -> None:
    services = listed("a")
    services.on_line(event("MODIFIED", {"metadata": {"name": "a", "namespace": "shop", "resourceVersion": "11"}}))
    assert (services.objects, services.changed, services.version) == ({}, {"shop/a"}, "11")


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"<html>", b'{"type": "ADDED"}', b'{"type": 1, "object": {}}', b'{"type":"\xff"}', b"[" * 9999]
)
def test_a_line_that_is_no_event_is_said(line: bytes) -> None:
    with pytest.raises(SourceMalformed, match="watch of services"):
        listed("a").on_line(line)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"metadata": {}}', b'{"metadata": {"resourceVersion": ""}, "items": []}', b'{"items": []}'])
def test_a_page_that_is_none_is_said_and_changes_nothing(body: bytes) -> None:
    services = listed("a")
    services.list_again("gone")
    with pytest.raises(SourceMalformed, match="list of services"):
        services.on_page(body)
    assert set(services.objects) == {"shop/a"}


def test_an_event_of_an_unknown_type_is_counted() -> None:
    services = listed("a")
    services.on_line(event("SURPRISE", item("b", "11")))
    assert (set(services.objects), services.counts["unknown_events"], services.version) == ({"shop/a"}, 1, "10")


def test_objects_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OBJECTS_LIMIT", 3)
    services = listed("a", "b", "c", "d")
    services.on_line(event("ADDED", item("e", "11")))
    services.on_line(event("MODIFIED", item("a", "12", externalName="still.kept")))
    assert set(services.objects) == {"shop/a", "shop/b", "shop/c"}
    assert services.objects["shop/a"].external_name == "still.kept"
    assert services.counts["refused"] == 2


def test_owners_are_asked_for_as_metadata_only() -> None:
    assert OWNERS.accept(listing=True) == "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    assert OWNERS.accept(listing=False) == "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    assert SERVICES.accept(listing=False) == "application/json"


@pytest.mark.parametrize("size", [1, 3, 7, 1_000])
def test_lines_whatever_the_chunks(size: int) -> None:
    lines = Lines(8)
    text = b"one\n\ntwo\n123456789 too long\nthree\n12345678\nrest"
    found = [line for at in range(0, len(text), size) for line in lines.feed(text[at : at + size])]
    assert found == [b"one", b"two", b"three", b"12345678"]
    assert lines.overlong == 1
