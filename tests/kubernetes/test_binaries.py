"""How the control plane's binaries come to be there, what is said where they cannot, and that nothing outlives the tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.actors.waiting import ended, wait_for
from tests.kubernetes.binaries import BUILD, CONTROLLERS, SERVERS

ROOT = Path(__file__).parents[2]
TESTS = "tests/kubernetes/test_control_plane.py"
# A Go that is not here, or a build that would take minutes: what `build` calls, and what it does about the answer.
GO = """#!/bin/sh
case "$1" in
env) [ "$2" = GOVERSION ] && echo go{version} || echo /cache;;
build) echo "$*" >>"$(dirname "$0")/calls"; {build};;
esac
"""
WRITES = 'while [ "$1" != -o ]; do shift; done; echo "#!/bin/sh" >"$2"; chmod +x "$2"; echo some/package >&2'


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment whose cache is empty."""
    inherited = {name: value for name, value in os.environ.items() if name not in {"KUBEBUILDER_ASSETS", "RAYSCOPE_REQUIRE_KUBE", "GO"}}
    return inherited | {"XDG_CACHE_HOME": str(tmp_path / "cache")}


def go(folder: Path, version: str = "1.26.8", build: str = WRITES) -> str:
    path = folder / "go"
    path.write_text(GO.format(version=version, build=build))
    path.chmod(0o755)
    return str(path)


def run(environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BUILD, *words], env=environ, capture_output=True, text=True, timeout=60, check=False)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that says why not."""
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_go_that_is_not_there_is_named(environ: dict[str, str], tmp_path: Path) -> None:
    for words in ((), ("--able",)):
        why = refused(run(environ | {"GO": f"{tmp_path}/absent/go"}, *words))
        assert f"there is no {tmp_path}/absent/go: install Go 1.26" in why
        assert "KUBEBUILDER_ASSETS" in why


@pytest.mark.parametrize("version", ["1.27.0", "1.19.8", "1.260"])
def test_another_go_is_refused(environ: dict[str, str], tmp_path: Path, version: str) -> None:
    why = refused(run(environ | {"GO": go(tmp_path, version)}))
    assert f"is go{version}; Kubernetes v" in why
    assert "wants Go 1.26 (an API server built with Go 1.27 serves malformed OpenAPI)" in why
    assert not (tmp_path / "calls").exists()


def test_the_second_call_builds_nothing(environ: dict[str, str], tmp_path: Path) -> None:
    first = run(environ | {"GO": go(tmp_path)})
    assert first.returncode == 0, first.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split("/")[-1] for call in calls] == ["v3", "kube-apiserver", "kubectl", "kube-controller-manager"]
    assert all("component-base/version.gitVersion=v1." in call for call in calls)
    assert "4 GB in Go's module and build caches" in first.stderr

    second = run(environ | {"GO": "/absent"})
    assert (second.returncode, second.stdout, second.stderr) == (0, first.stdout, "")
    assert run(environ, "--check").stdout == first.stdout
    assert {path.name for path in Path(first.stdout.strip()).iterdir()} == {".built", ".lock", *SERVERS, *CONTROLLERS}


def test_binaries_of_another_go_sum_are_built_again(environ: dict[str, str], tmp_path: Path) -> None:
    folder = Path(run(environ | {"GO": go(tmp_path)}).stdout.strip())
    (folder / ".built").write_text("1 4711 1\n")
    assert "are of another go.mod or go.sum: make kube-binaries" in refused(run(environ, "--check"))
    run(environ | {"GO": go(tmp_path)})
    assert len((tmp_path / "calls").read_text().splitlines()) == 8


def test_a_build_that_fails_says_what_go_said_and_leaves_no_stamp(environ: dict[str, str], tmp_path: Path) -> None:
    done = run(environ | {"GO": go(tmp_path, build="echo no required module >&2; exit 1")})
    assert done.returncode == 1
    assert "no required module" in done.stderr
    assert "etcd could not be built; are the Go modules reachable from here" in done.stderr
    assert "make kube-binaries" in refused(run(environ, "--check"))


def test_a_folder_of_ones_own_is_taken_and_what_it_lacks_is_named(environ: dict[str, str], tmp_path: Path) -> None:
    own = environ | {"KUBEBUILDER_ASSETS": os.path.relpath(tmp_path), "GO": "/absent"}
    for name in SERVERS:
        go(tmp_path)
        (tmp_path / "go").rename(tmp_path / name)
    assert run(own, "--check", *SERVERS).stdout == f"{tmp_path}\n"
    assert refused(run(own)) == f"kube-binaries: KUBEBUILDER_ASSETS={tmp_path} has no kube-controller-manager\n"
    (tmp_path / "kubectl").chmod(0o644)
    assert "has no kubectl" in refused(run(own, "--check", *SERVERS))


def inner(environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", TESTS, "-p", "no:cacheprovider", *words]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False)


def test_without_binaries_one_line_says_how_to_get_them(environ: dict[str, str]) -> None:
    done = inner(environ)
    assert done.returncode == 0, done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert "make kube-binaries, or set KUBEBUILDER_ASSETS" in line
    assert "passed" not in done.stdout


def test_where_they_are_required_the_skip_is_a_failure(environ: dict[str, str]) -> None:
    done = inner(environ | {"RAYSCOPE_REQUIRE_KUBE": "1"}, "-k", "pins or namespace")
    assert done.returncode == 1, done.stdout
    assert "RAYSCOPE_REQUIRE_KUBE=1, but no etcd kube-apiserver kubectl of Kubernetes v" in done.stdout
    assert "skipped" not in done.stdout


STARTS = """
import sys, threading, time
from pathlib import Path
from tests.kubernetes.processes import Process
process = Process("sleep", ["sleep", "600"], Path(sys.argv[1]))
thread = threading.Thread(target=process.start)
thread.start()
thread.join()
print(process.pid, flush=True)
time.sleep(600)
"""


def test_a_server_outlives_the_thread_that_started_it_and_not_killed_tests(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", STARTS, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        pid = int(tests.stdout.readline())
        wait_for(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", seconds=10)
        tests.send_signal(signal.SIGKILL)
    wait_for(lambda: ended(pid), seconds=10)
