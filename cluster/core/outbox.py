"""The sequences that a collector has said and that are not durable yet, and which part is to be sent now."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Queued:
    """One sequence, packed; what may happen once it is durable."""

    number: int
    bodies: list[bytes]
    closed: NDArray[np.int64]  # slots to give back
    reply_id: str | None  # the reply that the tracer may then forget
    instance: str  # of that reply

    @property
    def size(self) -> int:
        """Bytes of its bodies."""
        return sum(map(len, self.bodies))


class Outbox:
    """A queue with a place in it. The part at that place stays the same until it is answered."""

    def __init__(self) -> None:
        self.next_number = 0
        self.kept_bytes = 0
        self._queue: deque[Queued] = deque()
        self._sequence = 0  # the place: number of a sequence
        self._part = 0
        self._asked = False

    def add(self, bodies: list[bytes], closed: NDArray[np.int64], reply_id: str | None, instance: str) -> None:
        """Queue the next sequence."""
        queued = Queued(self.next_number, bodies, closed, reply_id, instance)
        self._queue.append(queued)
        self.next_number += 1
        self.kept_bytes += queued.size

    def current(self) -> tuple[int, int, bool, bytes] | None:
        """Sequence, part, whether it is the last, and body of what is to be sent now; None when all is said."""
        if self._sequence >= self.next_number:
            return None
        queued = self._queue[self._sequence - self._queue[0].number]
        self._asked = True
        return queued.number, self._part, self._part == len(queued.bodies) - 1, queued.bodies[self._part]

    def accepted(self, applied: int) -> None:
        """The part that was sent is there. `applied` below its number after a last part means that it was not: say it again."""
        now = self.current() if self._asked else None
        self._asked = False
        if now is None:
            return
        number, _, last, _ = now
        self._asked = False
        if not last:
            self._part += 1
        elif applied >= number:
            self._sequence, self._part = number + 1, 0
        else:
            self._part = 0

    @property
    def place(self) -> int:
        """The number of the sequence that is being said."""
        return self._sequence

    @property
    def whole(self) -> bool:
        """Whether all that was ever said is kept."""
        return self.next_number == len(self._queue)

    def restart(self) -> None:
        """Say the sequence at the place again, from its first part."""
        self._part = 0
        self._asked = False

    def go_to(self, number: int) -> bool:
        """Continue from part 0 of this sequence; False when it is not kept any more, or was never said."""
        first = self._queue[0].number if self._queue else self.next_number
        if not first <= number <= self.next_number:
            return False
        self._sequence, self._part, self._asked = number, 0, False
        return True

    def durable(self, number: int) -> Iterable[Queued]:
        """Forget, and return, what is in the store: every sequence up to this number that was sent."""
        while self._queue and self._queue[0].number <= number and self._queue[0].number < self._sequence:
            queued = self._queue.popleft()
            self.kept_bytes -= queued.size
            yield queued
