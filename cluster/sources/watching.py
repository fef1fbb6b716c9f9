"""One resource of the API server, watched for ever: the loop around `cluster/sources/reflector.py` that asks, waits and asks again.

What goes wrong and what is done about it:

    the connection is cut, or refused    wait, go on with the same watch from where it was: nothing is missed
    silence                              a bookmark is due every minute; without one the connection is dead: list
    410 Gone, in either dress            list; what it lacks is gone
    401                                  the credentials are read again
    403                                  asked again now and then; the message has the RBAC rule that is missing
    429, 503 with Retry-After            as long as the server says, within bounds
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cluster.core.errors import SourceAbsent, SourceError, SourceMalformed, SourceTimeout
from cluster.sources.api_server import ApiError, ApiServer, Stream
from cluster.sources.backoff import Backoff
from cluster.sources.lines import Lines
from cluster.sources.reflector import GONE, Reflector, WatchError

LINE_LIMIT = 8_000_000  # bytes of one event: etcd holds objects of 1.5 MB, which are larger as JSON
PAGE_LIMIT = 64_000_000  # bytes of one page
PAGE_SECONDS = 60.0
BRIEF = 1.0  # s: a watch that ends sooner is not begun again at once
TRANSIENT = (401, 403, 429, 500, 502, 503)  # to a watch: the version is still good. After any other error the list decides
ABSENT = (403, 404)  # to a list: we may not see it, or the server does not have it


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. Tests make them short."""

    silence: float = 90.0  # a watch without a word; the API server sends a bookmark every 60 s
    watch: tuple[int, int] = (300, 600)  # how long a watch is asked for: between these, so that not all end together
    backoff: tuple[float, float] = (0.5, 10.0)  # the first and the longest wait after a failure
    steady: float = 5.0  # a watch that lasts so long counts as success: the next failure waits the first wait


class Watching:
    """Runs one reflector against a server. `lock` guards the reflector; `random` gives numbers from 0 to 1."""

    def __init__(self, server: ApiServer, reflector: Reflector[Any], timing: Timing, random: Callable[[], float]) -> None:
        self.reflector = reflector
        self.lock = threading.Lock()
        self._server = server
        self._timing = timing
        self._random = random
        self._backoff = Backoff(*timing.backoff, random)
        self._stopping = threading.Event()
        self._stream: Stream | None = None
        self._heard_at = 0.0  # s since 1970
        self._error = ""  # what is wrong now
        self._last_error = ""
        self._absent = False
        self._was_gone = False  # since a watch last lasted

    @property
    def settled(self) -> bool:
        """Whether all is known that may be: it was listed once, or the server refuses it."""
        return bool(self.reflector.version) or self._absent

    def status(self) -> dict[str, Any]:
        """For people: the state (listing, synced, failing or forbidden), when the server was last heard, and counters."""
        reflector = self.reflector
        state = "synced" if reflector.version else "listing"
        return {
            "state": "forbidden" if self._absent and self._error else "failing" if self._error else state,
            "synced": bool(reflector.version),
            "objects": len(reflector.objects),
            "heard_at": self._heard_at,
            "error": self._error,
            "last_error": self._last_error,
            "refused_example": reflector.refused,
            **{name: reflector.counts[name] for name in ("lists", "relists", "gone", "silent", "reconnects", "failures", "refused")},
        }

    def run(self) -> None:
        """List and watch until `stop`."""
        while not self._stopping.is_set():
            try:
                if self.reflector.listing:
                    self._list()
                else:
                    self._watch()
            except (SourceError, WatchError) as error:
                if not self._stopping.is_set():
                    self._stopping.wait(self._failed(error))

    def stop(self) -> None:
        """End `run`, in whatever thread it is."""
        self._stopping.set()
        if (stream := self._stream) is not None:
            stream.interrupt()

    # Asking

    def _list(self) -> None:
        """One page."""
        with self._open(listing=True) as stream:
            body = stream.read(PAGE_LIMIT, PAGE_SECONDS)
        with self.lock:
            self.reflector.on_page(body)
        self._absent = False
        self._heard()

    def _watch(self) -> None:
        began = time.monotonic()
        try:
            with self._open(listing=False) as self._stream:
                self._heard()
                if not self._stopping.is_set():  # else `stop` may have come before there was a stream to interrupt
                    self._follow(self._stream)
        finally:
            self._stream = None
            if time.monotonic() - began >= self._timing.steady:
                self._backoff.reset()
                self._was_gone = False
        self.reflector.counts["reconnects"] += 1
        if time.monotonic() - began < BRIEF:
            raise SourceAbsent(f"watch of {self.reflector.resource.name}: it ended at once")

    def _follow(self, stream: Stream) -> None:
        lines = Lines(LINE_LIMIT)
        heard = time.monotonic()
        for chunk in stream.chunks():
            for line in lines.feed(chunk):
                with self.lock:
                    self.reflector.on_line(line)
                heard = time.monotonic()
                self._heard()
            if lines.overlong:
                self._skip(lines)
            if time.monotonic() - heard > self._timing.silence:
                raise SourceTimeout(f"watch of {self.reflector.resource.name}: no whole line for {self._timing.silence:g} s")
            if self._stopping.is_set():
                return

    def _skip(self, lines: Lines) -> None:
        with self.lock:
            self.reflector.counts["refused"] += lines.overlong
            self.reflector.refused = f"{self.reflector.resource.name}: an event of more than {LINE_LIMIT:,} bytes"
        lines.overlong = 0

    def _open(self, *, listing: bool) -> Stream:
        resource = self.reflector.resource
        low, high = self._timing.watch
        query = self.reflector.query(low + round(self._random() * (high - low)))
        generation = self._server.generation
        try:
            return self._server.get(
                resource.path, query, resource.accept(listing=listing), self._server.timeout if listing else self._timing.silence
            )
        except ApiError as error:
            if error.status == 401:
                self._server.renew(generation)
            raise

    # How it went

    def _heard(self) -> None:
        self._heard_at = time.time()
        self._error = ""

    def _failed(self, error: SourceError | WatchError) -> float:
        """Decide how to go on; the seconds to wait before."""
        status = error.status if isinstance(error, ApiError) else error.code if isinstance(error, WatchError) else 0
        self._note(error, status)
        with self.lock:
            self.reflector.counts["failures"] += 1
            if reason := self._why_list(error, status):
                self.reflector.list_again(reason)
            elif not self.reflector.listing:
                self.reflector.counts["reconnects"] += 1
        if status == GONE and not self._was_gone:  # the server is there, and well: the waits before were for something else
            self._backoff.reset()
        self._was_gone |= status == GONE
        return max(self._backoff.failed(), error.retry_after if isinstance(error, ApiError) else 0.0)

    def _why_list(self, error: Exception, status: int) -> str:
        """Why all is to be listed, from the first page on; "" where what was under way can go on."""
        if status == GONE:
            return "gone"
        if status not in (0, *TRANSIENT) or isinstance(error, WatchError):
            return "other_errors"
        if self.reflector.listing:
            return ""
        return "silent" if isinstance(error, SourceTimeout) else "other_errors" if isinstance(error, SourceMalformed) else ""

    def _note(self, error: Exception, status: int) -> None:
        resource = self.reflector.resource
        self._absent = status in ABSENT and self.reflector.listing
        remedy = f"; the ClusterRole lacks the rule {resource.rule}" if status == 403 else ""
        self._error = self._last_error = f"{resource.name}: {error}{remedy}"
