"""What a person sees of the actors in Ray: names, metrics, logs; and how their processes run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import ray

from actors.metrics import Metrics
from actors.options import AGGREGATOR, INGEST, SUPERVISOR
from cluster.core.wire import unpack_answer
from tests.actors.conftest import NODE, ROLES, Running
from tests.actors.waiting import wait_for

pytestmark = pytest.mark.ray
WANTED = {
    "collector": ("rows", "sent_parts_total", "kept_bytes"),
    AGGREGATOR: ("rows", "batches_total", "refused_total", "lag_seconds", "commit_age_seconds"),
    "storage_writer": ("commits_total", "committed_rows_total", "commit_seconds"),
    SUPERVISOR: ("nodes", "covered_nodes"),
    "test": ("folded_total",),  # a count appears once it is more than 0
}
OURS = {"role", "node"}
RAYS = {"Component", "NodeAddress", "SessionName", "Version", "WorkerId"}  # of the process
KEYS = "from ray._raylet import GcsClient; GcsClient(address={address!r}).internal_kv_keys(b'', None, timeout=10)"


def samples() -> list[tuple[str, dict[str, str]]]:
    """Our metrics on the node's port: name without the prefix, labels."""
    port = next(node["MetricsExportPort"] for node in ray.nodes() if node["Alive"])
    with urllib.request.urlopen(f"http://{ray.util.get_node_ip_address()}:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    lines = re.findall(r"^ray_rayscope_(\w+)\{(.*)\} ", text, re.MULTILINE)
    return [(name, dict(re.findall(r'(\w+)="([^"]*)"', labels))) for name, labels in lines]


@pytest.mark.slow  # Ray collects metrics every ten seconds
def test_metrics_of_every_actor_are_on_the_nodes_port_with_bounded_labels(running: Running) -> None:
    assert unpack_answer(running.peer(AGGREGATOR).call("ingest", b"no part", group=INGEST)).verdict == "refused"
    mine = Metrics("test")
    mine.count_to("folded", 2)
    mine.count_to("folded", 3)

    def complete() -> bool:
        found = {(labels["role"], name) for name, labels in samples()}
        return {(role, name) for role, names in WANTED.items() for name in names} <= found

    wait_for(complete)
    for _, labels in samples():
        assert {key for key in labels if not key.startswith("otel_")} == OURS | RAYS
        assert labels["node"] == "" or labels["role"] == "collector"


def test_logs_are_json_and_name_the_actor(running: Running) -> None:
    running.pid(AGGREGATOR)
    session = Path(running.settings.ray.temp_dir or "") / "session_latest" / "logs"
    logs = [line for path in session.glob("worker-*.err") for line in path.read_text(errors="replace").splitlines()]
    records = [json.loads(line) for line in logs if line.startswith("{")]
    opened = [record for record in records if record["message"] == "store open"]
    assert AGGREGATOR in {record["actor_name"] for record in opened}  # another test may have had a rival open it, too
    assert all(record["actor_name"] and record["levelname"] == "INFO" and record["fence"] >= 1 for record in opened)


def test_each_actor_says_who_it_is(running: Running) -> None:
    every = running.settings.store.commit_interval
    wanted = {
        f"NodeCollector({NODE}, {running.socket})",
        f"StorageWriter({running.store})",
        f"Aggregator(commits every {every:g} s)",
        "Supervisor(every 2 s)",
    }
    lines = [line for path in logs(running) for line in path.read_text(errors="replace").splitlines()]
    assert {f":actor_name:{text}" for text in wanted} <= set(lines)


def logs(running: Running) -> list[Path]:
    """The output of Ray's workers."""
    return list((Path(running.settings.ray.temp_dir or "") / "session_latest" / "logs").glob("worker-*.out"))


def test_actors_run_at_the_niceness_of_ray_itself(running: Running) -> None:
    assert {os.getpriority(os.PRIO_PROCESS, running.pid(role)) for role in ROLES} == {os.getpriority(os.PRIO_PROCESS, 0)}


def test_ray_refuses_whoever_has_no_token(running: Running) -> None:
    def ask(**environment: str) -> subprocess.CompletedProcess[str]:
        code = KEYS.format(address=running.address)
        return subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=90)

    assert ask().returncode == 0
    for stranger in (ask(RAY_AUTH_MODE="disabled"), ask(RAY_AUTH_TOKEN="0" * 64)):
        assert stranger.returncode == 1
        assert "InvalidAuthToken" in stranger.stderr


def test_the_object_store_is_bounded(running: Running) -> None:
    assert 0 < ray.cluster_resources()["object_store_memory"] <= running.settings.ray.object_store_bytes
