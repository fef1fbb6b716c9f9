"""Who had an address, and when: identities as intervals of time.

An interval begins when its source says that the workload started, or is open to the past where no source knows; it ends when the source
says so, or with the record. Both ends are uncertain by UNSURE seconds: sources are read every few seconds, and clocks differ. What is asked
for a time that only one workload can have had the address is answered; what two may have had is not guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any

UNSURE = 15.0  # s: a read of the kubelet every 10 s, a poll every second, and clocks that differ a little
KEPT = 3_600.0  # s that an interval is remembered after its end
KEPT_LIMIT = 64  # intervals of one address; beyond it the one that ended first is forgotten
MOVED = "moved/"  # an address that more than one workload may have had at the time

Key = tuple[str, str]  # source, uid
Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Interval:
    """One workload at one address. Times in s since 1970."""

    workload: str
    node: str  # whose collector says so
    machine: bool  # the node itself, whose containers and processes may share the address
    since: float = -inf
    until: float = inf

    def covers(self, at: float, unsure: float = 0.0) -> bool:
        """Whether the workload may have had the address then."""
        return self.since - unsure <= at < self.until + unsure


def interval_of(record: Record) -> Interval | None:
    """What a record says of its address; None where it names no workload. `started` and `ended` are s since 1970."""
    workload = record.get("workload")
    if not workload:
        return None
    since, until = _time(record.get("started"), -inf), _time(record.get("ended"), inf)
    return Interval(str(workload), str(record.get("node", "")), record.get("kind") == "node", since, max(since, until))


def _time(value: Any, unknown: float) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else unknown


class Identities:
    """The intervals of every address: those that a record stands behind, and for a while those that ended."""

    def __init__(self) -> None:
        self._live: dict[str, dict[Key, Interval]] = {}
        self._ended: dict[str, list[Interval]] = {}

    def put(self, address: str, key: Key, record: Record, at: float) -> None:
        """A record as it is now. Where it names another workload than before, the old one's interval ends where the new one's begins; one
        that does not say when it began did so after those that had the address before."""
        live, made = self._live.setdefault(address, {}), interval_of(record)
        before = live.pop(key, None)
        if before is not None and (made is None or before.workload != made.workload):
            self._end(address, before, made.since if made is not None and made.since > before.since else min(at, before.until))
        if made is not None:
            live[key] = made if made.since > -inf else replace(made, since=self._free_since(address, made.workload))
        if not live:
            del self._live[address]

    def _free_since(self, address: str, workload: str) -> float:
        """When the last other workload gave the address up."""
        return max((one.until for one in self._ended.get(address, ()) if one.workload != workload), default=-inf)

    def remove(self, address: str, key: Key, at: float) -> None:
        """The record is gone; its interval ends now, unless it has ended before."""
        live = self._live.get(address, {})
        if (before := live.pop(key, None)) is not None:
            self._end(address, before, min(at, before.until))
        if not live:
            self._live.pop(address, None)

    def _end(self, address: str, interval: Interval, until: float) -> None:
        ended = self._ended.setdefault(address, [])
        ended.append(replace(interval, until=max(until, interval.since)))
        if len(ended) > KEPT_LIMIT:
            ended.remove(min(ended, key=lambda one: one.until))

    def expire(self, at: float) -> None:
        """Forget what ended long ago."""
        for address in list(self._ended):
            kept = [one for one in self._ended[address] if one.until >= at - KEPT]
            if kept:
                self._ended[address] = kept
            else:
                del self._ended[address]

    def who(self, node: str, address: str, at: float) -> str | None:
        """The workload at `address` at that time as seen on `node`; `moved/ADDRESS` where several may have been, None where none is known.

        Bridge addresses repeat on every node, so what the node itself says comes first. Of several at one address at once the machine wins,
        for its containers and processes share it; several others are `ambiguous/ADDRESS`.
        """
        every = self._intervals(address)
        own = [one for one in every if one.node == node]
        possible = [one for one in own if one.covers(at, UNSURE)] or [one for one in every if one.covers(at, UNSURE)]
        sure = [one for one in possible if one.covers(at)] or possible
        machines = [one for one in sure if one.machine]
        named = {one.workload for one in machines or sure}
        if len(named) > 1 and len({one.workload for one in sure if one.until == inf}) > 1:
            return f"ambiguous/{address}"
        if len(named | {one.workload for one in possible if not machines}) > 1:
            return MOVED + address
        return named.pop() if named else None

    def steady_since(self, address: str, now: float) -> float:
        """From when on the answer of `who` is the one for `now`: a little after the last change before it."""
        times = (time for one in self._intervals(address) for time in (one.since, one.until) if time <= now)
        return max(times, default=-inf) + UNSURE

    def machines(self) -> list[str]:
        """The addresses that nodes have now."""
        return [address for address in self._live if self.is_machine(address)]

    def is_contested(self, address: str) -> bool:
        """Whether several workloads have had the address, a node with what shares it aside."""
        return len({one.workload for one in self._intervals(address)}) > 1 and not self.is_machine(address)

    def is_machine(self, address: str) -> bool:
        """Whether a node has that address now."""
        return any(one.machine for one in self._live.get(address, {}).values())

    def depends_on_node(self, address: str, at: float) -> bool:
        """Whether `who` answers differently for different nodes."""
        nodes = {one.node for one in self._intervals(address)}
        return len(nodes) > 1 and len({self.who(node, address, at) for node in nodes}) > 1

    def _intervals(self, address: str) -> list[Interval]:
        return [*self._live.get(address, {}).values(), *self._ended.get(address, ())]
