"""The settings in words: what there is, what each allows, and default.yaml written from it. All of it derives from settings.py."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from configs.settings import Settings

HEADER = """\
# The settings of rayscope, each with its default. `rayscope config --defaults` writes this file.
# Later wins: this file; a file (--config FILE, else $XDG_CONFIG_HOME/rayscope/config.yaml, else /etc/rayscope/config.yaml);
# a variable RAYSCOPE_SECTION__NAME, such as RAYSCOPE_COLLECTOR__INTERVAL=2; --set SECTION.NAME=VALUE and other flags.
"""
KINDS = {"number": "a number", "integer": "a whole number", "string": "text", "boolean": "true or false"}


@dataclass(frozen=True, slots=True)
class Known:
    """One setting that exists."""

    key: str  # "section.name"
    kind: str  # of JSON schema: "number", "integer", "string" or "boolean"
    nullable: bool
    allowed: str
    description: str


def _alternatives(schema: dict[str, Any]) -> list[dict[str, Any]]:
    kinds: list[dict[str, Any]] = schema.get("anyOf", [schema])
    return kinds


def _range(schema: dict[str, Any]) -> str:
    """The bounds in words; an exclusive maximum is the machine's own and goes without saying."""
    match schema:
        case {"minimum": low, "maximum": high} | {"minLength": low, "maxLength": high}:
            return f" from {_number(low)} to {_number(high)}"
        case {"minimum": low} | {"minLength": low}:
            return f" of at least {_number(low)}"
        case {"exclusiveMinimum": low}:
            return f" above {_number(low)}"
    return ""


def _number(value: float) -> str:
    """86,400 and never 86,400.0, which of the two a release of pydantic may have."""
    return f"{int(value) if value == int(value) else value:,}"


def _allowed(schema: dict[str, Any]) -> str:
    match schema:
        case {"type": "null"}:
            return "null"
        case {"allowed": str() as allowed}:
            return allowed
        case {"enum": list() as values}:
            return " or ".join(values)
        case {"type": str() as kind}:
            return KINDS[kind] + _range(schema) + (" characters" if "minLength" in schema else "")
    raise TypeError(f"settings.py has a type that describe.py has no words for: {schema}")


@cache
def known() -> dict[str, Known]:
    """Every setting by its key, in the order of settings.py."""
    schema = Settings.model_json_schema()
    found = {}
    for section, reference in schema["properties"].items():
        for name, field in schema["$defs"][reference["$ref"].rpartition("/")[2]]["properties"].items():
            kinds = _alternatives(field)
            found[f"{section}.{name}"] = Known(
                key=f"{section}.{name}",
                kind=kinds[0]["type"],
                nullable={"type": "null"} in kinds,
                allowed=", or ".join(map(_allowed, kinds)),
                description=field["description"],
            )
    return found


def sections() -> dict[str, str]:
    """Each section's name and its sentence, in the order of settings.py."""
    return {name: str(type(section).__doc__) for name, section in Settings()}


def default_yaml() -> str:
    """The text of default.yaml."""
    lines = [HEADER]
    for section, sentence in sections().items():
        lines += [f"# {sentence}", f"{section}:"]
        for name, value in getattr(Settings(), section):
            entry = known()[f"{section}.{name}"]
            lines += [f"  # {entry.description} ({entry.allowed})", f"  {name}: {json.dumps(value)}"]
        lines.append("")
    return "\n".join(lines[:-1]) + "\n"
