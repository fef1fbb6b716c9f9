"""Closed connections, kept once for all clients until each of them has said that it has them.

Where closes may have passed a client by, since it is new or did not ask for long, or since it did not acknowledge and too many came, it
gets a new registration number, which is part of the `instance` that its replies name. To a reader another instance means: what is absent
has ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cluster.core.errors import TracerError
from cluster.tracer.rows import COUNTERS, Keys, Rows, find, join, new_rows
from cluster.tracer.state import KeptClient

LOG_LIMIT = 200_000  # closed connections kept for clients that do not acknowledge
REPLY_LIMIT = 100_000  # closed connections in one reply; the next one goes on
CLIENTS_LIMIT = 16
FORGET_SECONDS = 120.0  # a client that has not asked for so long is forgotten
EVICT_SECONDS = 20.0  # one that has not asked for so long makes room for a new one


class TooManyClients(TracerError):
    """No room for another client."""


@dataclass(slots=True)
class Client:
    """One client_id: what it has, and what it was told last."""

    seen: float  # monotonic s
    acked: int  # closes up to this id are safe with it
    told: int  # closes up to this id were in a reply to it
    registration: int  # a new number whenever closes may have passed it by: it must then look at what is absent
    lost: int = 0  # closes dropped before it had them
    keys: Keys = field(default_factory=lambda: np.zeros(0, np.uint64))  # the open rows of its last reply, sorted
    counters: Rows = field(default_factory=lambda: new_rows(0)[list(COUNTERS)])

    def since(self, rows: Rows) -> list[NDArray[np.uint64]]:
        """How much each counter of these rows grew since the client's last reply. Of shape (n,) each."""
        places, known = find(self.keys, rows["key"])
        grown = []
        for name in COUNTERS:
            column = rows[name].astype(np.uint64)
            column[known] -= np.minimum(self.counters[name][places[known]], column[known]).astype(np.uint64)
            grown.append(column)
        return grown

    def remember(self, rows: Rows) -> None:
        """These open rows, sorted by key, are its last reply."""
        self.keys, self.counters = rows["key"].copy(), rows[list(COUNTERS)].copy()


class Closes:
    """A log of closed rows, numbered from 1, and each client's place in it."""

    def __init__(self, limit: int = LOG_LIMIT):
        self.limit = limit
        self.last = 0  # the newest close id
        self.lost = 0  # closes that some client never got
        self.clients: dict[str, Client] = {}
        self._registrations = 0
        self._rows = new_rows(0)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> Rows:
        """The closes that some client does not have yet, the oldest first."""
        return self._rows

    @property
    def registrations(self) -> int:
        """How many times a client was registered."""
        return self._registrations

    def kept(self) -> dict[str, KeptClient]:
        """The clients, for the journal."""
        return {name: KeptClient(one.seen, one.acked, one.told, one.registration, one.lost) for name, one in self.clients.items()}

    def go_on(self, rows: Rows, last: int, lost: int, registrations: int, clients: dict[str, KeptClient], now: float) -> None:
        """Take over another tracer's log and those of its clients that are not to be forgotten."""
        self._rows, self.last, self.lost, self._registrations = rows, last, lost, registrations
        self.clients = {name: Client(one.seen, one.acked, one.told, one.registration, one.lost) for name, one in clients.items()}
        self.forget(now)

    def client(self, name: str, now: float) -> Client:
        """The client of that name; a new one begins at the end of the log. Raises TooManyClients where there are too many."""
        self.forget(now)
        known = self.clients.get(name)
        if known is None:
            if len(self.clients) >= CLIENTS_LIMIT:
                self._make_room(now)
            known = self.clients[name] = Client(now, acked=self.last, told=self.last, registration=self._register())
        known.seen = now
        return known

    def add(self, rows: Rows) -> None:
        """Number closed rows and keep them, where there is anyone to tell."""
        rows["close_id"] = np.arange(self.last + 1, self.last + 1 + len(rows))
        self.last += len(rows)
        if self.clients and len(rows):
            self._rows = join([self._rows, rows])
        self._bound()

    def acknowledge(self, client: Client, upto: int) -> None:
        """The client has every close up to that id."""
        client.acked = max(client.acked, min(upto, client.told))
        self._trim()

    def catch_up(self, client: Client) -> None:
        """The client begins after all closes that there are."""
        client.acked = client.told = self.last
        self._trim()

    def due(self, client: Client) -> Rows:
        """The closes that the client does not have yet, the oldest first, as many as fit in a reply."""
        rows = self._rows[np.searchsorted(self._rows["close_id"], client.acked, "right") :][:REPLY_LIMIT]
        client.told = max(client.told, int(rows["close_id"][-1]) if len(rows) else 0)
        return rows

    def forget(self, now: float) -> None:
        """Forget clients that have long not asked."""
        for name in [name for name, client in self.clients.items() if now - client.seen > FORGET_SECONDS]:
            del self.clients[name]
        self._trim()

    def _register(self) -> int:
        self._registrations += 1
        return self._registrations

    def _make_room(self, now: float) -> None:
        name, oldest = min(self.clients.items(), key=lambda item: item[1].seen)
        if now - oldest.seen < EVICT_SECONDS:
            raise TooManyClients(f"{CLIENTS_LIMIT} clients are being served already; use one of their client_ids, or wait")
        del self.clients[name]

    def _bound(self) -> None:
        over = len(self._rows) - self.limit
        if over <= 0:
            return
        upto = int(self._rows["close_id"][over - 1])
        for client in self.clients.values():
            if client.acked < upto:
                client.lost += upto - client.acked
                self.lost += upto - client.acked
                client.acked = client.told = max(client.told, upto)  # what it was told it may have: under a new number it would count twice
                client.registration = self._register()
        self._trim()

    def _trim(self) -> None:
        upto = min((client.acked for client in self.clients.values()), default=self.last)
        gone = int(np.searchsorted(self._rows["close_id"], upto, "right"))
        if gone:
            self._rows = self._rows[gone:].copy()
