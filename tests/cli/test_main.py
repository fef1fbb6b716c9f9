"""The command as a whole: names, help, exit codes, errors for people."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner, Result

from cluster.cli import main as module
from cluster.cli.main import COMMANDS, Lazy, main
from cluster.core.errors import RayscopeError, SettingsError, StoreBusy


class Failing(Lazy):
    """The real group, in which every subcommand ends with `error`."""

    error: BaseException = RayscopeError()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:  # noqa: ARG002
        @click.command()
        def fail() -> None:
            raise self.error

        return fail


def run_failing(error: BaseException, *arguments: str) -> Result:
    group = Failing("rayscope", params=main.params, callback=main.callback)
    group.error = error
    return CliRunner().invoke(group, [*arguments, "config"])


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (StoreBusy("x.db: open in pid 5"), 1, "rayscope: x.db: open in pid 5\n"),
        (RayscopeError("one\ntwo"), 1, "rayscope: one\nrayscope: two\n"),
        (RayscopeError("bad \x1b[31m name"), 1, "rayscope: bad \\x1b[31m name\n"),
        (SettingsError("wrong"), 2, "rayscope: wrong\n"),
        (KeyboardInterrupt(), 130, "\n"),
    ],
)
def test_what_is_refused_is_a_message_and_an_exit_code(error: BaseException, code: int, said: str) -> None:
    result = run_failing(error)
    assert (result.exit_code, result.stderr, result.stdout) == (code, said, "")


def test_debug_shows_the_error_itself() -> None:
    error = StoreBusy("x.db: open")
    assert run_failing(error, "--debug").exception is error


def test_a_fault_of_ours_is_not_hidden() -> None:
    error = ZeroDivisionError()
    assert run_failing(error).exception is error


@pytest.mark.parametrize("arguments", [["nothing"], ["--nothing"], ["config", "--nothing"], ["config", "extra"]])
def test_wrong_usage_says_where_help_is(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert " for help." in result.stderr


def test_a_mistyped_command_is_told_the_close_one() -> None:
    assert "there is no command 'confg'; did you mean config?" in run("confg").stderr
    assert f"there are: {', '.join(COMMANDS)}" in run("zzzzz").stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_explains_itself(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0, result.output
    assert f"Usage: main {name}" in result.stdout
    assert COMMANDS[name].endswith(".")


def test_help_lists_every_command() -> None:
    shown = run("--help").stdout
    assert all(f"  {name} " in shown for name in COMMANDS)


def test_commands_are_documented_in_their_own_words() -> None:
    assert module.__doc__
    assert len(set(COMMANDS.values())) == len(COMMANDS)


IMPORTS = """
import json, sys
from click.testing import CliRunner
from cluster.cli.main import COMMANDS, main
seen = {}
for arguments in json.loads(sys.argv[1]):
    assert CliRunner().invoke(main, arguments).exit_code == 0, arguments
    seen[" ".join(arguments)] = sorted({"ray", "numpy", "aiohttp", "grpc"} & set(sys.modules))
print(json.dumps(seen))
"""


def imported_by(*commands: list[str]) -> dict[str, list[str]]:
    """The heavy modules that each of these commands has imported, run one after the other in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", IMPORTS, json.dumps(commands)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seen: dict[str, list[str]] = json.loads(done.stdout)
    return seen


def test_help_imports_neither_ray_nor_numpy() -> None:
    light = imported_by(["--help"], ["--version"], ["config"], ["completion", "zsh"], ["tracer", "--help"], ["doctor", "--help"])
    assert not [command for command, modules in light.items() if modules]


def test_no_commands_help_imports_ray() -> None:
    seen = imported_by(*([name, "--help"] for name in COMMANDS))
    assert not [command for command, modules in seen.items() if "ray" in modules]


def test_a_closed_pipe_ends_it_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run([sys.executable, "-m", "cluster", "config"], stdout=pipe, stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk_is_a_message() -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run([sys.executable, "-m", "cluster", "config"], stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 1
    assert done.stderr == b"rayscope: [Errno 28] No space left on device (rayscope --debug shows where)\n"


def test_python_m_cluster_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "cluster", "--help"], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("Usage: rayscope [OPTIONS] COMMAND")


def test_a_settings_error_names_the_flag_and_exits_2() -> None:
    result = run("--set", "collector.interval=never", "config")
    assert result.exit_code == 2
    assert result.stderr.startswith("rayscope: --set collector.interval: collector.interval: 'never' is not allowed")


@pytest.mark.parametrize("module", ["click.globals", "click.core", "cluster.cli.options"])
def test_ctrl_c_while_python_imports_ends_without_a_traceback(module: str) -> None:
    """Python says on stderr what it has imported; the signal comes once it says this."""
    command = [sys.executable, "-X", "importtime", "-m", "cluster", "record", "/nowhere/file"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = next(line for line in process.stderr if line.rstrip().endswith(f" {module}"))
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 130, said + rest
        assert "Traceback" not in rest
