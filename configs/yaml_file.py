"""Reads a settings file, whoever wrote it: bounded in size and depth, no anchors, no tags, no key twice; every value with its line."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.core.errors import SettingsError

SIZE_LIMIT = 256_000  # bytes; all the settings with their comments are below 10,000
DEPTH_LIMIT = 8
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Entry:
    """One value as the file has it."""

    section: str
    name: str | None  # None where the section is empty (value None) or something else than a map
    value: Any
    line: int


def read_text(path: Path) -> str:
    """The file's text. Raises SettingsError where it is absent, unreadable, no file, too large or not UTF-8."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
                raise SettingsError(f"{path}: not a file; name a YAML file with settings")
            raw = file.read(SIZE_LIMIT + 1) or b""
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"{path}: cannot be read: {reason}") from error
    if len(raw) > SIZE_LIMIT:
        raise SettingsError(f"{path}: larger than {SIZE_LIMIT:,} bytes; that is no settings file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from error


def _refuse_tricks(text: str, path: Path) -> None:
    """Anchors can grow without end, tags can name Python objects and deep nesting exhausts the stack; settings need none of them."""
    depth = 0
    for event in yaml.parse(text, Loader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if getattr(event, "anchor", None):
            raise SettingsError(f"{path}:{line}: anchors (&) and aliases (*) are not allowed; write the value out")
        if tag := getattr(event, "tag", None):
            raise SettingsError(f"{path}:{line}: the tag {tag[:80]!r} is not allowed; write a plain value")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH_LIMIT:
            raise SettingsError(f"{path}:{line}: nested more than {DEPTH_LIMIT} deep; settings are sections with names")


def _pairs(node: yaml.MappingNode, path: Path, inside: str) -> Iterator[tuple[str, yaml.Node]]:
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise SettingsError(f"{path}:{line}: a name was expected{inside}, not a list or a map")
        if key.value in seen:
            raise SettingsError(f"{path}:{line}: {key.value[:80]!r} is there twice{inside}, first on line {seen[key.value]}; keep one")
        seen[key.value] = line
        yield key.value, value


def _is_null(node: yaml.Node) -> bool:
    return node.tag == "tag:yaml.org,2002:null"


def _value(node: yaml.Node) -> Any:
    """The plain value; what YAML cannot make of it (a month 13, a number of 5,000 digits) stays text, which is refused with its key."""
    try:
        return yaml.SafeLoader("").construct_object(node, deep=True)
    except (ValueError, yaml.YAMLError):
        return str(node.value)


def _entries(root: yaml.Node | None, path: Path) -> Iterator[Entry]:
    if root is None or _is_null(root):
        return
    if not isinstance(root, yaml.MappingNode):
        raise SettingsError(
            f"{path}:{root.start_mark.line + 1}: sections were expected, such as `collector:`, not a list or a single value"
        )
    for section, node in _pairs(root, path, ""):
        if isinstance(node, yaml.MappingNode) and node.value:
            for name, value in _pairs(node, path, f" in {section[:80]!r}"):
                yield Entry(section, name, _value(value), value.start_mark.line + 1)
        else:
            yield Entry(section, None, _value(node) or None, node.start_mark.line + 1)


def read(path: Path) -> list[Entry]:
    """Every value of the file. Raises SettingsError for a file that is no plain map of sections."""
    text = read_text(path)
    try:
        _refuse_tricks(text, path)
        return list(_entries(yaml.compose(text, Loader), path))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise SettingsError(f"{path}:{mark.line + 1 if mark else 1}: not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not YAML: {' '.join(str(error).split())[:200]}") from error
