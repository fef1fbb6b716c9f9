"""The publisher: shows the store's busiest transactions, and the metadata, in ConfigMaps. The store is the truth; all of this is made anew.

One publisher at a time (cluster.stores.lease). Taking the Lease means: write our mark into every page up to the maximum, creating absent
ones, then confirm the Lease; only then is it held. A publisher that was cut off knows none of the resourceVersions that came of that: it
can change no page, not even one that its successor has not touched otherwise, nor create one, since all are there.

Each round asks for the pages' resourceVersions, which shows edits and deletions by others, reads the store, and writes what differs.
Nothing is kept for a server that is away: the next round reads the store again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from cluster.core.errors import LeaseHeld, PublishError, StoreError, Superseded
from cluster.core.paging import EMPTY, Due, Filled, due, fill, within
from cluster.core.publication import Publication
from cluster.stores.api_server import ApiServer
from cluster.stores.lease import Lease, Mark
from cluster.stores.pages import Pages

CHANGED = (404, 409)  # by somebody else since it was looked at
PAGE_REFUSED = (400, 413, 422)  # of this page alone: the others are written all the same


class Source(Protocol):
    """What there is to publish: cluster.stores.busiest."""

    def identity(self) -> str:
        """Which store it is."""

    def read(self) -> tuple[int, Publication]:
        """The store's fence, and all that it has to publish at this moment. Raises StoreError."""


@dataclass(frozen=True, slots=True)
class PublishLimits:
    """As configs.settings.PublishSettings says them."""

    interval: float = 60.0  # s
    bytes_per_round: int = 4_194_304
    pages: int = 16
    lease_seconds: int = 15


class Waits(Protocol):
    """How long to wait after failures: cluster.sources.backoff."""

    def failed(self) -> float:
        """One more failure; the seconds to wait."""

    def reset(self) -> None:
        """It worked."""


class ConfigMaps:
    """A Publisher. For one thread."""

    def __init__(
        self,
        api: ApiServer,
        namespace: str,
        source: Source,
        limits: PublishLimits,
        publisher: str,
        backoff: Waits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`publisher` names this process, and no other ever: host, pid and something random."""
        self._api = api
        self._namespace = namespace
        self._source = source
        self._limits = limits
        self._publisher = publisher
        self._clock = clock
        self._lease = Lease(api, namespace, limits.lease_seconds, clock)
        self._kinds = {kind: Pages(api, namespace, kind, limits.pages) for kind in ("transactions", "metadata")}
        self._backoff = backoff
        self._mark: Mark | None = None  # ours, while we publish
        self._ended = 0  # the fence with which we were superseded
        self._next = 0.0  # when the next round is due
        self._window = (0.0, 0)  # when the interval began whose bytes are counted, and how many they are
        self._status: dict[str, Any] = {"state": "starting", "error": "", "last_published": None, "publications": 0}

    def step(self, fence: int) -> float:
        """Do what is due for the aggregator of that fence; the seconds until the next call. Raises nothing."""
        if fence <= self._ended:
            return self._limits.interval
        try:
            wait = self._work(fence)
        except Superseded as error:
            self._ended, self._mark = fence, None
            return self._failed("superseded", error, self._limits.interval)
        except LeaseHeld as error:
            self._mark = None
            return self._failed("waiting", error, self._lease.interval)
        except PublishError as error:
            return self._failed("failing", error, max(self._backoff.failed(), error.retry_after))
        except StoreError as error:
            return self._failed("failing", error, self._backoff.failed())
        self._backoff.reset()
        self._status |= {"state": "publishing", "error": ""}
        return wait

    def status(self) -> dict[str, Any]:
        """state (starting, publishing, waiting, failing, superseded), what was published last and what was left out."""
        return {"namespace": self._namespace, "publisher": self._publisher, **self._status}

    def close(self) -> None:
        """Let the next publisher begin at once."""
        if self._mark is not None:
            self._mark = None
            self._lease.release()
        self._api.close()

    def _failed(self, state: str, error: Exception, wait: float) -> float:
        self._status |= {"state": state, "error": str(error)}
        return wait

    def _work(self, fence: int) -> float:
        if self._mark is None or self._mark.fence != fence:
            self._mark = self._take(fence)
            self._next = self._clock()
        if self._lease.due() <= 0:
            self._lease.confirm()
        if self._clock() >= self._next:
            began = self._clock()
            self._round(self._mark)
            self._next = began + self._limits.interval
        return max(0.0, min(self._lease.due(), self._next - self._clock()))

    def _take(self, fence: int) -> Mark:
        """The Lease, and with it every page. Raises LeaseHeld, Superseded, PublishError, StoreError."""
        self._mark = None
        wanted = Mark(0, fence, self._source.identity(), self._publisher)
        for kind in self._kinds.values():
            kind.begin()
        mark = self._lease.take(wanted, [page.mark for kind in self._kinds.values() for page in kind.pages])
        for kind in self._kinds.values():
            kind.stamp(mark)
            self._renew()
        self._lease.confirm()
        self._status |= {"term": mark.term, "fence": fence}
        return mark

    def _renew(self) -> None:
        if self._lease.due() <= 0:
            self._lease.confirm()

    def _round(self, mark: Mark) -> None:
        changed = [kind.look() for kind in self._kinds.values()]
        if any(changed):
            self._lease.confirm()  # it is ours, so that was somebody who does not publish: repaired from the store
        fence, publication = self._source.read()
        if fence != mark.fence:
            raise Superseded(f"the store belongs to aggregator {fence}, this publisher to aggregator {mark.fence}")
        kinds, most = self._kinds, self._limits.pages
        filled = {
            "transactions": fill(publication.transactions, kinds["transactions"].count, most, publication.unread, listed=True),
            "metadata": fill(publication.metadata, kinds["metadata"].count, most, listed=False),
        }
        for kind, pages in filled.items():
            kinds[kind].count = len(pages.pages)
        self._status |= {
            "pages": {kind: len(pages.pages) for kind, pages in filled.items()},
            "left_out": {kind: pages.left_out for kind, pages in filled.items()},
        }
        self._write_due(mark, filled)

    def _write_due(self, mark: Mark, filled: dict[str, Filled]) -> None:
        """What differs, as much as this interval allows. Raises PublishError for what was refused, after all else is written."""
        waiting = [
            (page, kind) for kind, pages in filled.items() for page in due(pages.wanted, [page.written for page in self._kinds[kind].pages])
        ]
        waiting.sort(key=lambda each: each[0].order)
        if self._clock() >= self._window[0] + self._limits.interval:
            self._window = (self._clock(), 0)
        spent = self._window[1]
        chosen = within([page for page, _ in waiting], self._limits.bytes_per_round - spent, whole=not spent)
        refused: list[PublishError] = []
        written = 0
        for page, kind in waiting[: len(chosen)]:
            self._renew()
            try:
                self._write(mark, kind, page, filled[kind])
                written += page.size
            except PublishError as error:
                if error.status not in PAGE_REFUSED:
                    raise
                self._kinds[kind].refused(page.number)
                refused.append(error)
        self._status |= {
            "bytes": sum(page.size for kind in self._kinds.values() for page in kind.pages),
            "written": written,
            "pending": len(waiting) - len(chosen),
        }
        if refused:
            raise refused[0]
        self._status |= {"last_published": round(time.time(), 3), "publications": self._status["publications"] + 1}

    def _write(self, mark: Mark, kind: str, page: Due, filled: Filled) -> None:
        pages = self._kinds[kind]
        pages.tried(page.number, self._clock())
        wanted = filled.wanted[page.number] if page.number < len(filled.pages) else EMPTY
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for last in (False, True):
            try:
                pages.write(page.number, mark, wanted, filled.data(page.number), len(filled.pages), at, filled.left_out)
                break
            except PublishError as error:
                if error.status not in CHANGED or last:
                    raise
                pages.look_at(page.number)
                self._lease.confirm()
        self._window = (self._window[0], self._window[1] + page.size)
