"""A settings file is hostile until it is read: bounded, plain, and refused with its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.errors import SettingsError
from configs.yaml_file import DEPTH_LIMIT, SIZE_LIMIT, Entry, read

BOMB = "a: &a [x, x, x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20))


def refusal(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "settings.yaml"


def test_values_come_with_their_lines(path: Path) -> None:
    path.write_text("# mine\ncollector:\n  interval: 2\n\n  docker_socket: null\ntracer:\n")
    assert read(path) == [
        Entry("collector", "interval", 2, 3),
        Entry("collector", "docker_socket", None, 5),
        Entry("tracer", None, None, 6),
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_name(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbfnode:\n  name: x\n")
    assert read(path) == [Entry("node", "name", "x", 2)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", ":1: sections were expected"),
        ("just text\n", ":1: sections were expected"),
        ("a: 1\na: 2\n", ":2: 'a' is there twice, first on line 1"),
        ("a:\n  b: 1\n  b: 2\n", ":3: 'b' is there twice in 'a', first on line 2"),
        ("? [a]\n: 1\n", "a name was expected"),
        ("a: {b: 1\n", "not YAML"),
        ("a:\n\tb: 1\n", ":2: not YAML"),
        ("a: 1\n---\nb: 2\n", "not YAML"),
        ("a: 'never closed\n", "not YAML"),
        ("a: \x01\n", "not YAML"),
        (BOMB, ":1: anchors (&) and aliases (*) are not allowed"),
        ("a: *nowhere\n", "anchors (&) and aliases (*) are not allowed"),
        ("a: !!python/object/apply:os.system [id]\n", ":1: the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not allowed"),
        ("a: !mine 1\n", ":1: the tag '!mine' is not allowed"),
        ("a: " + "[" * 9, f":1: nested more than {DEPTH_LIMIT} deep"),
        ("a: " + "[" * 100_000, "nest"),
        ("a: " + "{b: " * 50_000, "nest"),
    ],
)
def test_what_is_no_plain_map_of_sections_is_refused(path: Path, text: str, said: str) -> None:
    path.write_text(text)
    assert said in refusal(path)


def test_a_merge_key_is_an_ordinary_name(path: Path) -> None:
    path.write_text("collector:\n  <<: {interval: 2}\n")
    assert read(path) == [Entry("collector", "<<", {"interval": 2}, 2)]


def test_bytes_that_are_not_utf8_are_named(path: Path) -> None:
    path.write_bytes(b"node: \xff\xfe\n")
    assert "byte 6 is not UTF-8" in refusal(path)


def test_a_large_file_is_refused_unread(path: Path) -> None:
    path.write_text("#" * (SIZE_LIMIT + 1))
    assert "larger than 256,000 bytes" in refusal(path)
    assert "larger than" in refusal(Path("/dev/zero"))


def test_absent_directory_and_pipe_are_no_files(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "absent.yaml")
    assert refusal(tmp_path).startswith(str(tmp_path))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "not a file" in refusal(pipe)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_is_named(path: Path) -> None:
    path.write_text("node:\n")
    path.chmod(0)
    assert "Permission denied" in refusal(path)


@given(raw=st.one_of(st.binary(max_size=200), st.text("ab:-{}[]&*!|>'\"#%? \n\t<=0~", max_size=200).map(str.encode)))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(raw)
    try:
        entries = read(path)
    except SettingsError as error:
        entries, message = [], str(error)
    else:
        message = str(path)
    assert message.startswith(str(path))
    assert all(isinstance(entry.section, str) for entry in entries)
