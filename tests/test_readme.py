"""Runs README's commands as they stand there.

Every ```sh block is run by bash, in order, from the checkout, with the checkout's own `.venv/bin` and with a home, a state and a runtime
directory of its own. A block that cannot be run has a comment `<!-- not run: REASON -->` before it. A command that never ends is written
with `--for`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.installed import WHY_NOT

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PATIENCE = 150  # s for one block; Ray's start is ten of them
FENCE = re.compile(r"(?:<!-- not run: (?P<reason>[^>]+?) -->\s*\n)?^```(?P<kind>[a-z]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
CACHES = {".venv", ".git", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", ".import_linter_cache", "__pycache__"}


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block, and the reason where it is not to be run."""

    line: int
    kind: str
    text: str
    reason: str | None


BLOCKS = [
    Block(README.count("\n", 0, found.start("text")) + 1, found["kind"], found["text"], found["reason"]) for found in FENCE.finditer(README)
]
COMMANDS = [block for block in BLOCKS if block.kind == "sh"]


def files() -> set[str]:
    """What stands in the checkout, less what tools keep there."""
    return {entry.name for entry in ROOT.iterdir()} - CACHES


@pytest.fixture(scope="module")
def environ() -> Iterator[dict[str, str]]:
    """A newcomer's environment: nothing of ours or of Ray is set, and every directory is new. Short, since sockets' paths are."""
    home = tempfile.mkdtemp(prefix="rs-readme-")
    ours = ("RAY_", "RAYSCOPE_", "XDG_", "MAKE", "MFLAGS", "PYTEST_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    path = f"{ROOT / '.venv/bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    yield clean | {"HOME": home, "XDG_STATE_HOME": f"{home}/state", "XDG_RUNTIME_DIR": home, "PATH": path}
    shutil.rmtree(home)


def run(text: str, environ: dict[str, str]) -> tuple[int | str, str]:
    """bash's exit code, or that it did not end, and all it printed. Nothing of it runs on afterwards."""
    with tempfile.TemporaryFile("w+") as output:
        started = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | str = started.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()
            code = f"not ended after {PATIENCE} s; write a command that never ends with --for"
        output.seek(0)
        return code, output.read()


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
@pytest.mark.parametrize("block", COMMANDS, ids=lambda block: f"line-{block.line}")
def test_readme_commands_run(block: Block, environ: dict[str, str]) -> None:
    if block.reason:
        pytest.skip(f"README line {block.line}: {block.reason}")
    before = files()
    code, output = run(block.text, environ)
    assert code == 0, f"README line {block.line} ended with {code}:\n{block.text}\n{output}"
    assert files() == before, "a command of README leaves files in the checkout: write them elsewhere"


def test_every_block_of_commands_is_seen() -> None:
    assert COMMANDS
    assert README.count("```") == 2 * len(BLOCKS)
    assert not {block.kind for block in BLOCKS} & {"bash", "shell", "console", "zsh", ""}, (
        "commands stand in ```sh blocks, others name their kind"
    )


def test_only_a_block_of_commands_says_why_it_is_not_run() -> None:
    assert README.count("<!-- not run:") == sum(block.reason is not None for block in COMMANDS)


def test_the_headings_are_there() -> None:
    headings = re.findall(r"^##+ (.+)$", README, re.MULTILINE)
    wanted = ["Quick start", "Data sources", "Node level", "Cluster level", "Processing pipeline", "Aggregator", "Storage"]
    assert [heading for heading in headings if heading in wanted] == wanted
    assert {"Limitations", "Building", "Deploying"} <= set(headings)
