"""The collector against a plain model of true bytes, under whatever a kernel, a tracer and a network do.

A world of sockets moves bytes. A tracer tells of it, our own (cookies, states, closes repeated until acknowledged) or one like DataDog's
(pids, a closed connection is told once, counters restart with it). Between collector and receiver answers are lost, delayed and
repeated. In the end the receiver's totals are the world's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cluster.core.collector import Collector, CollectorLimits
from cluster.core.records import Flag
from cluster.core.wire import Answer
from tests.core.receiver import Receiver
from tests.core.replies import Record, record, reply

PORTS = st.integers(1, 4)
BYTES = st.integers(1, 2**40)


@dataclass
class Socket:
    port: int
    cookie: int
    pid: int
    sent: int = 0
    recv: int = 0
    told: list[int] = field(default_factory=lambda: [0, 0])  # what was moved before the tracer's counters last began
    close_id: int = 0
    hidden: bool = False  # the tracer does not tell of it now

    def told_as(self, *, ours: bool) -> Record:
        counters = {"monotonic_sent_bytes": self.sent - self.told[0], "monotonic_recv_bytes": self.recv - self.told[1]}
        base = record(sport=self.port, pid=self.pid, **counters)
        if not ours:
            return base
        state = {"state": "closed", "close_id": self.close_id} if self.close_id else {"state": "open"}
        return base | {"type": 0, "cookie": self.cookie, **state}


class World(RuleBasedStateMachine):
    """Steps that can come in any order; `teardown` lets everything arrive, and compares."""

    def __init__(self) -> None:
        super().__init__()
        self.receiver = Receiver()
        self.sockets: list[Socket] = []
        self.ended: list[Socket] = []  # closed, and still to be told
        self.truth = [0, 0]
        self.number = 0
        self.closes = 0
        self.at = 0.0
        self.reply_number = 0
        self.acknowledgeable: dict[str, int] = {}
        self.answers: list[Answer] = []
        self.instance = 1

    @initialize(ours=st.booleans(), limit=st.sampled_from([0, 3, 1000]))
    def begin(self, ours: bool, limit: int) -> None:
        self.ours = ours
        self.collector = Collector("node", 7, CollectorLimits(rows=limit, absent_after=5.0))
        self.collector.greet(Answer("ok", 1, incarnation=1, stream=7))

    @rule(port=PORTS, pid=st.integers(0, 2))
    def open(self, port: int, pid: int) -> None:
        if not any(socket.port == port and (self.ours or socket.pid == pid) for socket in self.sockets):
            self.number += 1
            self.sockets.append(Socket(port, self.number, pid))

    @precondition(lambda self: self.sockets)
    @rule(which=st.integers(0), sent=BYTES, recv=BYTES)
    def grow(self, which: int, sent: int, recv: int) -> None:
        socket = self.sockets[which % len(self.sockets)]
        socket.sent += sent
        socket.recv += recv
        self.truth = [self.truth[0] + sent, self.truth[1] + recv]

    @precondition(lambda self: self.sockets and self.ours)
    @rule(which=st.integers(0), pid=st.integers(0, 3))
    def change_pid(self, which: int, pid: int) -> None:
        self.sockets[which % len(self.sockets)].pid = pid

    @precondition(lambda self: self.sockets and not self.ours)
    @rule(which=st.integers(0))
    def restart_counters(self, which: int) -> None:
        """The tracer's entry expired: its counters begin anew. What it had not told is told first, and then a poll sees the fall: one that
        is overtaken between two polls cannot be seen."""
        self.poll()
        socket = self.sockets[which % len(self.sockets)]
        if socket.sent > socket.told[0] + 1 or socket.recv > socket.told[1]:
            socket.told = [socket.sent, socket.recv]
            socket.sent += 1
            self.truth[0] += 1
            self.poll()

    @precondition(lambda self: self.sockets and not self.ours)
    @rule(which=st.integers(0))
    def lack_one_for_a_while(self, which: int) -> None:
        socket = self.sockets[which % len(self.sockets)]
        socket.hidden = True
        self.poll()
        self.poll()
        socket.hidden = False
        self.poll()

    @precondition(lambda self: self.sockets)
    @rule(which=st.integers(0))
    def close(self, which: int) -> None:
        socket = self.sockets.pop(which % len(self.sockets))
        self.closes += 1
        socket.close_id = self.closes
        self.ended.append(socket)
        if not self.ours:
            socket.close_id = 0
            self.poll()  # it is told once, with its last counters
            self.ended.remove(socket)
            self.wait(3.0)  # its row ends before the port is used again, as ports are not used again at once
            self.wait(5.0)

    @rule()
    def restart_tracer(self) -> None:
        """The kernel keeps our own tracer's counters; the other's begin anew, after a last poll."""
        if not self.ours:
            self.poll()
            for socket in self.sockets:
                socket.told = [socket.sent, socket.recv]
        self.poll()
        self.instance += 1
        self.ended = []  # all told, and forgotten with the tracer
        self.closes = 0
        self.poll()

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0]), twice=st.booleans())
    def poll(self, seconds: float = 1.0, twice: bool = False) -> None:
        self.at += seconds
        self.reply_number += 1
        told = [*self.sockets, *self.ended]
        records = [socket.told_as(ours=self.ours) for socket in told if not socket.hidden and (self.ours or self.counted(socket))]
        head: dict[str, Any] = {"instance": str(self.instance), "reply_id": str(self.reply_number)} if self.ours else {}
        ack = self.collector.ack()
        if self.ours and ack is not None:
            self.ended = [socket for socket in self.ended if socket.close_id > self.acknowledgeable[ack]]
            records = [socket.told_as(ours=True) for socket in [*self.sockets, *self.ended]]
        self.acknowledgeable[str(self.reply_number)] = max((socket.close_id for socket in self.ended), default=0)
        self.collector.on_reply(reply(*records * (1 + twice), **head), str(self.instance), self.at, self.workload_of)

    @staticmethod
    def counted(socket: Socket) -> bool:
        """A row of the other tracer exists only once bytes have moved."""
        return socket.sent > socket.told[0] or socket.recv > socket.told[1]

    @staticmethod
    def workload_of(pid: int) -> str:
        return f"process/{pid}" if pid != 2 else ""

    @rule(seconds=st.sampled_from([1.0, 6.0]))
    def wait(self, seconds: float) -> None:
        self.poll(seconds)

    @rule()
    def miss(self) -> None:
        self.at += 1.0
        self.collector.on_missed("timed out", self.at)

    @rule(
        metadata=st.dictionaries(
            st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["1", "2"])), st.fixed_dictionaries({"n": st.integers(0, 3)})
        )
    )
    def metadata(self, metadata: dict[tuple[str, str], dict[str, int]]) -> None:
        self.said_metadata = metadata
        self.collector.on_metadata("docker", metadata)

    @rule(fate=st.sampled_from(["arrives", "is lost", "answer is lost", "answer is late", "answer comes twice"]))
    def send(self, fate: str) -> None:
        raw = self.collector.next_part()
        if raw is None or fate == "is lost":
            return
        answer = self.receiver.receive(raw, self.collector.stream)
        if fate in ("answer is late", "answer comes twice"):
            self.answers.append(answer)
        if fate in ("arrives", "answer comes twice"):
            self.collector.on_answer(answer)

    @precondition(lambda self: self.answers)
    @rule(which=st.integers(0))
    def late_answer(self, which: int) -> None:
        self.collector.on_answer(self.answers.pop(which % len(self.answers)))

    @rule()
    def commit(self) -> None:
        self.receiver.durable = self.receiver.applied

    @rule()
    def greet_again(self) -> None:
        """The aggregator restarted: what was not durable is gone there. The receiver here forgets nothing, and so sees it twice."""
        self.collector.on_answer(Answer("hello", 1))
        self.collector.greet(Answer("ok", 1, 1, 7, self.receiver.applied, self.receiver.durable, self.receiver.applied + 1))

    @invariant()
    def the_collector_stays_in_its_stream(self) -> None:
        assert self.collector.stream == 7

    def teardown(self) -> None:
        if not hasattr(self, "ours"):
            return
        self.poll(6.0)
        for _ in range(10_000):
            raw = self.collector.next_part()
            if raw is None:
                break
            self.collector.on_answer(self.receiver.receive(raw, 7))
        self.compare()

    def compare(self) -> None:
        totals = self.receiver.totals()
        assert list(totals[:2]) == self.truth
        open_now = [row for row in self.receiver.open_rows() if not row["flags"] & Flag.FOLDED]
        told = {(socket.port, socket.cookie if self.ours else socket.pid) for socket in self.sockets if self.ours or self.counted(socket)}
        seen = {(row["sport"], row["cookie"] if self.ours else row["pid"]) for row in open_now}
        assert told <= seen
        if self.ours:
            assert told == seen
            for row in open_now:
                socket = next(each for each in self.sockets if each.cookie == row["cookie"])
                assert (row["sent"], row["recv"]) == (socket.sent, socket.recv)
        held = {key: value for key, value in self.receiver.metadata.items() if value is not None}
        assert held == {("docker", *key): value for key, value in getattr(self, "said_metadata", {}).items()}
        assert self.receiver.finals[-1].status["refused"] == {}


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
