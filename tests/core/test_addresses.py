from __future__ import annotations

import ipaddress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.addresses import BAD, Addresses
from cluster.core.records import pack_address

ODD = [
    "",
    ":",
    "::",
    ":::",
    "1::2::3",
    "::1",
    "1::",
    "1:2:3:4:5:6:7:8",
    "1:2:3:4:5:6:7::",
    "::2:3:4:5:6:7:8",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3",
    "g::1",
    "1 ::2",
    "::1 ",
    " ::1",
    "12345::1",
    "fe80::1%eth0",
    "::ffff:10.0.0.1",
    "::10.0.0.1",
    "1.2.3",
    "1.2.3.4.5",
    "01.2.3.4",
    "1.2.3.256",
    "1.2.3.-1",
    " 1.2.3.4",
    "1.2.3.4 ",
    "+1.2.3.4",
    "\u0661.2.3.4",
    "::\u0661",
    "1_0.2.3.4",
    "FD00::A",
    "0:0:0:0:0:0:0:0",
    "1:::2",
    "::1::",
]


def wanted(text: str) -> bytes | None:
    try:
        return pack_address(text)
    except ValueError:
        return None


def got(text: str) -> bytes | None:
    addresses = Addresses()
    number = addresses[text]
    return None if number == BAD else addresses.packed[number].tobytes()


@pytest.mark.parametrize("text", ODD)
def test_odd_texts_mean_what_the_standard_library_says(text: str) -> None:
    assert got(text) == wanted(text)


@given(
    st.text("0123456789abcdefABCDEF:. ", max_size=20) | st.ip_addresses().map(str) | st.ip_addresses(v=6).map(lambda each: each.exploded)
)
def test_any_text_means_what_the_standard_library_says(text: str) -> None:
    assert got(text) == wanted(text)


def test_many_texts_at_once_have_the_numbers_that_they_have_one_by_one() -> None:
    texts = [str(ipaddress.ip_address(number * 7919)) for number in range(1, 3_000)] + [f"fd00::{number:x}" for number in range(3_000)]
    texts += ["", "nowhere", "::ffff:10.0.0.1", "10.0.0.1"]
    texts *= 3
    addresses = Addresses()
    words = np.array([f'{text}"' for text in texts], "S64").view(np.uint64).reshape(-1, 8)
    numbers = addresses.of_words(words, np.ones(len(words), np.bool_))
    assert numbers.tolist() == [addresses[text] for text in texts]
    assert numbers.tolist().count(BAD) == 6
