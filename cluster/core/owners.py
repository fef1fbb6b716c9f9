"""What a pod belongs to: its controller, and that one's own controller where it has one (ReplicaSet -> Deployment, Job -> CronJob).

A pod's record names its controller; the records of ReplicaSets and Jobs name theirs. Any other kind of controller is the workload itself,
under its own name. A pod without one is its own workload. What is not known yet is answered with the best name so far, and as not sure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

POD = "pod/"
INTERMEDIATE = ("replicaset", "job")  # kinds that a controller of their own may stand behind
Record = Mapping[str, Any]


class Owners:
    """Records of pods and of intermediate owners, by their text `kind/namespace/name`."""

    def __init__(self) -> None:
        self._records: dict[str, dict[tuple[str, str], Record]] = {}

    def put(self, address: str, uid: str, record: Record) -> str:
        """Note a record; returns the text whose owner is another one now, "" for none."""
        text = _text(record)
        if not text:
            return ""
        known = self._record(text)
        held = self._records.setdefault(text, {})
        held.pop((address, uid), None)
        held[address, uid] = record  # the newest is the last
        return text if known is None or owner_of(known) != owner_of(record) else ""

    def below(self, texts: set[str]) -> set[str]:
        """These texts, and the pods that any of them owns."""
        above = {text for text in texts if not text.startswith(POD)}
        pods = ((text, next(reversed(held.values()))) for text, held in self._records.items() if text.startswith(POD)) if above else ()
        return texts | {text for text, record in pods if owner_of(record) in above}

    def remove(self, address: str, uid: str, record: Record) -> None:
        """Forget a record. Rows keep the owner that they have."""
        text = _text(record)
        held = self._records.get(text, {})
        held.pop((address, uid), None)
        if not held:
            self._records.pop(text, None)

    def workload(self, text: str) -> tuple[str, bool]:
        """The workload that `text` belongs to, and whether that is known."""
        if not text.startswith(POD):
            return text, True
        record = self._record(text)
        if record is None:
            return text, False
        owner = owner_of(record)
        if not owner:
            return text, True
        if not owner.startswith(tuple(f"{kind}/" for kind in INTERMEDIATE)):
            return owner, True
        above = self._record(owner)
        return (owner, False) if above is None else (owner_of(above) or owner, True)

    def _record(self, text: str) -> Record | None:
        return next(reversed(self._records.get(text, {}).values()), None)


def owner_of(record: Record) -> str:
    """The text of a record's controller, "" where it has none. It is in the namespace of what it controls; a node (of a static pod) is not
    a controller."""
    owner = record.get("owner")
    if not isinstance(owner, Mapping) or not owner.get("kind") or not owner.get("name"):
        return ""
    kind = str(owner["kind"]).lower()
    return "" if kind == "node" else f"{kind}/{record.get('namespace', '')}/{owner['name']}"


def _text(record: Record) -> str:
    kind = record.get("kind")
    if kind != "pod" and kind not in INTERMEDIATE:
        return ""
    return str(record.get("workload", ""))
