"""The Lease that one publisher has at a time (coordination.k8s.io/v1).

A *term* is one holder's time: every taking of the Lease raises it by one (`leaseTransitions`), and the holder writes it into every page, so
that whoever was cut off finds a higher one. Time alone gives nobody the right to write: an expired Lease only lets another one take it.

Who may take it: anyone where nobody has it, or where it was not renewed for as long as it lasts, by our own clock; at once a newer
aggregator of the same store. Aggregators of one store are compared by their fences; stores are told apart, since fences begin anew in one
that was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from cluster.core.errors import LeaseHeld, PublishError, Superseded
from cluster.stores.api_server import ApiServer, Object

NAME = "rayscope-publisher"
INT32_MAX = 2**31 - 1  # leaseTransitions
TERM, FENCE, STORE, PUBLISHER = "rayscope/term", "rayscope/fence", "rayscope/store", "rayscope/publisher"


@dataclass(frozen=True, slots=True)
class Mark:
    """Who publishes, as it stands in the annotations of the Lease and of each page."""

    term: int = 0
    fence: int = 0  # of the aggregator, in its store
    store: str = ""  # which store
    publisher: str = ""  # which process, "" nobody

    @staticmethod
    def of(annotations: Any) -> Mark:
        """As read; what is no number is 0."""
        read: Mapping[str, Any] = annotations if isinstance(annotations, dict) else {}
        return Mark(number(read.get(TERM)), number(read.get(FENCE)), str(read.get(STORE, "")), str(read.get(PUBLISHER, "")))

    def annotations(self) -> dict[str, str]:
        """As written."""
        return {TERM: str(self.term), FENCE: str(self.fence), STORE: self.store, PUBLISHER: self.publisher}

    def follows(self, other: Mark) -> bool:
        """Whether this is of a later aggregator of the same store."""
        return self.store == other.store and self.fence > other.fence


def number(text: Any) -> int:
    """A number of an annotation; 0 where it is none."""
    return int(text) if isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) < 19 else 0


class Lease:
    """One candidate's side of it. Not held before `take`; `confirm` asks again."""

    def __init__(self, api: ApiServer, namespace: str, seconds: int, clock: Callable[[], float]) -> None:
        self._api = api
        self._leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._path = f"{self._leases}/{NAME}"
        self._seconds = seconds
        self._clock = clock
        self._seen: tuple[str, float] = ("", 0.0)  # resourceVersion, and when it was first seen
        self._lease: Object | None = None  # as the server has it, while it is ours
        self._renewed = 0.0

    @property
    def interval(self) -> float:
        """Seconds between two renewals, or looks at another's Lease."""
        return self._seconds / 3

    def due(self) -> float:
        """Seconds until the next renewal."""
        return max(0.0, self._renewed + self.interval - self._clock())

    def take(self, mark: Mark, pages: Iterable[Mark]) -> Mark:
        """Take it with a term above that of all pages: our mark with that term. Raises LeaseHeld, Superseded, PublishError."""
        self._lease = None
        lease, marks = self._get(), list(pages)
        if lease is None:  # deleted by somebody: the pages know who was the last
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NAME}, "spec": {}}
            self._refuse_followers(marks, mark)
        self._check(lease, mark)
        taken = replace(mark, term=1 + max(each.term for each in (*marks, _mark(lease))))
        lease["metadata"] = {
            "name": NAME,
            "labels": {"app.kubernetes.io/name": "rayscope"},
            "annotations": taken.annotations(),
            **_version(lease),
        }
        lease["spec"] = {"leaseTransitions": min(taken.term, INT32_MAX), "acquireTime": _now()}
        self._put(lease, taken.publisher)
        return taken

    def confirm(self) -> None:
        """Renew it, which shows that it is ours. Raises LeaseHeld where it is not, PublishError."""
        if self._lease is None:
            raise LeaseHeld(f"{self._path}: the Lease is not ours")
        self._put(self._lease, str(self._lease["spec"]["holderIdentity"]))

    def release(self) -> None:
        """Let the next one take it at once, if it is ours."""
        if self._lease is not None:
            with suppress(PublishError):
                self._put(self._lease, "")
        self._lease = None

    def _check(self, lease: Object, mark: Mark) -> None:
        holder, held_by = _mark(lease), str(lease["spec"].get("holderIdentity") or "")
        self._refuse_followers([holder], mark)
        if held_by in ("", mark.publisher) or mark.follows(holder):
            return
        version = str(lease["metadata"].get("resourceVersion"))
        if self._seen[0] != version:
            self._seen = (version, self._clock())
        lasts = lease["spec"].get("leaseDurationSeconds")
        if self._clock() - self._seen[1] < (lasts if isinstance(lasts, int) else self._seconds):
            raise LeaseHeld(f"{self._path}: {held_by} publishes; taken over once it stops")

    def _refuse_followers(self, marks: Iterable[Mark], mark: Mark) -> None:
        for other in marks:
            if other.follows(mark):
                raise Superseded(
                    f"{self._path}: aggregator {other.fence} of this store publishes, ours is {mark.fence}. If the store was put back to "
                    f"an older state, delete the Lease and rayscope's ConfigMaps, and restart rayscope"
                )

    def _get(self) -> Object | None:
        try:
            lease = self._api.request("GET", self._path)
        except PublishError as error:
            if error.status == 404:
                return None
            raise
        if not all(isinstance(lease.get(part), dict) for part in ("metadata", "spec")):
            raise PublishError(f"{self._path}: not a Lease")
        return lease

    def _put(self, lease: Object, holder: str) -> None:
        lease["spec"] |= {"holderIdentity": holder, "leaseDurationSeconds": self._seconds, "renewTime": _now()}
        method, path = ("PUT", self._path) if _version(lease) else ("POST", self._leases)
        try:
            answer = self._api.request(method, path, lease)
        except PublishError as error:
            if error.status in (404, 409):
                self._lease = None
                raise LeaseHeld(f"{self._path}: another one took the Lease", error.status) from error
            raise
        self._lease, self._renewed = answer, self._clock()


def _version(lease: Object) -> dict[str, str]:
    version = lease["metadata"].get("resourceVersion")
    return {"resourceVersion": version} if version else {}


def _mark(lease: Object) -> Mark:
    """The higher of what its annotation and the field that people look at say is the term."""
    mark, transitions = Mark.of(lease["metadata"].get("annotations")), lease["spec"].get("leaseTransitions")
    term = transitions if isinstance(transitions, int) else 0
    return replace(mark, term=max(mark.term, term))


def _now() -> str:
    """MicroTime: exactly six digits of the second, or the API server refuses it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
