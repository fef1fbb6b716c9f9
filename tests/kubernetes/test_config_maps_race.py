"""Publishers that race for the same ConfigMaps of a real API server, judged by every version that the server ever had of them."""

from __future__ import annotations

import itertools
import json
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from cluster.core.publication import Publication
from cluster.stores.config_maps import ConfigMaps
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.publishing import Content, Publishing, using

PUBLICATIONS = 1_000
PATIENCE = 120.0  # s


@dataclass(frozen=True)
class Version:
    """One that a page had."""

    term: int
    fence: int
    publisher: str
    numbers: frozenset[int]


@dataclass
class History:
    """All versions of all pages, in order, as a watch says them."""

    versions: dict[str, list[Version]] = field(default_factory=lambda: defaultdict(list))
    resource_versions: set[str] = field(default_factory=set)

    def add(self, event: dict[str, Any]) -> None:
        item = event["object"]
        said = item["metadata"].get("annotations", {})
        numbers = {json.loads(value)[0]["total_sent_bytes"] for key, value in item.get("data", {}).items() if "-" in key}
        mark = (int(said["rayscope/term"]), int(said["rayscope/fence"]), said["rayscope/publisher"])
        self.versions[item["metadata"]["name"]].append(Version(*mark, frozenset(numbers)))
        self.resource_versions.add(item["metadata"]["resourceVersion"])


@contextmanager
def watched(plane: ControlPlane, namespace: str) -> Iterator[History]:
    """The history from now on."""
    context = ssl.create_default_context(cafile=str(plane.ca_file))
    context.load_cert_chain(plane.certificates.folder / "admin.crt", plane.certificates.folder / "admin.key")
    connection = HTTPSConnection(urlsplit(plane.url).netloc, timeout=PATIENCE, context=context)
    connection.request("GET", f"/api/v1/namespaces/{namespace}/configmaps?watch=1&labelSelector=app.kubernetes.io/name%3Drayscope")
    answer = connection.getresponse()
    history = History()

    def read() -> None:
        try:
            for line in answer:
                history.add(json.loads(line))
        except (OSError, ValueError, HTTPException):  # the end
            pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield history
    finally:
        socket = connection.sock
        assert socket is not None
        socket.shutdown(2)
        reader.join()
        answer.close()
        connection.close()


class Counting(Content):
    """A Source whose numbers rise with every reading, whoever reads."""

    numbers = itertools.count(1)

    def read(self) -> tuple[int, Publication]:
        self.number = next(self.numbers)
        return super().read()


@dataclass
class Racer:
    """A publisher in a thread, and what the API server said it had taken."""

    publisher: ConfigMaps
    fence: int
    acknowledged: list[tuple[str, int]] = field(default_factory=list)  # resourceVersion, number
    states: set[str] = field(default_factory=set)

    def record(self, source: Content) -> None:
        """Note every write that was taken."""
        for pages in self.publisher._kinds.values():
            send = pages._send

            def sent(method: str, page: Any, *rest: Any, send: Any = send) -> None:
                send(method, page, *rest)
                if method == "PUT":
                    self.acknowledged.append((page.version, source.number))

            pages._send = sent  # type: ignore[assignment, method-assign]

    def run(self, ended: threading.Event) -> None:
        while not ended.is_set():
            wait = self.publisher.step(self.fence)
            self.states.add(self.publisher.status()["state"])
            ended.wait(min(wait, 0.02))


def judge(history: History) -> None:
    """No page was ever written by a publisher of a lower term after one of a higher, nor went back in its numbers within a term."""
    for name, versions in history.versions.items():
        terms = [version.term for version in versions]
        assert terms == sorted(terms), name
        assert len({(version.term, version.publisher) for version in versions}) == len(set(terms)), name
        for before, after in itertools.pairwise(versions):
            if before.term == after.term and before.numbers and after.numbers:
                assert max(before.numbers) <= min(after.numbers), name


def race(publishing: Publishing, wanted: int) -> list[Racer]:
    """Two at a time; whoever is cut off is replaced by one with the next fence, until so many publications are acknowledged."""
    racers: list[Racer] = []
    threads: list[threading.Thread] = []
    ended = threading.Event()
    deadline = time.monotonic() + PATIENCE

    def begin(fence: int) -> None:
        source = Counting(fence=fence, rows=40)
        racer = Racer(publishing.publisher(source, f"racer-{len(racers)}", interval=0.001), fence)
        racer.record(source)
        racers.append(racer)
        threads.append(threading.Thread(target=racer.run, args=(ended,)))
        threads[-1].start()

    begin(1)
    begin(2)
    while (done := sum(len(racer.acknowledged) for racer in racers)) < wanted:
        assert time.monotonic() < deadline, [racer.publisher.status() for racer in racers]
        if done > 40 * (len(racers) - 1):
            begin(max(racer.fence for racer in racers) + 1)
        time.sleep(0.005)
    ended.set()
    for thread in threads:
        thread.join()
    last = racers[-1]
    while last.publisher.status()["state"] != "publishing":
        time.sleep(last.publisher.step(last.fence))
        assert time.monotonic() < deadline
    return racers


def test_publishers_that_race_for_a_thousand_publications_lose_and_overwrite_nothing(control_plane: ControlPlane, namespace: str) -> None:
    with using(control_plane, namespace) as publishing, watched(control_plane, namespace) as history:
        racers = race(publishing, PUBLICATIONS)
        written = {version for racer in racers for version, _ in racer.acknowledged}
        deadline = time.monotonic() + PATIENCE
        while not written <= history.resource_versions:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        judge(history)
        assert len(written) >= PUBLICATIONS
        assert all("superseded" in racer.states for racer in racers[:-2])
        assert publishing.numbers() == {racers[-1].acknowledged[-1][1]}
        print(f"{len(written)} publications of {len(racers)} publishers, {len(history.resource_versions)} versions of the pages")
