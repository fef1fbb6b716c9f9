"""Tables, JSON, durations and flags that set settings."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cluster.cli.options import DURATION, SettingsLoader, setting_option
from cluster.cli.output import print_json, print_table, printable


def test_a_table_is_aligned_and_numbers_stand_right(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME", "BYTES"), [("a", 1), ("longer", 1_234_567), ("none", None)])
    assert capsys.readouterr().out == "NAME        BYTES\na               1\nlonger  1,234,567\nnone      unknown\n"


def test_a_table_without_rows_is_its_heading(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME", "BYTES"), [])
    assert capsys.readouterr().out == "NAME  BYTES\n"


def test_names_from_outside_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME",), [("\x1b[2Jowned\n\x07\u202e",)])
    assert capsys.readouterr().out == "NAME\n\\x1b[2Jowned\\n\\x07\\u202e\n"
    assert printable("Grüße 世界") == "Grüße 世界"


def test_on_a_terminal_a_table_is_drawn_and_markup_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "80")
        print_table(("NAME", "BYTES"), [("[red]x[/red]", 5)])
        terminal.flush()
        drawn = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "\x1b[1m" in drawn
    assert "[red]x[/red]" in drawn


@pytest.mark.parametrize("value", [{"a": 1}, [{"a": 1}, {"b": None}], [], "x", None])
def test_json_is_one_document(capsys: pytest.CaptureFixture[str], value: object) -> None:
    print_json(value)
    assert json.loads(capsys.readouterr().out) == value


@pytest.mark.parametrize("elements", [[], [{"a": 1}], [{"a": 1}, {"a": "é\udc80"}]])
def test_an_iterator_becomes_an_array(capsys: pytest.CaptureFixture[str], elements: list[dict[str, object]]) -> None:
    print_json(iter(elements))
    assert json.loads(capsys.readouterr().out) == elements


@pytest.mark.parametrize(("text", "seconds"), [("30", 30), ("30s", 30), ("1.5m", 90), ("2h", 7200), ("250ms", 0.25), (" 1d ", 86_400)])
def test_durations(text: str, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-1s", "s", "1 week", "inf", "nan", "1e3", "9" * 30])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(click.UsageError, match="write it as 30s"):
        DURATION.convert(text, None, None)


def test_a_flag_sets_a_setting_and_wins_over_set(tmp_path: Path) -> None:
    @click.command()
    @setting_option("--interval", "collector.interval")
    @click.pass_obj
    def command(load: SettingsLoader) -> None:
        loaded = load()
        click.echo(f"{loaded.settings.collector.interval} {loaded.origins['collector.interval']}")

    def run(*arguments: str) -> str:
        loader = SettingsLoader(overrides=("collector.interval=3",))
        return CliRunner(env={"HOME": str(tmp_path), "XDG_CONFIG_HOME": None}).invoke(command, [*arguments], obj=loader).output

    assert run() == "3.0 --set collector.interval\n"
    assert run("--interval", "7") == "7.0 --interval\n"
    assert "Seconds between two polls of the tracer." in run("--help")


def test_what_a_library_prints_is_kept_out_of_the_data() -> None:
    printing = """
import os
from cluster.cli.output import data_alone
data = data_alone()
print("from a library", flush=True)
os.write(1, b"from below\\n")
data.write(b"data\\n")
"""
    done = subprocess.run([sys.executable, "-c", printing], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("data\n", "from a library\nfrom below\n")
