"""The loop around the reflector and its connection, against a server that says what a test has it say."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from cluster.core.errors import SourceAbsent, SourceError, SourceMalformed, SourceTimeout
from cluster.core.kinds import Service
from cluster.sources import watching as module
from cluster.sources.api_server import ApiError, ApiServer
from cluster.sources.cluster_objects import RESOURCES
from cluster.sources.reflector import Reflector
from cluster.sources.watching import Timing, Watching
from tests.sources.test_reflector import event, item, page

SERVICES = next(one for one in RESOURCES if one.name == "services")
QUICK = Timing(silence=1.0, watch=(5, 6), backoff=(0.01, 0.05), steady=0.5)
Answer = tuple[int, dict[str, str], list[bytes]]  # status, headers, chunks


def status_of(code: int, message: str = "why", **headers: str) -> Answer:
    return code, headers, [json.dumps({"kind": "Status", "code": code, "message": message}).encode()]


def pages(*names: str, version: str = "10") -> Answer:
    return 200, {}, [page(*map(item, names), version=version)]


class Scripted:
    """Answers requests one after the other; what comes after the last stays open until the end."""

    def __init__(self) -> None:
        self.script: list[Answer] = []
        self.asked: list[tuple[dict[str, str], str]] = []  # query, token
        self.ended = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(handler.path).query).items()}
        self.asked.append((query, handler.headers.get("Authorization", "")))
        status, headers, chunks = self.script.pop(0) if self.script else (200, {}, [])
        last = not self.script and not chunks
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.close_connection = True
        try:
            for chunk in chunks:
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            while last and not self.ended.wait(0.2):
                mark = event("BOOKMARK", {"metadata": {"resourceVersion": "1000"}}) + b"\n"
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(mark), mark))
            handler.wfile.write(b"0\r\n\r\n")
        except OSError:  # the client has gone
            return

    def close(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    made = Scripted()
    yield made
    made.close()


def kubeconfig(folder: Path, url: str, **user: str) -> Path:
    entries = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "x", **entries}))
    return path


@pytest.fixture
def server(scripted: Scripted, tmp_path: Path) -> Iterator[ApiServer]:
    (tmp_path / "token").write_text("first\n")
    made = ApiServer(str(kubeconfig(tmp_path, scripted.url, tokenFile="token")), timeout=1.0)
    yield made
    made.close()


def wait_for(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Runs:
    """A Watching in a thread, until the end of the context."""

    def __init__(self, server: ApiServer) -> None:
        self.watching = Watching(server, Reflector(SERVICES), QUICK, lambda: 0.5)
        self._thread = threading.Thread(target=self.watching.run)

    def __enter__(self) -> Runs:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.watching.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()

    @property
    def names(self) -> set[str]:
        return set(self.watching.reflector.objects)

    def count(self, name: str) -> int:
        return self.watching.reflector.counts[name]


def test_every_trouble_in_turn_and_in_step_at_the_end(scripted: Scripted, server: ApiServer) -> None:
    lines = [event("ADDED", item("b", "11")) + b"\n", event("DELETED", item("a", "12")) + b"\n"]
    scripted.script = [
        status_of(500),
        status_of(503, Retry_After="0"),
        status_of(429, Retry_After="0"),
        (200, {}, [b"<html>a proxy's page</html>"]),
        (200, {}, [page(item("a"))[:-9]]),
        (200, {}, [page(item("gone"), more="expires")]),
        status_of(410, "the provided continue parameter is too old"),
        pages("a"),
        (200, {}, [*lines, b'{"type": "MODIFIED", "object": {"cut']),
        (200, {}, [event("MODIFIED", item("b", "13", externalName="x.example"))[:9], b"\n"]),
        pages("b", "c", version="20"),
        (200, {}, [event("ERROR", {"code": 410, "message": "too old resource version"}) + b"\n"]),
        pages("c", "d", version="30"),
        status_of(410),
        pages("c", version="40"),
        status_of(504, "Too large resource version"),
        pages("c", "e", version="50"),
        status_of(500),
        (200, {}, [b"\n", event("NEW", {}) + b"\n", event("ADDED", item("f", "51")) + b"\n"]),
    ]
    with Runs(server) as runs:
        wait_for(
            lambda: not scripted.script and runs.watching.status()["state"] == "synced" and runs.names == {f"shop/{name}" for name in "cef"}
        )
    told = [query.get("resourceVersion") or query.get("continue") for query, _ in scripted.asked]
    assert told == [None] * 6 + ["expires", None, "10", "12", None, "20", None, "30", None, "40", None, "50", "50", "51"]
    counts = runs.watching.reflector.counts
    assert (counts["gone"], counts["unknown_events"], counts["lists"]) == (3, 1, 5)


def test_credentials_that_expired_are_read_again(scripted: Scripted, server: ApiServer, tmp_path: Path) -> None:
    """The client itself never reads a kubeconfig's tokenFile again."""
    scripted.script = [pages(), pages("a"), (200, {}, [b"\n"]), status_of(401, "Unauthorized")]
    with server.get("/x", {}) as stream:
        stream.read(9_999, 5.0)
    (tmp_path / "token").write_text("second\n")
    with Runs(server):
        wait_for(lambda: len(scripted.asked) == 5)
    assert [token for _, token in scripted.asked] == ["Bearer first"] * 4 + ["Bearer second"]
    assert server.generation == 1


def test_a_right_that_is_missing_is_named(scripted: Scripted, server: ApiServer) -> None:
    scripted.script = [status_of(403, 'services is forbidden: User "system:serviceaccount:a:b" cannot list resource "services"')] * 50
    with Runs(server) as runs:
        wait_for(lambda: runs.watching.settled)
        status = runs.watching.status()
        assert (status["state"], status["synced"]) == ("forbidden", False)
        assert (
            'cannot list resource "services"; the ClusterRole lacks the rule apiGroups: [""], resources: ["services"], verbs: ["list",'
            in status["error"]
        )
        scripted.script = [pages("a")]
        wait_for(lambda: runs.watching.status()["state"] == "synced")
        assert runs.watching.settled


def test_an_event_that_is_too_long_costs_itself(scripted: Scripted, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_LIMIT", 5_000)
    large, small = event("ADDED", item("large", "11", externalName="x" * 9_999)), event("ADDED", item("small", "12"))
    scripted.script = [pages("a"), (200, {}, [large[:3_000], large[3_000:], b"\n" + small + b"\n"])]
    with Runs(server) as runs:
        wait_for(lambda: runs.names == {"shop/a", "shop/small"})
        assert (runs.count("refused"), runs.count("lists")) == (1, 1)


def test_a_page_that_is_too_long_is_not_read(scripted: Scripted, server: ApiServer) -> None:
    scripted.script = [pages("a")]
    with server.get("/x", {}) as stream, pytest.raises(SourceMalformed, match="more than 100 bytes"):
        stream.read(100, 5.0)


def test_silence_ends_in_a_list(scripted: Scripted, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_SECONDS", 0.5)
    mute = threading.Event()
    first = scripted.answer

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if len(scripted.asked) == 1 and not mute.is_set():
            scripted.asked.append(({"mute": "true"}, ""))
            mute.wait(30)
        first(handler)

    monkeypatch.setattr(scripted, "answer", answer)
    scripted.script = [pages("a"), pages("b", version="20")]
    with Runs(server) as runs:
        wait_for(lambda: runs.names == {"shop/b"})
        mute.set()
    assert runs.count("silent") == 1


@pytest.mark.parametrize(("said", "waits"), [("7", 7.0), ("999999999", 120.0), ("-1", 0.0), ("soon", 0.0), ("1e9", 0.0), ("\u0667", 7.0)])
def test_retry_after_is_honoured_within_bounds(scripted: Scripted, server: ApiServer, said: str, waits: float) -> None:
    if said.isascii():
        scripted.script = [status_of(429, Retry_After=said)]
        with pytest.raises(ApiError) as refused:
            server.get("/x", {})
        assert (refused.value.status, refused.value.retry_after) == (429, waits)
    again = Watching(server, Reflector[Service](SERVICES), QUICK, lambda: 0.0)
    assert again._failed(ApiError(429, "busy", waits)) == max(waits, 0.01)


def test_the_first_410_is_listed_at_once_and_a_server_that_says_nothing_else_is_not_pressed(server: ApiServer) -> None:
    watching = Watching(server, Reflector[Service](SERVICES), QUICK, lambda: 0.0)
    waits = [watching._failed(error) for error in (*[SourceAbsent("away")] * 9, *[ApiError(410, "too old")] * 4)]
    assert waits[:4] == [0.01, 0.02, 0.04, 0.05]
    assert waits[9:] == [0.01, 0.02, 0.04, 0.05]


@pytest.mark.parametrize(
    ("user", "kind", "message"),
    [
        ({"tokenFile": "absent"}, SourceAbsent, "credentials of the API server: .*kubeconfig.*absent"),
        ({"token": "two\nlines"}, SourceMalformed, "characters that a token cannot have"),
        ({"client-certificate": "absent"}, SourceAbsent, "credentials of the API server"),
    ],
)
def test_credentials_that_cannot_be_used(tmp_path: Path, user: dict[str, str], kind: type[SourceError], message: str) -> None:
    made = ApiServer(str(kubeconfig(tmp_path, "https://127.0.0.1:9", **user)), timeout=1.0)
    with pytest.raises(kind, match=message) as refused:
        made.get("/x", {})
    assert "lines" not in str(refused.value)
    assert str(refused.value).isprintable()


def test_where_nothing_is_set_up_that_is_said(tmp_path: Path) -> None:
    for made in (ApiServer(str(tmp_path / "absent")), ApiServer(service_account=str(tmp_path))):
        with pytest.raises(SourceAbsent, match=r"set kubernetes.kubeconfig"):
            made.get("/x", {})


def test_nobody_there(tmp_path: Path, scripted: Scripted) -> None:
    absent = ApiServer(str(kubeconfig(tmp_path, "http://127.0.0.1:1")), timeout=1.0)
    with pytest.raises(SourceAbsent, match=r"127.0.0.1:1"):
        absent.get("/x", {})
    not_tls = ApiServer(str(kubeconfig(tmp_path, scripted.url.replace("http", "https"))), timeout=1.0)
    with pytest.raises(SourceError, match=r"127.0.0.1"):
        not_tls.get("/x", {})


def test_a_server_that_accepts_and_says_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        made = ApiServer(str(kubeconfig(tmp_path, f"http://127.0.0.1:{mute.getsockname()[1]}")), timeout=0.2)
        with pytest.raises(SourceTimeout, match=r"silent for 0.2 s"):
            made.get("/x", {})
        made.close()
