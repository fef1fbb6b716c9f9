"""What is published, as text."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from cluster.core.publication import FIELDS, ROW_BYTES, publication

ROW: dict[str, Any] = dict.fromkeys(FIELDS, 0) | {
    "key": "fd00::1-fd00::2-40000-443",
    "source": "fd00::1",
    "dest": "fd00::2",
    "node": "node-1",
    "protocol": "tcp",
    "direction": "outgoing",
    "state": "open",
    "first_seen": 1.7e9 + 1 / 3,
    "last_seen": 1.7e9,
    "folded": False,
}


def texts(*rows: dict[str, Any], metadata: dict[str, Any] | None = None) -> dict[str, Any]:
    return {entry.key: json.loads(entry.text) for entry in publication(rows, metadata or {}).transactions.kept}


def test_a_colon_is_an_underscore_and_the_value_has_the_fields_in_order() -> None:
    ((key, value),) = texts(ROW | {"more": "is not published", "total_sent_bytes": 2**64}).items()
    assert key == "fd00__1-fd00__2-40000-443"
    assert list(value) == list(FIELDS)
    assert value["first_seen"] == 1_700_000_000.333
    assert value["total_sent_bytes"] == 2**64


def test_unknown_bytes_are_null() -> None:
    assert '"total_sent_bytes":null' in publication([ROW | {"total_sent_bytes": None}], {}).transactions.kept[0].text


def test_a_sum_of_many_says_so() -> None:
    (value,) = texts(ROW | {"folded": True}).values()
    assert value["folded"] is True


@pytest.mark.parametrize(
    "broken",
    [
        {"key": "a" * 254},
        {"key": "a b"},
        {"key": ".."},
        {"key": "..a"},
        {"key": ""},
        {"node": "\ud800"},
        {"total_sent_bytes": math.nan},
        {"pid": object()},
    ],
)
def test_what_no_config_map_can_hold_is_counted_and_costs_no_other(broken: dict[str, Any]) -> None:
    made = publication([ROW, ROW | broken, ROW], {}).transactions
    assert len(made.kept) == 2
    assert made.refused == 1


def test_sizes_are_bytes() -> None:
    (entry,) = publication([ROW | {"node": "n\u00f6de"}], {}).transactions.kept
    assert entry.size == len(entry.text.encode()) == len(entry.text) + 1


def test_no_row_is_smaller_than_what_the_number_of_rows_read_rests_on() -> None:
    least = {"node": "n", "net_ns": 4026531840, "state": "open", "direction": "none", "first_seen": 1.7e9, "last_seen": 1.7e9}
    (entry,) = publication([ROW | least], {}).transactions.kept
    assert entry.size >= ROW_BYTES


def test_metadata_has_addresses_and_services_but_no_owners() -> None:
    records = {"kubelet": {"uid": {"name": "cart", "labels": {"app": "caf\u00e9"}}}}
    metadata = dict.fromkeys(
        ["10.0.0.9", "fd00::2", "service/shop/headless", "replicaset/shop/cart-7f9c", "job/shop/once", "somewhere"], records
    )
    made = publication([ROW], metadata).metadata
    assert [entry.key for entry in made.kept] == ["fd00__2", "10.0.0.9", "service_shop_headless"]  # those with traffic first
    assert json.loads(made.kept[0].text) == records
    assert made.refused == 1
