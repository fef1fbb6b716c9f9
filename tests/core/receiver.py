"""A plain receiver of a collector's stream: rows in a dictionary, totals as the wire format defines them. It knows no numpy tricks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cluster.core.collector import Collector, CollectorLimits
from cluster.core.records import Flag, format_address
from cluster.core.wire import PART_LIMIT, Answer, Part, unpack_part
from tests.core.replies import reply

Row = dict[str, Any]


@dataclass
class Receiver:
    """One node's rows by slot; `gone` holds rows whose slot was used again."""

    rows: dict[int, Row] = field(default_factory=dict)
    gone: list[Row] = field(default_factory=list)
    metadata: dict[tuple[str, str, str], Any] = field(default_factory=dict)
    finals: list[Any] = field(default_factory=list)
    applied: int = -1
    durable: int = -1
    buffer: list[Part] = field(default_factory=list)
    parts: int = 0

    def receive(self, raw: bytes, stream: int) -> Answer:
        """Take one part; applied whole at the last one."""
        assert len(raw) <= PART_LIMIT
        part = unpack_part(raw)
        self.parts += 1
        assert part.stream == stream
        if part.sequence > self.applied + 1 or (part.sequence == self.applied + 1 and part.part != len(self.buffer)):
            self.buffer = []
            return self.answer(stream, "expect")
        if part.sequence == self.applied + 1:
            self.buffer.append(part)
            if part.last:
                self.apply(self.buffer)
                self.buffer, self.applied = [], part.sequence
        return self.answer(stream)

    def answer(self, stream: int, verdict: str = "ok") -> Answer:
        return Answer(verdict, 1, 1, stream, self.applied, self.durable, self.applied + 1)

    def apply(self, parts: list[Part]) -> None:
        for part in parts:
            for row in listed(part, "opened"):
                if row["id"] in self.rows:
                    self.gone.append(self.rows[row["id"]])
                    assert self.gone[-1]["flags"] & Flag.CLOSED, "a slot was used again while its row was open"
                self.rows[row["id"]] = {**row, "base": [0, 0, 0]}
        for part in parts:
            for row in listed(part, "changed"):
                held = self.rows[row["id"]]
                if row["generation"] > held["generation"]:
                    held["base"] = [base + held[name] for base, name in zip(held["base"], ("sent", "recv", "retransmits"), strict=True)]
                held.update(row)
            for section in ("attributed", "closed"):
                for row in listed(part, section):
                    self.rows[row["id"]].update(row)
            for source, address, uid, record in part.metadata:
                self.metadata[source, address, uid] = record
        self.finals.append(parts[-1].final)

    def all_rows(self) -> list[Row]:
        return [*self.rows.values(), *self.gone]

    def open_rows(self) -> list[Row]:
        return [row for row in self.rows.values() if not row["flags"] & Flag.CLOSED]

    def totals(self) -> tuple[int, int, int]:
        """Sent, received and retransmitted over all rows and generations."""
        sent, recv, retransmits = (
            sum(row["base"][index] + row[name] for row in self.all_rows()) for index, name in enumerate(("sent", "recv", "retransmits"))
        )
        return sent, recv, retransmits


def listed(part: Part, section: str) -> list[Row]:
    """A section as one dictionary a row, addresses and texts resolved."""
    columns = part.sections.get(section, {})
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*(column.tolist() for column in columns.values()), strict=True)]
    for row in rows:
        for name in ("source", "dest"):
            if name in row:
                row[name] = format_address(part.addresses[16 * row[name] : 16 * row[name] + 16])
        for name in ("local", "remote"):
            if name in row:
                row[name] = part.texts[row[name]]
    return rows


def greeted(**limits: Any) -> Collector:
    """A collector whose hello was answered."""
    collector = Collector("node", 7, CollectorLimits(**limits))
    collector.greet(Answer("ok", 1, incarnation=1, stream=7))
    return collector


def drain(collector: Collector, receiver: Receiver, *, durable: bool = True) -> int:
    """Send all that there is; returns the number of parts."""
    parts = 0
    while (raw := collector.next_part()) is not None:
        parts += 1
        answer = receiver.receive(raw, collector.stream)
        if durable:
            receiver.durable = receiver.applied
            answer = receiver.answer(collector.stream, answer.verdict)
        collector.on_answer(answer)
    return parts


def nobody(_pid: int) -> str:
    return ""


class Scene:
    """A collector and a receiver; each poll a second after the last, all said and durable after each."""

    def __init__(self, **limits: Any) -> None:
        self.collector = greeted(**limits)
        self.receiver = Receiver()
        self.at = 1_000.0
        self.owners: dict[int, str] = {}
        self.asked: list[int] = []

    def poll(self, *records: Any, peer: str = "1:1", after: float = 1.0, durable: bool = True, **head: Any) -> int:
        self.at += after
        self.collector.on_reply(reply(*records, **head), peer, self.at, self.workload_of)
        return drain(self.collector, self.receiver, durable=durable)

    def workload_of(self, pid: int) -> str:
        self.asked.append(pid)
        return self.owners.get(pid, "")

    @property
    def only(self) -> dict[str, Any]:
        (row,) = self.receiver.all_rows()
        return row
