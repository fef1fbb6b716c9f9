"""Which code an actor runs. A detached actor outlives its job and keeps its old code, so whoever attaches to one compares."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("actors", "cluster", "configs")
STOPPED = "stopped"  # what an actor says instead that will do no more


@cache
def code_version() -> str:
    """The release and a digest of our own source files, such as "0.1.0+3f9a12c4"."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    try:
        release = version("rayscope")
    except PackageNotFoundError:  # a working directory that Ray shipped: there is no distribution
        release = "0"
    return f"{release}+{digest.hexdigest()[:8]}"
