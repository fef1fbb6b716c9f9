"""What a check finds: it is there, it is lacking, or it cannot be known; with what was seen and what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from configs.settings import Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer of one check."""

    state: Literal["ok", "lack", "unknown"]
    detail: str
    remedy: str = ""  # for a lack, always


def ok(detail: str) -> Finding:
    """It is there."""
    return Finding("ok", detail)


def lack(detail: str, remedy: str) -> Finding:
    """It is lacking, and this helps."""
    return Finding("lack", detail, remedy)


def unknown(detail: str, remedy: str = "") -> Finding:
    """It cannot be known from here."""
    return Finding("unknown", detail, remedy)


@dataclass(frozen=True, slots=True)
class Machine:
    """What the checks are told: where the kernel shows itself, the environment and the settings in force."""

    settings: Settings
    environ: Mapping[str, str]
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    shm: Path = Path("/dev/shm")  # noqa: S108 (looked at, never written)


@dataclass(frozen=True, slots=True)
class Check:
    """One check, and whether rayscope can run without what it looks for."""

    name: str
    needed: bool
    look: Callable[[Machine], Finding]


def human(size: int) -> str:
    """Bytes as people read them."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
