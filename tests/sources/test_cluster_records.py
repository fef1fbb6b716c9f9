from __future__ import annotations

import json
import random
from typing import Any

import msgpack
import msgspec
import pytest

from cluster.core.kinds import record
from cluster.core.parts import RECORD_LIMIT
from cluster.sources import cluster_objects
from cluster.sources.cluster_objects import Slice
from cluster.sources.cluster_records import ClusterRecords, backends

WEB = {
    "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "annotations": {"secret": "in-an-annotation"}},
    "spec": {
        "type": "LoadBalancer",
        "clusterIP": "10.96.0.7",
        "clusterIPs": ["10.96.0.7", "FD00::7"],
        "externalIPs": ["192.0.2.1"],
        "ports": [
            {"name": "http", "protocol": "TCP", "port": 80, "targetPort": "web", "nodePort": 30080},
            {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 5353},
        ],
        "selector": {"app": "web"},
        "sessionAffinity": "ClientIP",
    },
    "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.4"}, {"hostname": "lb.example"}]}},
}


def raw(thing: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(thing).encode())


def a_slice(name: str, *addresses: str, ready: Any = True, kind: str = "IPv4", ports: Any = None) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{name}-x", "namespace": "shop", "uid": "s", "labels": {"kubernetes.io/service-name": name}},
        "addressType": kind,
        "endpoints": [{"addresses": [each], "conditions": {"ready": ready}} for each in addresses],
        "ports": ports,
    }


HTTP = [{"name": "http", "protocol": "TCP", "port": 8080}]


class Cluster:
    """Objects, and the records that are kept of them."""

    def __init__(self, **further: Any) -> None:
        self.objects: dict[str, dict[str, Any]] = {name: {} for name in ("services", "endpointslices", "nodes", "replicasets", "jobs")}
        self.made = ClusterRecords(**further)

    def put(self, resource: str, **things: Any) -> None:
        for key, thing in things.items():
            if thing is None:
                self.objects[resource].pop(f"shop/{key}")
            else:
                slim = next(one.slim for one in cluster_objects.RESOURCES if one.name == resource)
                self.objects[resource][f"shop/{key}"] = slim(raw(thing))
        self.made.update(self.objects, {resource: {f"shop/{key}" for key in things}})


def test_a_service_stands_under_each_of_its_addresses() -> None:
    cluster = Cluster()
    cluster.put("services", web=WEB)
    assert {address for address, _ in cluster.made.records} == {"10.96.0.7", "fd00::7", "192.0.2.1", "198.51.100.4"}
    assert cluster.made.records["10.96.0.7", "u1"] == {
        "kind": "service",
        "workload": "service/shop/web",
        "uid": "u1",
        "name": "web",
        "namespace": "shop",
        "type": "LoadBalancer",
        "addresses": ["10.96.0.7", "fd00::7", "192.0.2.1", "198.51.100.4"],
        "ports": [
            {"port": 80, "protocol": "tcp", "name": "http", "target": "web", "node_port": 30080},
            {"port": 53, "protocol": "udp", "name": "dns", "target": 5353},
        ],
        "selector": {"app": "web"},
        "affinity": "ClientIP",
    }


def test_a_service_without_address_stands_under_its_name() -> None:
    cluster = Cluster()
    headless = {"metadata": {"name": "db", "namespace": "shop", "uid": "u2"}, "spec": {"clusterIP": "None", "clusterIPs": ["None"]}}
    outside = {"metadata": {"name": "out", "namespace": "shop", "uid": "u3"}, "spec": {"type": "ExternalName", "externalName": "x.example"}}
    cluster.put("services", db=headless, out=outside)
    assert set(cluster.made.records) == {("service/shop/db", "u2"), ("service/shop/out", "u3")}
    assert cluster.made.records["service/shop/out", "u3"]["external_name"] == "x.example"


def test_backends_by_the_port_of_the_service() -> None:
    cluster = Cluster()
    cluster.put("endpointslices", one=a_slice("web", "10.1.0.2", "10.1.0.1", ports=HTTP))
    assert cluster.made.records == {}, "a slice alone is nothing"
    cluster.put("services", web=WEB)
    assert cluster.made.records["10.96.0.7", "u1"]["backends"] == {"80/tcp": ["10.1.0.1:8080", "10.1.0.2:8080"]}
    cluster.put("endpointslices", two=a_slice("web", "fd00::1", kind="IPv6", ports=HTTP), three=a_slice("web", "10.1.0.1", ports=HTTP))
    assert cluster.made.records["10.96.0.7", "u1"]["backends"]["80/tcp"] == ["10.1.0.1:8080", "10.1.0.2:8080", "[fd00::1]:8080"]
    cluster.put("endpointslices", one=None)
    assert cluster.made.records["fd00::7", "u1"]["backends"] == {"80/tcp": ["10.1.0.1:8080", "[fd00::1]:8080"]}
    cluster.put("endpointslices", three=a_slice("other", "10.1.0.1", ports=HTTP), two=None)
    assert "backends" not in cluster.made.records["10.96.0.7", "u1"]
    cluster.put("services", web=None)
    assert cluster.made.records == {}


def test_ports_that_the_service_does_not_have_stand_under_their_own_number() -> None:
    slices = [Slice("shop/db", "10.1.0.1", (("pg", 5432, "tcp"),)), Slice("shop/db", "10.1.0.2 fd00::1", ())]
    assert backends([], slices) == {"": ["10.1.0.2", "fd00::1"], "5432/tcp": ["10.1.0.1:5432"]}


@pytest.mark.parametrize(
    ("conditions", "counts"),
    [
        (None, True),
        ({}, True),
        ({"ready": None}, True),
        ({"ready": True}, True),
        ({"ready": False}, False),
        ({"ready": False, "serving": False, "terminating": True}, False),
        ({"ready": False, "serving": True, "terminating": True}, True),
    ],
)
def test_an_endpoint_counts_while_it_takes_traffic(conditions: Any, counts: bool) -> None:
    thing = {**a_slice("web"), "endpoints": [{"addresses": ["10.1.0.1"], "conditions": conditions}]}
    assert cluster_objects.endpoint_slice(raw(thing)).addresses == ("10.1.0.1" if counts else "")


def test_go_writes_null_for_empty_lists() -> None:
    assert cluster_objects.endpoint_slice(raw({**a_slice("web"), "endpoints": None, "ports": None})) == Slice("shop/web", "", ())
    bare = {"metadata": {"name": "n", "uid": "u", "labels": None, "ownerReferences": None}, "status": {"addresses": None}}
    assert cluster_objects.node(raw(bare)).addresses == ()
    assert cluster_objects.node(raw({"metadata": {"name": "n", "uid": "u"}})).name == "n"


def test_a_large_service_goes_on_in_further_records_that_all_fit() -> None:
    cluster = Cluster()
    many = {f"s{index}": a_slice("web", *(f"10.{index}.200.{host}" for host in range(100)), ports=HTTP) for index in range(50)}
    cluster.put("endpointslices", **many)
    cluster.put("services", web=WEB)
    found = {uid: made for (address, uid), made in cluster.made.records.items() if address == "10.96.0.7"}
    assert list(found) == ["u1", *(f"u1+{number}" for number in range(1, len(found)))]
    assert len(found) > 3
    texts = [text for made in found.values() for text in made["backends"]["80/tcp"]]
    assert sorted(texts) == sorted({f"10.{index}.200.{host}:8080" for index in range(50) for host in range(100)})
    for uid, made in found.items():
        assert len(msgpack.packb(("apiserver", "ffff:" * 8, uid, made))) < RECORD_LIMIT
        assert made["workload"] == "service/shop/web"
    assert cluster.made.cut == set()
    cluster.put("endpointslices", **dict.fromkeys(many))
    assert set(cluster.made.records) == {(address, "u1") for address in ("10.96.0.7", "fd00::7", "192.0.2.1", "198.51.100.4")}


def test_what_finds_no_room_is_counted_and_comes_when_there_is() -> None:
    cluster = Cluster(limit=2)
    owners = {name: {"metadata": {"name": name, "namespace": "shop", "uid": name}} for name in ("a", "b", "c")}
    cluster.put("replicasets", **owners)
    assert (len(cluster.made.records), len(cluster.made.left_out)) == (2, 1)
    cluster.put("replicasets", a=None)
    assert (len(cluster.made.records), cluster.made.left_out) == (2, set())


def test_nodes_and_owners() -> None:
    cluster = Cluster()
    addresses = [{"type": "InternalIP", "address": "192.0.2.9"}, {"type": "Hostname", "address": "worker-1"}]
    info = {"kernelVersion": "6.1.0", "osImage": "Debian GNU/Linux 12", "machineID": "not kept"}
    named = {"metadata": {"name": "worker-1", "uid": "n1"}, "status": {"addresses": addresses, "nodeInfo": info}}
    cluster.objects["nodes"]["worker-1"] = cluster_objects.node(raw(named))
    cluster.made.update(cluster.objects, {"nodes": {"worker-1"}})
    references = [{"kind": "Other", "name": "x", "uid": "d0"}, {"kind": "Deployment", "name": "web", "uid": "d1", "controller": True}]
    cluster.put("replicasets", web={"metadata": {"name": "web-1", "namespace": "shop", "uid": "r1", "ownerReferences": references}})
    cluster.put("jobs", once={"metadata": {"name": "once", "namespace": "shop", "uid": "j1"}})
    node = {"kind": "node", "workload": "node/worker-1", "uid": "n1", "name": "worker-1", "addresses": ["192.0.2.9"], "kernel": "6.1.0"}
    owner = {"kind": "Deployment", "name": "web", "uid": "d1"}
    replica_set = {
        "kind": "replicaset",
        "workload": "replicaset/shop/web-1",
        "uid": "r1",
        "name": "web-1",
        "namespace": "shop",
        "owner": owner,
    }
    assert cluster.made.records == {
        ("192.0.2.9", "n1"): {**node, "os": "Debian GNU/Linux 12"},
        ("replicaset/shop/web-1", "r1"): {**replica_set, "owner": owner},
        ("job/shop/once", "j1"): {"kind": "job", "workload": "job/shop/once", "uid": "j1", "name": "once", "namespace": "shop"},
    }


@pytest.mark.parametrize(
    "text", ["None", "", "lb.example", "10.0.0", "10.0.0.256", "1.2.3.4/8", "fd00::/8", "\0", "10.0.0.1\0", "é", ":", "1" * 999]
)
def test_what_is_no_address_is_none(text: str) -> None:
    assert cluster_objects.address(text) == ""


def test_hostile_texts_are_bounded() -> None:
    hostile = json.loads(json.dumps(WEB))
    hostile["metadata"]["name"] = "a/b\n" * 9_999
    hostile["spec"]["selector"] = {f"{index}" * 999: "v" * 9_999 for index in range(999)}
    hostile["spec"]["ports"] = [{"port": index, "name": "n" * 9_999, "targetPort": "t" * 9_999} for index in range(1, 999)]
    hostile["spec"]["externalIPs"] = [f"10.0.0.{index}" for index in range(256)]
    assert len(msgpack.packb(record(cluster_objects.service(raw(hostile))))) < RECORD_LIMIT


def test_step_by_step_is_the_same_as_at_once() -> None:
    chance = random.Random(5)
    cluster = Cluster()
    for _ in range(400):
        kind, name = chance.choice(["services", "endpointslices"]), chance.choice("abcde")
        if f"shop/{name}" in cluster.objects[kind] and chance.random() < 0.4:
            thing = None
        elif kind == "services":
            thing = {"metadata": {"name": name, "namespace": "shop", "uid": f"{name}{chance.randrange(2)}"}, "spec": WEB["spec"]}
        else:
            thing = a_slice(chance.choice("abcde"), f"10.1.0.{chance.randrange(4)}", ports=HTTP)
        cluster.put(kind, **{name: thing})
        anew = ClusterRecords()
        anew.update(cluster.objects, {kind: set(found) for kind, found in cluster.objects.items()})
        assert cluster.made.records == anew.records
