"""Pages: where a key goes, what fits, how many there are, which are written when; and that no key goes missing while they change."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.core import paging
from cluster.core.paging import (
    EMPTY,
    PAGE_BYTES,
    VALUE_BYTES,
    Filled,
    Page,
    Wanted,
    Written,
    count,
    due,
    fill,
    page_of,
    within,
)
from cluster.core.publication import Entries, Entry

MOST = 16
keys = st.from_regex(r"[-._a-zA-Z0-9]{1,40}", fullmatch=True)


def entry(key: str, size: int) -> Entry:
    return Entry(key, "1" * size, size)


def entries(*kept: Entry, refused: int = 0) -> Entries:
    return Entries(list(kept), refused)


# Where a key goes


@given(keys, st.integers(1, 300))
def test_one_page_more_moves_keys_to_the_new_one_only(key: str, pages: int) -> None:
    before, after = page_of(key, pages), page_of(key, pages + 1)
    assert 0 <= before < pages
    assert after in (before, pages)


def test_the_page_of_a_key_is_the_same_in_every_release() -> None:
    assert [page_of("10.0.0.1-10.96.0.1-40000-443", pages) for pages in (1, 2, 3, 5, 16)] == [0, 1, 2, 3, 3]
    assert page_of("10.0.0.1", 16) == 5


def test_keys_spread_evenly() -> None:
    counts = [0] * MOST
    for index in range(16_000):
        counts[page_of(f"10.0.{index % 250}.{index // 250}-10.96.0.1-40000-443", MOST)] += 1
    assert min(counts) > 850
    assert max(counts) < 1_150


# What fits


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(keys, st.sampled_from([1, 300, 90_000, 400_000, VALUE_BYTES, VALUE_BYTES + 1])), max_size=40), st.booleans())
def test_every_entry_is_on_its_page_or_counted_and_no_page_is_too_large(drawn: list[tuple[str, int]], listed: bool) -> None:
    made = [entry(key, size) for key, size in drawn]
    filled = fill(entries(*made, refused=3), 0, 4, 5, listed=listed)
    assert len(filled.pages) <= 4
    shown = 0
    for number, page in enumerate(filled.pages):
        data = filled.data(number)
        assert all(page_of(key, len(filled.pages)) == number for key in data)
        assert sum(map(len, data.values())) == page.values <= VALUE_BYTES
        assert sum(map(len, data)) + page.values == page.size <= PAGE_BYTES
        shown += sum(map(len, page.texts.values()))
    assert shown + filled.left_out == len(made) + 3 + 5


def test_several_of_one_key_are_a_list_the_most_important_first() -> None:
    made = [Entry("a", '{"n":1}', 7), Entry("b", "2", 1), Entry("a", '{"n":3}', 7)]
    filled = fill(entries(*made), 0, 1, listed=True)
    assert filled.data(0) == {"a": '[{"n":1},{"n":3}]', "b": "[2]"}
    assert fill(entries(*made), 0, 1, listed=False).left_out == 1


def test_the_most_important_stay() -> None:
    made = [entry(f"key-{index}", 1_000) for index in range(3_000)]
    filled = fill(entries(*made), 0, 2, listed=True)
    kept = {key for number in range(2) for key in filled.data(number)}
    assert filled.left_out == 3_000 - len(kept)
    for number in range(2):
        mine = [each.key for each in made if page_of(each.key, 2) == number]
        assert mine[: len(filled.data(number))] == list(filled.data(number))


# How many there are


@pytest.mark.parametrize(
    ("pages", "share", "expected"),
    [(0, 0, 1), (0, 0.9, 1), (1, 0.91, 2), (4, 3.6, 4), (4, 3.61, 5), (5, 2.41, 5), (5, 2.4, 4), (16, 99, 16), (99, 99, 16)],
)
def test_how_many_pages(pages: int, share: float, expected: int) -> None:
    assert count(pages, math.floor(share * VALUE_BYTES), MOST) == expected


@given(st.integers(0, 40), st.integers(0, 40_000_000), st.integers(1, 256))
def test_the_number_of_pages_settles_and_a_little_more_or_less_does_not_move_it(pages: int, size: int, most: int) -> None:
    settled = count(pages, size, most)
    assert 1 <= settled <= most
    assert count(settled, size, most) == settled
    if settled > max(1, pages):  # it has just grown: a little less does not undo that
        assert count(settled, int(size * 0.85), most) == settled
    if settled < min(pages, most):  # it has just shrunk: a quarter more does not undo that
        assert count(settled, int(size * 1.25), most) == settled


# What is written when


def pages_of(*sizes: int) -> list[Wanted]:
    return [Wanted(b"new %d" % number, size) for number, size in enumerate(sizes)]


def test_new_pages_come_first_then_the_one_that_waits_longest() -> None:
    written = [Written(b"old", 2, 50.0), Written(b"old", 2, 40.0), Written(b"", 0, 0.0), Written(EMPTY.digest, 2, 60.0)]
    assert [page.number for page in due(pages_of(1, 1, 1, 1), written)] == [2, 3, 1, 0]


def test_what_is_as_it_should_be_is_not_written() -> None:
    wanted = pages_of(1, 1)
    assert due(wanted, [Written(page.digest, 2, 1.0) for page in wanted] + [Written(EMPTY.digest)]) == []


def test_a_page_that_is_not_needed_any_more_is_emptied_last() -> None:
    wanted = pages_of(1, 1)
    written = [Written(wanted[0].digest, 2, 9.0), Written(b"old", 3, 8.0), Written(b"old", 3, 7.0)]
    assert [page.number for page in due(wanted, written)] == [1]
    written[1] = Written(wanted[1].digest, 2, 10.0)
    assert [page.number for page in due(wanted, written)] == [2]


def test_a_round_takes_what_the_budget_allows_but_at_least_one_page() -> None:
    waiting = due(pages_of(300, 200, 100), [Written()] * 3)
    assert [page.number for page in within(waiting, 500, whole=True)] == [0, 1]
    assert [page.number for page in within(waiting, 250, whole=True)] == [0]
    assert within(waiting, 250, whole=False) == []


def test_none_starves() -> None:
    """All pages change all the time, one is refused always, and a round may write two of eight."""
    written = [Written()] * 8
    turns = dict.fromkeys(range(8), 0)
    for now in range(1, 41):
        wanted = [Wanted(b"%d" % now, 100)] * 8
        for page in within(due(wanted, written), 200, whole=True):
            turns[page.number] += 1
            was = written[page.number]
            written[page.number] = replace(was, tried=float(now), refused=True) if page.number == 3 else Written(b"%d" % now, 8, float(now))
    assert min(turns.values()) >= 9


class Shelf:
    """What readers see: pages that are written one at a time, some of which fail."""

    def __init__(self) -> None:
        self.data: list[dict[str, str]] = [{} for _ in range(MOST)]
        self.written = [Written()] * MOST
        self.pages = 0

    def round(self, kept: Entries, budget: int, now: float) -> None:
        filled = fill(kept, self.pages, MOST, listed=True)
        self.pages = len(filled.pages)
        for page in within(due(filled.wanted, self.written), budget, whole=True):
            number = page.number
            wanted = filled.wanted[number] if number < self.pages else EMPTY
            self.data[number] = filled.data(number)
            self.written[number] = Written(wanted.digest, self.pages, now)

    @property
    def shown(self) -> set[str]:
        return {key for data in self.data for key in data}


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=6), st.integers(1, 4))
def test_a_key_that_stays_is_never_missing_while_the_number_of_pages_changes(sizes: list[int], pages_per_round: int) -> None:
    """Sizes rise and fall under the same keys; every key that was shown stays shown."""
    shelf, now = Shelf(), 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paging, "VALUE_BYTES", 5_000)
        patch.setattr(paging, "PAGE_BYTES", 9_000)
        kept = {f"key-{index}" for index in range(200)}
        for size in sizes:
            made = entries(*(entry(key, size) for key in sorted(kept)))
            for _ in range(2 * MOST):
                before, now = shelf.shown, now + 1
                shelf.round(made, 5_500 * pages_per_round, now)
                assert before <= shelf.shown
            assert shelf.shown == kept
            assert [bool(data) for data in shelf.data] == [number < shelf.pages for number in range(MOST)] or shelf.pages == 1


def test_an_empty_page_is_known_as_such() -> None:
    assert Page().digest() == EMPTY.digest
    nothing: Any = Filled([], [], 0, True)
    assert nothing.data(3) == {}
