import json
import socket
from pathlib import Path

import msgpack
import pytest

from cluster.sources.addresses import local_addresses
from cluster.sources.node import NodeSource, node_addresses, node_uid

MACHINE_ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text(MACHINE_ID + "\n")
    (tmp_path / "etc/os-release").write_text('NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    return tmp_path


def test_the_record_stands_under_every_address_of_this_machine(root: Path) -> None:
    source = NodeSource("web-1", root=root, addresses=lambda: ("192.0.2.7", "2001:db8::7"))
    records = source.read()
    assert [address for address, _ in records] == ["192.0.2.7", "2001:db8::7"]
    (record, again) = records.values()
    assert record == again
    assert record["workload"] == "node/web-1"
    assert record["addresses"] == ["192.0.2.7", "2001:db8::7"]
    assert record["os"] == "Debian GNU/Linux 12 (bookworm)"
    assert record["kernel"] == Path("/proc/sys/kernel/osrelease").read_text().strip()
    assert source.address() == "192.0.2.7"


def test_a_machine_without_addresses_keeps_its_record(root: Path) -> None:
    source = NodeSource("alone", root=root, addresses=tuple)
    assert [address for address, _ in source.read()] == ["node/alone"] == [source.address()]


def test_the_machine_id_does_not_travel_and_tells_machines_apart(root: Path) -> None:
    packed = msgpack.packb([[*key, record] for key, record in NodeSource("web-1", root=root).read().items()])
    assert MACHINE_ID.encode() not in packed
    assert bytes.fromhex(MACHINE_ID) not in packed
    uid = node_uid("web-1", root)
    assert uid == node_uid("web-1", root)
    assert uid != node_uid("web-2", root)
    (root / "etc/machine-id").write_text("f" * 32)
    assert uid != node_uid("web-1", root)


def test_two_reads_are_equal_and_survive_the_journey(root: Path) -> None:
    source = NodeSource("web-1", root=root)
    first, second = source.read(), source.read()
    assert first == second
    assert json.loads(json.dumps(list(first.values()))) == list(first.values())


def test_a_system_without_its_files_is_still_a_node(tmp_path: Path) -> None:
    (record,) = NodeSource("bare", proc=tmp_path, root=tmp_path, addresses=lambda: ["192.0.2.7"]).read().values()
    assert record["name"] == "bare"
    assert "os" not in record
    assert record["kernel"]


def test_hostile_names_are_tamed(root: Path) -> None:
    (root / "etc/os-release").write_text("PRETTY_NAME='evil\x1b[31m" + "x" * 100_000)
    (record,) = NodeSource("a/b\n\x1b", root=root, addresses=lambda: ["192.0.2.7"]).read().values()
    assert record["workload"] == "node/a_b__"
    assert len(record["os"]) <= 128
    assert record["os"].isprintable()


def test_the_kernel_lists_the_addresses_that_others_reach_us_by() -> None:
    addresses = local_addresses()
    assert not [address for address in addresses if address.startswith(("127.", "fe80:", "169.254.")) or address == "::1"]
    for address in addresses:  # each is ours: a socket binds to it
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("203.0.113.1", 9))  # sends nothing: the kernel only chooses our end
        except OSError:
            pytest.skip("this machine has no route to the outside")
        assert probe.getsockname()[0] in addresses


def test_a_pod_with_a_network_of_its_own_knows_only_the_address_that_it_is_told() -> None:
    own = local_addresses()
    assert node_addresses() == own == node_addresses("no address")
    assert node_addresses("192.0.2.7") == ("192.0.2.7",)
    assert node_addresses("2001:db8::0007") == ("2001:db8::7",)
    if own:
        assert node_addresses(own[-1]) == own, "we are in the node's own network"
