"""What is known of addresses, by source and uid, and which node said it.

A record carries the name of its node under `node`, so that after a restart a node can still take back what it said. Where a node's
collector begins anew, what it said before is stale: a source that speaks again replaces its own records, and what is not said again is
dropped after a while. The watcher of the API server has no such while: it says nothing before it knows everything, and the API server may
be away for long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cluster.core.identities import Identities
from cluster.core.owners import Owners
from cluster.core.services import Services

RECORDS_LIMIT = 100_000  # records of one node; more are refused and counted
STALE_AFTER = 60.0  # s
WATCHER = "cluster/apiserver"  # who says what the API server knows; no node's name holds a "/"
Record = Mapping[str, Any]
Said = dict[str, set[tuple[str, str]]]  # source -> (address, uid)


class Metadata:
    """Records as `{address: {source: {uid: record}}}`."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, dict[str, Record]]] = {}
        self.identities = Identities()
        self.owners = Owners()
        self.services = Services()
        self.fronts = 0  # moves with every change of where Services are met
        self.changed: set[str] = set()  # addresses, since the last commit
        self.moved: set[str] = set()  # addresses whose workload may be another one now
        self.reowned: set[str] = set()  # pods and owners whose controller may be another one now
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
                    self._learn(source, address, uid, record, 0.0)

    def _of(self, node: str, source: str) -> set[tuple[str, str]]:
        return self._said.setdefault(node, {}).setdefault(source, set())

    def begin(self, node: str, at: float) -> None:
        """The node's collector begins anew: what it said so far is stale."""
        said = {source: set(keys) for source, keys in self._said.get(node, {}).items() if keys}
        if said:
            self._stale[node] = (at, said)

    def apply(self, node: str, changes: Iterable[tuple[str, str, str, Record | None]], at: float) -> None:
        """Apply (source, address, uid, record) of one node, said at `at` (s since 1970); None removes."""
        replaced: Said = {}
        stale = self._stale.get(node, (0.0, {}))[1]
        for source, address, uid, record in changes:
            if source in stale:
                replaced[source] = stale.pop(source)
            replaced.get(source, set()).discard((address, uid))
            self._put(node, source, address, uid, record, at)
        self._drop(node, replaced, at)

    def expire(self, at: float) -> None:
        """Drop what was not said again, and who had addresses long ago."""
        self.identities.expire(at)
        for node in [node for node, (since, _) in self._stale.items() if node != WATCHER and at - since >= STALE_AFTER]:
            self._drop(node, self._stale.pop(node)[1], at)

    def _drop(self, node: str, said: Said, at: float) -> None:
        for source, keys in said.items():
            for address, uid in sorted(keys):
                self._put(node, source, address, uid, None, at)

    def _put(self, node: str, source: str, address: str, uid: str, record: Record | None, at: float) -> None:
        said = self._of(node, source)
        known = self.records.get(address, {}).get(source, {}).get(uid)
        if record is None:
            said.discard((address, uid))
            if known is None or known.get("node") != node:
                return
            self._remove(source, address, uid)
            self._unlearn(source, address, uid, known, at)
        else:
            if known is None and sum(map(len, self._said[node].values())) >= RECORDS_LIMIT:
                self.refused += 1
                return
            said.add((address, uid))
            record = {**record, "node": node}
            if record == known:
                return
            self.records.setdefault(address, {}).setdefault(source, {})[uid] = record
            self._learn(source, address, uid, record, at)
        self.changed.add(address)
        self.moved.add(address)

    def _remove(self, source: str, address: str, uid: str) -> None:
        sources = self.records[address]
        del sources[source][uid]
        if not sources[source]:
            del sources[source]
        if not sources:
            del self.records[address]

    # What the records mean

    def _learn(self, source: str, address: str, uid: str, record: Record, at: float) -> None:
        self.identities.put(address, (source, uid), record, at)
        if text := self.owners.put(address, uid, record):
            self.reowned.add(text)
        if record.get("kind") == "service":
            self.services.put(address, uid, record)
        self.fronts += record.get("kind") in ("service", "node")

    def _unlearn(self, source: str, address: str, uid: str, record: Record, at: float) -> None:
        self.identities.remove(address, (source, uid), at)
        self.owners.remove(address, uid, record)
        if record.get("kind") == "service":
            self.services.remove(address, uid, record)
        self.fronts += record.get("kind") in ("service", "node")
