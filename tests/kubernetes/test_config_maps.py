"""The publisher on a real API server, with no more rights than it is to have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.publishing import Content, Publishing, allow, until


@pytest.fixture
def publishing(control_plane: ControlPlane, namespace: str) -> Iterator[Publishing]:
    allow(control_plane, namespace)
    made = Publishing(control_plane, namespace, control_plane.kubeconfig(f"{namespace}/publisher"))
    yield made
    made.close()


def edit(publishing: Publishing, name: str, patch: dict[str, Any]) -> None:
    publishing.plane.kubectl("-n", publishing.namespace, "patch", "configmap", name, "--type=merge", "-p", __import__("json").dumps(patch))


def remove(publishing: Publishing, *names: str) -> None:
    publishing.plane.kubectl("-n", publishing.namespace, "delete", "configmap", *names)


# What is there


def test_a_publication_is_what_the_user_asked_for(publishing: Publishing) -> None:
    publisher = publishing.publisher(Content(number=7), pages=3)
    publisher.step(1)
    assert publisher.status()["state"] == "publishing", publisher.status()
    shown = publishing.shown()
    assert list(shown["10.0.0.0-10.96.0.1-40000-443"][0]) == [
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
    assert "managedFields" not in page
