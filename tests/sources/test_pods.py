"""What is decoded of pods: the real document of a kubelet, and what nobody should send."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from cluster.core.errors import SourceMalformed
from cluster.core.kinds import record
from cluster.core.parts import RECORD_LIMIT
from cluster.sources.pods import Page, decode_pods

REAL = Path(__file__).parent / "data" / "kubelet-pods.json"  # GET /pods of a kubelet 1.36 with containerd
SECRET = "hunter2-do-not-tell"
UID = "d20251d6-5e49-4860-bb5b-58e2741948a7"
A, B, C = "3f" * 32, "b7" * 32, "c9" * 32
GONE = object()


def pod(**fields: Any) -> dict[str, Any]:
    """A small pod; a double underscore goes one level down, GONE takes away."""
    made: dict[str, Any] = {
        "metadata": {"name": "cart-x2x", "namespace": "shop", "uid": UID},
        "spec": {"nodeName": "worker-1", "containers": [{"name": "web", "image": "shop/web:1", "ports": [{"containerPort": 8080}]}]},
        "status": {
            "phase": "Running",
            "startTime": "2026-11-23T23:15:27Z",
            "podIP": "10.244.0.40",
            "podIPs": [{"ip": "10.244.0.40"}, {"ip": "fd00::0028"}],
            "containerStatuses": [
                {"name": "web", "containerID": f"containerd://{A}", "state": {"running": {"startedAt": "2026-11-23T23:17:36Z"}}}
            ],
        },
    }
    for path, value in fields.items():
        *parents, last = path.split("__")
        place = made
        for parent in parents:
            place = place[parent]
        if value is GONE:
            place.pop(last, None)
        else:
            place[last] = value
    return made


def page(*pods: Any, limit: int = 100) -> Page:
    return decode_pods(json.dumps({"kind": "PodList", "items": list(pods)}).encode(), limit)


def one(**fields: Any) -> dict[str, Any]:
    """The record of a pod with these fields."""
    (found,) = page(pod(**fields)).found
    return record(found.pod)


def test_the_real_document_of_a_kubelet() -> None:
    read = decode_pods(REAL.read_bytes(), 100)
    assert (read.refused, read.left_out, read.more) == (0, 0, "")
    by_name = {each.pod.name: record(each.pod) for each in read.found}
    assert by_name["web-5774f55fcc-dn95m"] == {
        "kind": "pod",
        "workload": "pod/lab/web-5774f55fcc-dn95m",
        "uid": UID,
        "name": "web-5774f55fcc-dn95m",
        "namespace": "lab",
        "addresses": ["10.244.0.40"],
        "owner": {"kind": "ReplicaSet", "name": "web-5774f55fcc", "uid": "46debe35-055c-46fe-b84c-ae85aad27540"},
        "labels": {"app": "web", "app.kubernetes.io/name": "web", "pod-template-hash": "5774f55fcc"},
        "phase": "Running",
        "started": 1_795_475_727,
        "node": "lab0",
        "containers": [
            {
                "id": "39592756c740fcf84dc0f8f03acb8380769c976f42d7d2686e6a3481224a383e",
                "name": "web",
                "image": "registry.lab/busybox:1.35",
                "ports": ["8080/tcp"],
                "state": "running",
            },
            {
                "id": "4dab038e7e4a773b961cfa1e5b319811bc20248dd4e7f046d38a576e68880b2e",
                "name": "side",
                "image": "registry.lab/busybox:1.35",
                "state": "running",
            },
        ],
    }
    assert by_name["agent-nrhms"]["host_network"] is True
    assert by_name["agent-nrhms"]["addresses"] == ["10.99.0.1"]
    assert [each["state"] for each in by_name["besteffort"]["containers"]] == ["terminated"]
    (besteffort,) = (each for each in read.found if each.pod.name == "besteffort")
    assert len(besteffort.containers) == 2, "the one that prepared the pod is its own, too"


def test_environment_arguments_volumes_annotations_and_managed_fields_are_in_no_record() -> None:
    hidden = {"env": [{"name": "PW", "value": SECRET}], "command": [SECRET], "args": [f"--password={SECRET}"], "workingDir": f"/{SECRET}"}
    probe = {"httpGet": {"httpHeaders": [{"name": "Authorization", "value": SECRET}]}}
    container = {"name": "web", "image": "shop/web:1", **hidden, "readinessProbe": probe, "envFrom": [{"secretRef": {"name": SECRET}}]}
    made = pod(
        metadata__annotations={"kubectl.kubernetes.io/last-applied-configuration": SECRET, SECRET: SECRET},
        metadata__managedFields=[{"fieldsV1": {f"f:{SECRET}": {}}}],
        spec__containers=[container],
        spec__initContainers=[{**container, "name": "init"}],
        spec__volumes=[{"name": SECRET, "secret": {"secretName": SECRET}}, {"csi": {"volumeAttributes": {"password": SECRET}}}],
        spec__imagePullSecrets=[{"name": SECRET}],
        status__message=SECRET,
        status__conditions=[{"message": SECRET}],
    )
    made["status"]["containerStatuses"][0]["lastState"] = {"terminated": {"message": SECRET}}
    made["status"]["containerStatuses"][0]["state"] = {"running": {"startedAt": SECRET}, "waiting": {"message": SECRET, "reason": SECRET}}
    read = page(made)
    assert read.found[0].pod.containers[0].image == "shop/web:1"
    assert SECRET not in repr(read)


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata__uid": GONE},
        {"metadata__uid": 7},
        {"metadata__uid": ""},
        {"metadata__uid": "a/b"},
        {"metadata__uid": "x" * 65},
        {"metadata__name": GONE},
        {"metadata__name": "a/b"},
        {"metadata__name": "A"},
        {"metadata__name": "a\n"},
        {"metadata__name": "x" * 254},
        {"metadata__namespace": "x" * 64},
        {"metadata__namespace": "../kube-system"},
        {"metadata__labels": ["app"]},
        {"metadata__labels": {"app": 7}},
        {"spec__containers": {"name": "web"}},
        {"spec__containers": [{"name": None}]},
        {"spec__hostNetwork": "yes"},
        {"status__podIPs": "10.0.0.1"},
        {"status__containerStatuses": [{"name": "web", "state": "running"}]},
    ],
)
def test_a_bad_pod_costs_only_itself(fields: dict[str, Any]) -> None:
    good = pod(metadata__uid="other", metadata__name="other")
    read = page(pod(**fields), good, None, 7, [], {})
    assert [each.pod.name for each in read.found] == ["other"]
    assert read.refused == 5


def test_bytes_that_are_no_text_cost_only_their_pod() -> None:
    body = b'{"items": [' + json.dumps(pod()).encode().replace(b"cart-x2x", b"\xff\xfe") + b"," + json.dumps(pod()).encode() + b"]}"
    read = decode_pods(body, 10)
    assert (len(read.found), read.refused) == (1, 1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"kind":"Status","code":403}',
        b'{"items": {}}',
        b'{"items": [}',
        b'{"items": [{"metadata":',
        b"<html>",
        b"\xff\xff",
        b'{"items": [' + b"[" * 100_000,
        b'{"items": [], "metadata": {"continue": 7}}',
    ],
)
def test_what_is_no_list_of_pods_is_malformed(body: bytes) -> None:
    with pytest.raises(SourceMalformed, match="not a list of pods"):
        decode_pods(body, 10)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a document, as what holds it and its key there."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from places(inner)


def test_whatever_stands_anywhere_a_list_is_read_or_malformed() -> None:
    chance = random.Random(7)
    for _ in range(300):
        document = json.loads(REAL.read_bytes())
        for holder, key in chance.sample(list(places(document)), 3):
            holder[key] = chance.choice([None, "", "\x00", 7, -1, 2**70, 1.5, True, [], {}, [None], {"": None}, "x" * 1_000])
        body = json.dumps(document).encode()
        for sent in (body, body[: chance.randrange(len(body))]):
            try:
                read = decode_pods(sent, 100)
            except SourceMalformed:
                continue
            assert len(read.found) + read.refused == len(json.loads(sent)["items"] or ())
            json.dumps([record(each.pod) for each in read.found])


def test_an_empty_list_is_none_and_all_that_may_be_null_or_absent_may() -> None:
    assert decode_pods(b'{"items": null, "metadata": null}', 10) == Page((), 0, 0, "")
    assert decode_pods(b'{"items": [], "metadata": {"continue": "abc"}}', 10).more == "abc"
    least = one(spec=GONE, status=GONE, metadata__namespace=GONE)
    assert least == {"kind": "pod", "workload": "pod/default/cart-x2x", "uid": UID, "name": "cart-x2x", "namespace": "default"}
    nulls = {"containers": None, "initContainers": None, "nodeName": None, "hostNetwork": None}
    assert one(spec=nulls, status=dict.fromkeys(("phase", "podIP", "podIPs", "containerStatuses", "startTime")))["workload"]


def test_more_pods_than_the_limit_are_counted_and_not_looked_at() -> None:
    read = page(*[pod(metadata__uid=f"u{number}") for number in range(7)], limit=3)
    assert ([each.pod.uid for each in read.found], read.left_out) == (["u0", "u1", "u2"], 4)


def test_addresses_are_written_as_connections_have_them() -> None:
    assert one()["addresses"] == ["10.244.0.40", "fd00::28"]
    assert "addresses" not in one(status__podIP="", status__podIPs=[{"ip": "127.0.0.1"}, {"ip": "0.0.0.0"}, {"ip": "x"}, {}])
    assert one(status__podIP="::ffff:10.0.0.1", status__podIPs=None)["addresses"] == ["10.0.0.1"]
    waiting = one(spec__hostNetwork=True, status__podIP=None, status__podIPs=None, status__hostIP="192.0.2.7")
    assert waiting["addresses"] == ["192.0.2.7"]
    assert "addresses" not in one(status__podIP=None, status__podIPs=None, status__hostIP="192.0.2.7")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"containerd://{A}", A),
        (f"cri-o://{A}", A),
        (f"docker://{A}", A),
        (A, A),
        (f"rkt://{A[:-1]}", ""),
        ("", ""),
        (None, ""),
        (f"containerd://{A}/../x", ""),
        (f"CONTAINERD://{A}", ""),
    ],
)
def test_a_container_id_loses_the_runtimes_name(text: str | None, expected: str) -> None:
    made = pod()
    made["status"]["containerStatuses"][0]["containerID"] = text
    (found,) = page(made).found
    assert found.containers == ({expected} if expected else set())
    assert found.pod.containers[0].id == expected


def test_sidecars_and_debuggers_are_containers_while_they_run() -> None:
    running: dict[str, Any] = {"running": {}}
    done = {"terminated": {"finishedAt": "2026-11-23T23:17:56Z"}}
    made = pod(
        spec__initContainers=[
            {"name": "setup"},
            {"name": "proxy", "ports": [{"containerPort": 15001, "protocol": "UDP"}]},
            {"name": "later"},
        ],
        spec__ephemeralContainers=[{"name": "debug"}],
        status__initContainerStatuses=[
            {"name": "setup", "containerID": f"containerd://{B}", "state": done},
            {"name": "proxy", "containerID": f"containerd://{C}", "state": running},
        ],
        status__ephemeralContainerStatuses=[{"name": "debug", "state": {"waiting": {}}}],
    )
    (found,) = page(made).found
    assert [(each.name, each.state, each.ports) for each in found.pod.containers] == [
        ("web", "running", ("8080/tcp",)),
        ("proxy", "running", ("15001/udp",)),
        ("debug", "waiting", ()),
    ]
    assert found.containers == {A, B, C}


def test_an_end_is_the_last_containers_of_a_pod_that_is_over() -> None:
    states = [{"name": name, "state": {"terminated": {"finishedAt": f"2026-11-23T23:17:{at}Z"}}} for name, at in (("a", 10), ("b", 20))]
    running = {"name": "c", "state": {"running": {}}}
    assert "ended" not in one(status__containerStatuses=states), "they are started again"
    assert one(status__containerStatuses=states, status__phase="Succeeded")["ended"] == 1_795_475_840
    assert one(status__containerStatuses=states, metadata__deletionTimestamp="2026-11-24T00:00:00Z")["ended"] == 1_795_475_840
    assert "ended" not in one(status__containerStatuses=[*states, running], metadata__deletionTimestamp="2026-11-24T00:00:00Z")
    assert one(status__containerStatuses=None, metadata__deletionTimestamp="2026-11-24T00:00:00Z")["ended"] == 1_795_478_400
    assert "ended" not in one(status__containerStatuses=None, status__phase="Failed")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-23T23:15:27Z", 1_795_475_727),
        ("2026-11-24T00:15:27.999999+01:00", 1_795_475_727),
        ("1960-01-01T00:00:00Z", None),
        ("2026-11-23T23:15:27", None),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_times_are_seconds_since_1970_or_unknown(text: str | None, seconds: int | None) -> None:
    assert one(status__startTime=text).get("started") == seconds


def test_the_owner_is_the_one_that_controls() -> None:
    owners = [{"kind": "Foo", "name": "a", "uid": "1"}, {"kind": "Job", "name": "b", "uid": "2", "controller": True}]
    assert one(metadata__ownerReferences=owners)["owner"] == {"kind": "Job", "name": "b", "uid": "2"}
    assert "owner" not in one(metadata__ownerReferences=owners[:1])


def test_the_largest_pod_that_the_api_lets_through_travels() -> None:
    labels = {f"{'x' * 253}/{number:063}": "v" * 63 for number in range(200)}
    containers = [
        {
            "name": f"{number:063}",
            "image": "i" * 255,
            "ports": [{"containerPort": port, "protocol": "SCTP"} for port in range(60_000, 60_100)],
        }
        for number in range(100)
    ]
    statuses = [{"name": each["name"], "containerID": f"containerd://{A}", "state": {"terminated": {}}} for each in containers]
    (found,) = page(
        pod(
            metadata__name="n" * 253,
            metadata__namespace="s" * 63,
            metadata__labels=labels,
            spec__containers=containers,
            status__containerStatuses=statuses,
            status__podIPs=[{"ip": f"2001:db8:1111:1111:1111:1111:1111:{number:x}"} for number in range(4096, 4196)],
        )
    ).found
    packed = record(found.pod)
    assert len(msgpack.packb(("kubelet", "2001:db8::1", UID, packed))) < RECORD_LIMIT - 1_000  # less the processes, which are found later
    assert len(packed["workload"]) == 300
