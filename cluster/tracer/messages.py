"""Netlink messages as 32-bit words: where each one starts, and where its attributes are.

They are walked one by one only to find where they start; all that is wanted of them is taken column by column, from all messages of a chunk
at once (`sockdiag`, `conntrack`).

Layouts: linux/netlink.h. A message is aligned to four bytes and begins with length u32, type u16, flags u16, sequence u32, port u32.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.core.errors import TracerError

NLMSG_ERROR = 2
NLMSG_DONE = 3
KIND_MASK = 0x3FFF  # without the bits for "nested" and "network order"

HEADER = struct.Struct("=IHHII")
SHORT_RUN = 8  # messages of the same length; in shorter runs they are found one by one
WALK = 64  # of them at a time


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some whole messages."""

    words: NDArray[np.uint32]  # valid until the next chunk is asked for
    starts: NDArray[np.int64]  # shape (n,): the word at which each message's header begins
    lost: bool = False  # the kernel had more to tell than the receive buffer holds (ENOBUFS)


def message(kind: int, flags: int, payload: bytes, sequence: int = 0) -> bytes:
    """One netlink message."""
    return HEADER.pack(HEADER.size + len(payload), kind, flags, sequence, 0) + payload


def ends(words: NDArray[np.uint32], starts: NDArray[np.int64]) -> bool:
    """Whether the last message ends a dump. Raises OSError where it tells of an error."""
    last = int(starts[-1])
    if int(words[last + 1]) & 0xFFFF not in (NLMSG_ERROR, NLMSG_DONE):
        return False
    code = int(words[last + 4]) if words[last] > HEADER.size else 0
    if code:
        number = (1 << 32) - code
        raise OSError(number, os.strerror(number))
    return True


def round_up(size: int) -> int:
    """To the next multiple of four, where the next message may begin."""
    return size + 3 & ~3


def find_starts(words: NDArray[np.uint32], at: int, end: int) -> NDArray[np.int64]:
    """The words between `at` and `end` at which a message begins, shape (n,).

    Most messages are as long as the one before. So a run of them is found by one look at every step-th word: as long as these hold the same
    length, each proves the place of the next.
    """
    runs = [np.zeros(0, np.int64)]
    while at < end:
        length = int(words[at])
        step = words_of(length)
        other = np.flatnonzero(words[at:end:step] != length)
        count = int(other[0]) if len(other) else (end - at + step - 1) // step
        if count < SHORT_RUN:
            runs.append(np.array(walk(words, at, end), np.int64))
            last = int(runs[-1][-1])
            at = last + words_of(int(words[last]))
            continue
        runs.append(np.arange(at, at + count * step, step))
        at += count * step
    return np.concatenate(runs)


def walk(words: NDArray[np.uint32], at: int, end: int) -> list[int]:
    """Where the next messages begin, found one by one."""
    lengths = words[at:end].data
    starts: list[int] = []
    place = 0
    while place < len(lengths) and len(starts) < WALK:
        starts.append(at + place)
        place += words_of(lengths[place])
    return starts


def words_of(length: int) -> int:
    """How many words a message of `length` bytes takes. Raises TracerError where it could not even hold its header."""
    if length < HEADER.size:
        raise TracerError(f"netlink: a message of {length} bytes, shorter than its header")
    return length + 3 >> 2


def attributes(
    words: NDArray[np.uint32], at: NDArray[np.int64], end: NDArray[np.int64], wanted: tuple[int, ...]
) -> list[NDArray[np.int64]]:
    """Where the wanted attributes of many messages are.

    `at` and `end` are the words between which each message's attributes lie, shape (n,). For each wanted kind, the word of its header in
    each message, 0 where the message has none. (An attribute is length u16, kind u16, then the value.)
    """
    if not len(at):
        return [np.zeros(0, np.int64) for _ in wanted]
    offsets = layout(words, int(at[0]), int(end[0]))
    if (end - at == end[0] - at[0]).all() and all((words[at + offset] == header).all() for offset, header in offsets):
        places = {header >> 16 & KIND_MASK: at + offset for offset, header in offsets}
        return [places.get(kind, np.zeros(len(at), np.int64)) for kind in wanted]
    return attributes_apart(words, at, end, wanted)


def layout(words: NDArray[np.uint32], at: int, end: int) -> list[tuple[int, int]]:
    """The attributes of one message as (words from `at`, header)."""
    found, place = [], at
    while place < end:
        header = int(words[place])
        found.append((place - at, header))
        place += max((header & 0xFFFF) + 3 >> 2, 1)
    return found


def attributes_apart(
    words: NDArray[np.uint32], at: NDArray[np.int64], end: NDArray[np.int64], wanted: tuple[int, ...]
) -> list[NDArray[np.int64]]:
    """The same where not all messages look alike: one step for the first attribute of each message, one for the second, and so on."""
    found = [np.zeros(len(at), np.int64) for _ in wanted]
    which = np.arange(len(at))
    while True:
        more = at < end
        if not more.all():
            at, end, which = at[more], end[more], which[more]
        if not len(at):
            return found
        header = words[at]
        kinds = header >> 16 & KIND_MASK
        for kind, places in zip(wanted, found, strict=True):
            here = kinds == kind
            places[which[here]] = at[here]
        at = at + np.maximum((header & 0xFFFF) + 3 >> 2, 1)
