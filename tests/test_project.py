"""Rules of the project that one could forget: dependencies, lock, layers, packaging, words that point somewhere, and `make`."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from cluster.cli.main import COMMANDS
from cluster.core import errors
from tests.installed import WHY_NOT

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(PYPROJECT)
LOCK = (ROOT / "requirements.lock").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
DEPENDENCIES = [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["dev"]]
LINES_LIMIT = 400  # of one Python file


@cache
def locked() -> dict[str, list[str]]:
    """The lock: each package's versions; several where Pythons need different ones."""
    found: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", LOCK, re.MULTILINE):
        found.setdefault(name, []).append(version)
    return found


def sources(*packages: str) -> Iterator[Path]:
    for package in packages:
        yield from sorted((ROOT / package).rglob("*.py"))


# Dependencies


@pytest.mark.parametrize("text", DEPENDENCIES)
def test_a_dependency_has_floor_ceiling_and_reason(text: str) -> None:
    assert {specifier.operator for specifier in Requirement(text).specifier} == {">=", "<"}
    assert re.search(rf'^ +"{re.escape(text)}", +# \w', PYPROJECT, re.MULTILINE), "say in a comment beside it why it is here"


@pytest.mark.parametrize("text", DEPENDENCIES)
def test_the_lock_has_every_dependency_in_its_range(text: str) -> None:
    wanted = Requirement(text)
    name = wanted.name.lower().replace("_", "-")
    assert name in locked(), "make lock"
    assert all(version in wanted.specifier for version in locked()[name]), "make lock"


def test_the_lock_pins_every_package_with_its_hashes() -> None:
    packages = re.split(r"^(?=[a-z0-9-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(packages) == sum(map(len, locked().values())) > len(DEPENDENCIES)
    assert not [package.split()[0] for package in packages if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", package)]


def test_neither_lock_nor_project_names_a_registry() -> None:
    for name in ("requirements.lock", "pyproject.toml", "Makefile", ".ci/run"):
        found = re.findall(r"\w+://\S+|(?<!emit-)index-url|find-links|trusted-host", (ROOT / name).read_text())
        assert not found, f"{name}: {found}"


def test_the_wheel_has_the_code_and_the_settings_and_no_tests(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("rayscope-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"configs/default.yaml", "cluster/cli/main.py", "actors/__init__.py"} <= set(names)
    assert not [name for name in names if name.split("/")[0] not in {"actors", "cluster", "configs"} and ".dist-info/" not in name]


# Strictness


def test_types_lint_and_warnings_are_strict() -> None:
    tool = PROJECT["tool"]
    assert tool["mypy"]["strict"] is True
    assert set(tool["mypy"]["packages"]) == {"actors", "cluster", "configs", "tests"}
    assert {"E", "F", "B", "D1", "S", "ARG", "RUF"} <= set(tool["ruff"]["lint"]["select"])
    assert tool["pytest"]["ini_options"]["filterwarnings"][0] == "error"
    assert "--strict-markers" in tool["pytest"]["ini_options"]["addopts"]


def test_layers_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_configs_reads_the_environment_into_settings() -> None:
    readers = [path.relative_to(ROOT) for path in sources("cluster/core") if re.search(r"\b(environ|getenv)\b", path.read_text())]
    assert not readers


def test_no_file_is_longer_than_a_person_reads() -> None:
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources("actors", "cluster", "configs")}
    assert not {name: lines for name, lines in long.items() if lines > LINES_LIMIT}


def test_a_package_says_what_it_is_for_and_holds_nothing_else() -> None:
    for path in sources("actors", "cluster", "configs"):
        if path.name == "__init__.py":
            body = ast.parse(path.read_text()).body
            assert len(body) == 1, path
            assert isinstance(body[0], ast.Expr), path


def test_the_tree_of_errors_is_the_one_drawn() -> None:
    drawn = set(re.findall(r"^[│├└─ ]*([A-Z]\w+)", (errors.__doc__ or "").split("RayscopeError", 1)[1], re.MULTILINE)) - {"A"}
    there = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.RayscopeError)}
    assert drawn | {"RayscopeError"} == there


# Words that point somewhere


def spoken() -> str:
    """All that a person is told: README, messages and comments of the code, settings."""
    files = [ROOT / "README.md", ROOT / "Makefile", *(ROOT / "configs").glob("*.yaml"), *sources("actors", "cluster", "configs")]
    return "\n".join(path.read_text() for path in files)


def test_every_command_that_is_spoken_of_exists() -> None:
    named = set(re.findall(r"(?:`|sudo )rayscope (?:--\S+ )*([a-z]\w*)", spoken()))
    assert named - set(COMMANDS) == set()


def test_every_make_target_that_is_spoken_of_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    phony = set(re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)[1].split())  # type: ignore[index]
    assert targets == phony
    assert set(re.findall(r"`make ([a-z-]+)", spoken())) <= targets


# make


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What `make install` reads, in a directory whose name has spaces, without a virtual environment."""
    place = tmp_path / "a check out"
    place.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "README.md"):
        shutil.copy(ROOT / name, place)
    return place


def make(place: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """make, as a person calls it, with a package index that has nothing."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PIP_", "PYTHON"))}
    command = ["make", "-C", str(place), "--no-print-directory", *arguments]
    return subprocess.run(command, env=clean | {"PIP_NO_INDEX": "1"} | environ, capture_output=True, text=True, timeout=120)


def interpreter(place: Path, script: str) -> str:
    path = place / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return "./python"


def test_make_names_an_absent_python(checkout: Path) -> None:
    done = make(checkout, "install", "PYTHON=python3.absent")
    assert done.returncode != 0
    assert "there is no python3.absent; install it: apt-get install python3 python3-venv" in done.stderr


def test_make_names_a_python_that_is_too_old(checkout: Path) -> None:
    old = interpreter(checkout, 'if [ "$1" = --version ]; then echo Python 3.9.2; else exit 1; fi')
    done = make(checkout, "install", f"PYTHON={old}")
    assert "Python 3.9.2 is too old, 3.11 or newer is needed" in done.stderr
    assert not (checkout / ".venv").exists()


def test_make_names_a_python_without_venv(checkout: Path) -> None:
    (checkout / "hidden").mkdir()
    (checkout / "hidden/ensurepip.py").write_text("raise ImportError('Debian has it in python3-venv')")
    bare = interpreter(checkout, f'PYTHONPATH=hidden exec "{sys.executable}" "$@"')
    done = make(checkout, "install", f"PYTHON={bare}")
    assert "cannot make a virtual environment; install what is missing: apt-get install python3-venv" in done.stderr


def test_make_begins_anew_after_a_cut_set_up_and_names_an_index_that_is_out_of_reach(checkout: Path) -> None:
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/left").touch()
    done = make(checkout, "install", f"PYTHON={sys.executable}")
    assert done.returncode != 0
    assert "is the package index reachable from here?" in done.stderr
    assert "making the virtual environment .venv" in done.stderr
    assert not (checkout / ".venv/left").exists()
    assert not (checkout / ".venv/.installed").exists()


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
def test_make_run_passes_args_and_leaves_stdout_to_data() -> None:
    done = make(ROOT, "run", "ARGS=--set collector.interval=2 config --json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["collector.interval"]["value"] == 2.0
    assert done.stderr == "make: rayscope --set collector.interval=2 config --json\n"


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
def test_a_set_up_that_is_there_is_said() -> None:
    done = make(ROOT, "install")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "make: .venv holds what requirements.lock names\n"
