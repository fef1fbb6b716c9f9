"""What is known of addresses, by source and uid, and which node said it.

A record carries the name of its node under `node`, so that after a restart a node can still take back what it said. Where a node's
collector begins anew, what it said before is stale: a source that speaks again replaces its own records, and what is not said again is
dropped after a while. The watcher of the API server has no such while: it says nothing before it knows everything, and the API server may
be away for long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

RECORDS_LIMIT = 100_000  # records of one node; more are refused and counted
STALE_AFTER = 60.0  # s
WATCHER = "cluster/apiserver"  # who says what the API server knows; no node's name holds a "/"
Record = Mapping[str, Any]
Said = dict[str, set[tuple[str, str]]]  # source -> (address, uid)


class Metadata:
    """Records as `{address: {source: {uid: record}}}`."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, dict[str, Record]]] = {}
        self.changed: set[str] = set()  # addresses, since the last commit
        self.moved: set[str] = set()  # addresses whose workload may be another one now
        self.refused = 0
        self._said: dict[str, Said] = {}
        self._stale: dict[str, tuple[float, Said]] = {}

    def restore(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        """Begin with these."""
        for address, sources in records.items():
            self.records[address] = {source: dict(by_uid) for source, by_uid in sources.items()}
            for source, by_uid in sources.items():
                for uid, record in by_uid.items():
                    self._of(str(record.get("node", "")), source).add((address, uid))

    def _of(self, node: str, source: str) -> set[tuple[str, str]]:
        return self._said.setdefault(node, {}).setdefault(source, set())

    def begin(self, node: str, at: float) -> None:
        """The node's collector begins anew: what it said so far is stale."""
        said = {source: set(keys) for source, keys in self._said.get(node, {}).items() if keys}
        if said:
            self._stale[node] = (at, said)

    def apply(self, node: str, changes: Iterable[tuple[str, str, str, Record | None]]) -> None:
        """Apply (source, address, uid, record) of one node; None removes."""
        replaced: Said = {}
        stale = self._stale.get(node, (0.0, {}))[1]
        for source, address, uid, record in changes:
            if source in stale:
                replaced[source] = stale.pop(source)
            replaced.get(source, set()).discard((address, uid))
            self._put(node, source, address, uid, record)
        self._drop(node, replaced)

    def expire(self, at: float) -> None:
        """Drop what was not said again."""
        for node in [node for node, (since, _) in self._stale.items() if node != WATCHER and at - since >= STALE_AFTER]:
            self._drop(node, self._stale.pop(node)[1])

    def _drop(self, node: str, said: Said) -> None:
        for source, keys in said.items():
            for address, uid in sorted(keys):
                self._put(node, source, address, uid, None)

    def _put(self, node: str, source: str, address: str, uid: str, record: Record | None) -> None:
        said = self._of(node, source)
        known = self.records.get(address, {}).get(source, {}).get(uid)
        if record is None:
            said.discard((address, uid))
            if known is None or known.get("node") != node:
                return
            self._remove(source, address, uid)
        else:
            if known is None and sum(map(len, self._said[node].values())) >= RECORDS_LIMIT:
                self.refused += 1
                return
            said.add((address, uid))
            record = {**record, "node": node}
            if record == known:
                return
            self.records.setdefault(address, {}).setdefault(source, {})[uid] = record
        self.changed.add(address)
        self.moved.add(address)

    def _remove(self, source: str, address: str, uid: str) -> None:
        sources = self.records[address]
        del sources[source][uid]
        if not sources[source]:
            del sources[source]
        if not sources:
            del self.records[address]

    def workload(self, node: str, address: str) -> str | None:
        """Who has that address, as seen on `node`; None where nobody is known to.

        Bridge addresses repeat on every node, so what the node itself says comes first. Of several at one address, the machine wins (its
        containers and processes share it); several others are `ambiguous`.
        """
        here = [record for by_uid in self.records.get(address, {}).values() for record in by_uid.values()]
        own = [record for record in here if record.get("node") == node]
        named = [record for record in own or here if record.get("workload")]
        machines = [record for record in named if record.get("kind") == "node"]
        workloads = {str(record["workload"]) for record in machines or named}
        if len(workloads) > 1:
            return f"ambiguous/{address}"
        return workloads.pop() if workloads else None

    def is_shared(self, address: str) -> bool:
        """Whether records of several nodes stand at that address, so that the answer depends on who asks."""
        here = self.records.get(address, {})
        return len({record.get("node") for by_uid in here.values() for record in by_uid.values()}) > 1
