"""Which key goes to which page, what fits there, how many pages there are, and which of them are written now.

A page is a function of the key while the number of pages stands. When the number grows, keys move only to the new pages, which are written
first; when it falls, keys move only from the pages that go, which are emptied last. So a key is never missing because pages are rearranged:
for a while it may be on two of them, and the one that was written later is right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil
from zlib import crc32

from cluster.core.publication import Entries, Entry

VALUE_BYTES = 1_000_000  # of the values of one page; the API server takes 1,048,576 (k8s.io/kubernetes, MaxSecretSize)
PAGE_BYTES = 1_350_000  # of keys and values; etcd takes requests of 1,572,864 (etcd, --max-request-bytes)
GROW_AT = 0.9  # of the room of all pages: above it there are to be more
FILL = 0.75  # of the room that is taken after that
SHRINK_AT = 0.6  # of the room of one page less: below it there are to be fewer


def page_of(key: str, pages: int) -> int:
    """The page of a key: jump consistent hash (Lamping and Veach, arXiv:1406.2294) of the CRC-32 of its ASCII bytes."""
    state, page, following = crc32(key.encode("ascii")), -1, 0
    while following < pages:
        page = following
        state = (state * 2862933555777941757 + 1) & 0xFFFFFFFFFFFFFFFF
        following = int((page + 1) * (0x80000000 / ((state >> 33) + 1)))
    return page


@dataclass(slots=True)
class Page:
    """What one ConfigMap is to hold."""

    texts: dict[str, list[str]] = field(default_factory=dict)  # JSON by key: the value, or the elements of the list that it is
    values: int = 0  # bytes of the values
    keys: int = 0
    left_out: int = 0  # entries of this page that do not fit

    @property
    def size(self) -> int:
        """Bytes of keys and values."""
        return self.values + self.keys

    def add(self, entry: Entry, *, listed: bool) -> None:
        """Add an entry if it fits, else count it."""
        elements = self.texts.get(entry.key)
        key = len(entry.key) if elements is None else 0
        value = entry.size + (0 if not listed else 2 if elements is None else 1)
        if self.values + value > VALUE_BYTES or self.size + key + value > PAGE_BYTES or (elements and not listed):
            self.left_out += 1
            return
        self.texts.setdefault(entry.key, []).append(entry.text)
        self.values += value
        self.keys += key

    def digest(self, *further: int) -> bytes:
        """What changes when the page has to be written again."""
        digest = hashlib.blake2b(repr(further).encode(), digest_size=16)
        for key in sorted(self.texts):
            digest.update(f"\n{key} {','.join(self.texts[key])}".encode())
        return digest.digest()


def count(pages: int, size: int, most: int) -> int:
    """How many pages there are to be for `size` bytes, where there are `pages`. It changes only when it must, and then by enough."""
    pages = min(max(1, pages), most)
    if size > GROW_AT * VALUE_BYTES * pages:
        return min(ceil(size / (FILL * VALUE_BYTES)), most)
    if size <= SHRINK_AT * VALUE_BYTES * (pages - 1):
        return max(1, ceil(size / (SHRINK_AT * VALUE_BYTES)))
    return pages


@dataclass(frozen=True, slots=True)
class Written:
    """What a page was when it was last written."""

    digest: bytes = b""  # empty: not known, or changed by somebody else
    pages: int = 0  # how many pages there were; 0 not known
    tried: float = 0.0  # when it was last tried, on any clock that only rises; 0 never
    refused: bool = False  # since then


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a page is to be."""

    digest: bytes
    size: int  # bytes that writing it takes


EMPTY = Wanted(Page().digest(), 0)


@dataclass(frozen=True, slots=True)
class Filled:
    """The pages of one kind as they are to be."""

    pages: list[Page]
    wanted: list[Wanted]
    left_out: int  # what is of this kind and on no page
    listed: bool

    def data(self, number: int) -> dict[str, str]:
        """The data of one ConfigMap; empty for a page that is not needed."""
        texts = self.pages[number].texts if number < len(self.pages) else {}
        if self.listed:
            return {key: f"[{','.join(elements)}]" for key, elements in texts.items()}
        return {key: elements[0] for key, elements in texts.items()}


def fill(entries: Entries, pages: int, most: int, unread: int = 0, *, listed: bool) -> Filled:
    """Place the entries, the most important first; there are `pages` so far, 0 for none, and `most` there may be.

    Where they are `listed`, those of one key form a list; else a second one of the same key is left out. `unread` were not even read.
    """
    size = sum(entry.size + len(entry.key) // 2 for entry in entries.kept)
    wanted = count(pages, size, most)
    while True:
        filled = [Page() for _ in range(wanted)]
        for entry in entries.kept:
            filled[page_of(entry.key, wanted)].add(entry, listed=listed)
        left_out = sum(page.left_out for page in filled)
        if wanted == most or not left_out:
            break
        wanted += 1
    left_out += entries.refused + unread
    described = [Wanted(page.digest(wanted, 0 if number else left_out), page.size) for number, page in enumerate(filled)]
    return Filled(filled, described, left_out, listed)


@dataclass(frozen=True, slots=True)
class Due:
    """A page that is not as it should be."""

    order: tuple[bool, float, int]  # new ones first, then the one that waits longest
    number: int
    size: int


def due(wanted: Sequence[Wanted], written: Sequence[Written]) -> list[Due]:
    """Which pages of one kind are to be written, in order. `written` is of all that there may be, `wanted` of those in use.

    A new one that was refused waits like the others. Those beyond the number of pages come only once all others are written under it.
    """
    pages = len(wanted)
    found = [
        Due((was.refused or was.pages > number, was.tried, number), number, page.size)
        for number, (page, was) in enumerate(zip(wanted, written, strict=False))
        if page.digest != was.digest
    ]
    if all(was.pages == pages for was in written[:pages]):
        surplus = [number for number, was in enumerate(written) if number >= pages and was.digest != EMPTY.digest]
        found += [Due((True, written[number].tried, number), number, 0) for number in surplus]
    return sorted(found, key=lambda page: page.order)


def within(pages: Iterable[Due], budget: int, *, whole: bool) -> list[Due]:
    """The first of these that `budget` bytes are enough for; where it is `whole`, nothing of it spent, at least one."""
    chosen: list[Due] = []
    for page in pages:
        if page.size > budget and (chosen or not whole):
            break
        chosen.append(page)
        budget -= page.size
    return chosen
