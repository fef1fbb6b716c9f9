"""Whether the tests run in the checkout's own virtual environment as `make install` left it: what runs `make` needs that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def why_not() -> str:
    """The reason why `make install` would have something to do here, or an empty text."""
    if Path(sys.prefix) != ROOT / ".venv":
        return "the tests do not run in the checkout's own .venv: use make test"
    stamp = ROOT / ".venv/.installed"
    wanted = subprocess.run(
        ["sh", "-c", "cat requirements.lock pyproject.toml | cksum"], cwd=ROOT, capture_output=True, text=True, timeout=10
    )
    if not stamp.exists() or wanted.stdout.strip() not in stamp.read_text():
        return "requirements.lock or pyproject.toml is newer than the set-up: use make test"
    return ""


WHY_NOT = why_not()
