"""What `up` draws on a terminal: a line each, as wide as the terminal is, whatever the names are."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from cluster.cli.live import headline, table

NOW = 1_700_000_000.0
ONE: dict[str, Any] = {
    "source": "fd00::1",
    "sport": 40000,
    "dest": "10.0.0.2",
    "dport": 443,
    "local": "process/[/red]\x1b[2J",
    "remote": "",
    "protocol": "udp",
    "state": "open",
    "total_sent_bytes": None,
    "total_recv_bytes": None,
    "total_retransmits": None,
    "recv_exact": True,
    "last_seen": NOW - 3,
}


def drawn(width: int, *transactions: dict[str, Any]) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(table(transactions, width, NOW))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text.splitlines()


def test_a_name_is_text_whatever_is_in_it() -> None:
    line = drawn(140, ONE)[1]
    assert "process/[/red]\\x1b[2J" in line
    assert "\x1b[2J" not in line


def test_what_is_not_known_is_said() -> None:
    line = drawn(140, ONE)[1].split()
    assert line[1:] == ["unknown", "[fd00::1]:40000", "10.0.0.2:443", "udp", "unknown", "unknown", "unknown", "open", "3s", "ago"]


@pytest.mark.parametrize("width", [20, 60, 119, 120, 200])
def test_a_transaction_is_one_line_at_any_width(width: int) -> None:
    lines = drawn(width, *[{**ONE, "local": "unit/" + "x" * 300, "total_sent_bytes": 2**40}] * 7)
    assert len(lines) == 8
    assert max(map(len, lines)) <= width


def test_a_narrow_terminal_shows_the_names_and_the_bytes() -> None:
    heading, line = drawn(80, {**ONE, "local": "unit/ssh.service", "total_sent_bytes": 2048, "total_recv_bytes": 5})
    assert heading.split() == ["local", "remote", "sent", "received", "state"]
    assert line.split() == ["unit/ssh.service", "unknown", "2.0", "KiB", "5", "B", "open"]


def test_the_headline_names_only_what_was_lost() -> None:
    status = {"nodes": [{"state": "ok"}, {"state": "silent"}], "rows": 5, "edges": 2, "commit_age": 0.4, "store_error": ""}
    counts = {"missed": 0, "refused": 3, "folded": 0, "unattributed": 0}
    assert headline({**status, **counts}) == "nodes 1/2, rows 5, edges 2, refused 3, committed 0 s ago"
