"""flows, metadata and status over a store that real commits have filled, with no rayscope running."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cluster.cli.main import main
from cluster.cli.status import remarks
from cluster.cli.units import age_text, bytes_text
from cluster.core.checkpoint import NodeState
from cluster.core.records import Flag
from cluster.stores.sqlite import SqliteStore
from tests.stores.commits import commit, departed, record

NOW = 1_700_000_000.0
UNCOVERED = {"uncovered": [[NOW - 60, NOW - 30, "another tracer"]], "polls": 7, "missed": 2, "connections": 3, "seen_at": NOW}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store in the place where the command looks for it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = tmp_path / "state" / "rayscope" / "rayscope.db"
    writer = SqliteStore(path)
    rows = (
        record(1, sent=2**63 + 5, recv=70, base_sent=30, first_seen=NOW - 9, last_seen=NOW),
        record(2, slot=1, source="fd00::1", dest="fd00::2", protocol=1, flags=int(Flag.BYTES_UNKNOWN), last_seen=NOW),
        departed(3, sport=41000, sent=10, recv=11, last_seen=NOW - 3_600, local="", remote="unit/nginx.service"),
    )
    node = NodeState("one", 5, 9, 3, status=UNCOVERED)
    metadata = {"10.0.0.1": {"docker": {"c1": {"kind": "container", "name": "web", "workload": "container/web"}}}}
    writer.commit(commit(1, writer.open().fence, *rows, at=NOW, nodes=(node,), metadata=metadata))
    writer.close()
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_flows_as_json_has_everything_and_says_where_it_is_from(store: Path) -> None:
    result = run("flows", "--json")
    first, *others = json.loads(result.stdout)
    assert len(others) == 2
    assert first["key"] == "10.0.0.1-10.0.0.2-40000-443"
    assert (first["monotonic_sent_bytes"], first["total_sent_bytes"], first["total_recv_bytes"]) == (2**63 + 5, 2**63 + 35, 70)
    assert f"from the store {store}" in result.stderr


def test_unknown_bytes_are_null_and_closed_connections_stay(store: Path) -> None:
    assert store
    by_protocol = {one["protocol"]: one for one in json.loads(run("flows", "--json", "--protocol", "udp").stdout)}
    assert by_protocol["udp"]["total_sent_bytes"] is None
    closed = json.loads(run("flows", "--json", "--state", "closed").stdout)
    assert [one["sport"] for one in closed] == [41000]


@pytest.mark.parametrize(
    ("options", "ports"),
    [
        (["--port", "41000"], {41000}),
        (["--address", "10.0.0.0/8"], {40000, 41000}),
        (["--workload", "nginx"], {41000}),
        (["--node", "other"], set()),
        (["--limit", "1", "--sort", "sent"], {40000}),
    ],
)
def test_filters(store: Path, options: list[str], ports: set[int]) -> None:
    assert store
    assert {one["sport"] for one in json.loads(run("flows", "--json", *options).stdout)} == ports


def test_the_table_says_unknown_and_what_it_left_out(store: Path) -> None:
    assert store
    result = run("flows", "--limit", "2")
    assert "[fd00::1]:40000" in run("flows", "--protocol", "udp").stdout
    assert "unknown" in run("flows", "--protocol", "udp").stdout
    assert "the first 2, by bytes" in result.stderr
    assert "unattributed" in run("flows", "--state", "closed").stdout


def test_metadata_by_address(store: Path) -> None:
    assert store
    assert json.loads(run("metadata", "10.0.0.1", "--json").stdout)["10.0.0.1"]["docker"]["c1"]["name"] == "web"
    assert "container/web" in run("metadata").stdout
    unknown = run("metadata", "10.9.9.9")
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert "nothing is known of 10.9.9.9" in unknown.stderr


def test_status_shows_when_nobody_looked(store: Path) -> None:
    assert store
    status = json.loads(run("status", "--json").stdout)
    assert (status["missed"], status["nodes"][0]["state"]) == (2, "silent")
    assert "one was not covered from" in run("status").stdout


def test_without_store_and_actors_there_is_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    result = run("flows")
    assert result.exit_code == 1
    assert "start it with `rayscope up`" in result.stderr


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "unknown"), (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1024**2 - 1, "1024.0 KiB"), (1024**4, "1.0 TiB")],
)
def test_bytes_as_people_read_them(count: int | None, text: str) -> None:
    assert bytes_text(count) == text


def test_ages_as_people_read_them() -> None:
    assert [age_text(age) for age in (None, -1.0, 5.0, 90.0, 7_200.0, 200_000.0)] == [
        "never",
        "0s ago",
        "5s ago",
        "2m ago",
        "2h ago",
        "2d ago",
    ]


def test_no_transaction_is_an_answer_too(store: Path) -> None:
    assert store
    assert "no transaction is known that fits" in run("flows", "--port", "1").stderr
    assert json.loads(run("flows", "--json", "--port", "1").stdout) == []


@pytest.mark.parametrize("address", ["nonsense", "10.0.0.0/33", "", "1.2.3"])
def test_an_address_that_is_none_is_wrong_usage_before_anything_is_asked(store: Path, address: str) -> None:
    assert store
    result = run("flows", "--address", address)
    assert result.exit_code == 2
    assert "is neither an address nor a network such as 10.0.0.0/8" in result.stderr
    assert "from the store" not in result.stderr


def test_status_tells_a_person_what_stands_in_the_way() -> None:
    sources = {"kubelet": {"state": "failed", "reason": "refused", "insecure_tls": True}, "docker": {"state": "absent"}, "proc": 7}
    nodes = [
        {"node": "one", "status": {"refused": {"pid": 1_800, "source": 2}}},
        {"node": "two", "status": {"metadata": sources}},
        {"node": "three", "status": {"metadata": 7}},
    ]
    supervisor = {"nodes": {"one": "", "two": "/run/t.sock: no such socket"}}
    said = {"nodes": nodes, "supervisor": supervisor, "uncovered": [], "store_error": "the disk is full"}
    assert list(remarks(said)) == [
        "two: /run/t.sock: no such socket",
        "one refused: pid 1,800, source 2",
        "two has no kubelet metadata: refused",
        "two does not verify the certificate of its kubelet (kubelet.insecure_tls)",
        "the store does not take commits: the disk is full",
    ]
