from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cluster.core.index import Index, hashed


def crowded(size: int, places: int) -> NDArray[np.uint64]:
    """Identities whose hashes lead to few places of a table of 2,048, so that they stand in each other's way."""
    words = np.zeros((4, 400_000), np.uint64)
    words[2] = np.arange(400_000)
    near = np.flatnonzero((hashed(words) & np.uint64(2047)) < np.uint64(places))[:size]
    return words[:, near]


def test_rows_that_stand_in_each_others_way_are_found_after_others_left() -> None:
    words = crowded(300, 3)
    index, slots = Index(), np.arange(words.shape[1])
    index.add(slots, words)
    assert (index.find(words, words) == slots).all()
    index.remove(slots[::2], words)
    found = index.find(words, words)
    assert (found[::2] == -1).all()
    assert (found[1::2] == slots[1::2]).all()


@given(steps=st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 59), min_size=1, max_size=30, unique=True)), max_size=30))
@settings(deadline=None)
def test_it_is_a_dictionary(steps: list[tuple[bool, list[int]]]) -> None:
    identities = crowded(60, 8)
    capacity = 4_096
    words = np.zeros((4, capacity), np.uint64)
    index, model, top = Index(), dict[int, int](), 0
    for add, which in steps:
        if add:
            slots = np.arange(top, top + len(which))
            words[:, slots] = identities[:, which]
            index.add(slots, words)
            model.update(zip(which, slots.tolist(), strict=True))
            top += len(which)
        else:
            held = [model.pop(each) for each in which if each in model]
            index.remove(np.array(held, np.int64), words)
        assert index.find(identities, words).tolist() == [model.get(each, -1) for each in range(60)]


def test_it_grows_and_forgets_what_left() -> None:
    words = np.zeros((4, 20_000), np.uint64)
    words[0] = np.arange(20_000)
    index = Index()
    for first in range(0, 20_000, 500):
        slots = np.arange(first, first + 500)
        index.add(slots, words)
        if first:
            index.remove(slots - 500, words)
    found = index.find(words, words)
    assert (found[:19_500] == -1).all()
    assert found[19_500:].tolist() == list(range(19_500, 20_000))
    assert len(index._table) < 20_000
