"""config and completion: what is in force, from where, and what a shell can complete."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cluster.cli.main import COMMANDS, main
from configs.describe import known


def run(tmp_path: Path, *arguments: str, **environ: str) -> Result:
    clean: dict[str, str | None] = {name: None for name in os.environ if name.startswith(("RAYSCOPE_", "XDG_"))}
    return CliRunner(env={**clean, "HOME": str(tmp_path), **environ}).invoke(main, [*arguments])


def rows(output: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split()[1:] for line in output.splitlines()}


def test_every_setting_is_shown_with_its_origin(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("collector:\n  interval: 5\n")
    result = run(tmp_path, "--config", str(file), "--set", "ray.dashboard=no", "config", RAYSCOPE_TRACER__TIMEOUT="3")
    shown = rows(result.output)
    assert list(shown) == ["SETTING", *known()]
    assert shown["collector.interval"] == ["5.0", f"{file}:2"]
    assert shown["tracer.timeout"] == ["3.0", "RAYSCOPE_TRACER__TIMEOUT"]
    assert shown["ray.dashboard"] == ["false", "--set", "ray.dashboard"]
    assert shown["collector.rows_limit"] == ["200000", "default"]
    assert shown["store.path"] == ["null", "=", f"{tmp_path}/.local/state/rayscope/rayscope.db", "default"]


def test_json_is_one_object_by_key(tmp_path: Path) -> None:
    report = json.loads(run(tmp_path, "--set", "store.path=/x.db", "config", "--json").output)
    assert list(report) == list(known())
    assert report["store.path"] == {"value": "/x.db", "origin": "--set store.path", "means": None}
    assert report["tracer.socket"]["means"].endswith("/tracer.sock")


def test_defaults_is_default_yaml(tmp_path: Path) -> None:
    packaged = Path(__file__).parents[2] / "configs" / "default.yaml"
    assert run(tmp_path, "config", "--defaults").output == packaged.read_text()


def test_defaults_read_back_as_settings(tmp_path: Path) -> None:
    file = tmp_path / "copy.yaml"
    file.write_text(run(tmp_path, "config", "--defaults").output)
    report = json.loads(run(tmp_path, "--config", str(file), "config", "--json").output)
    assert all(entry["origin"].startswith(f"{file}:") for entry in report.values())


def test_defaults_do_not_need_settings_that_are_right(tmp_path: Path) -> None:
    assert run(tmp_path, "--set", "no.such=1", "config", "--defaults").exit_code == 0
    assert run(tmp_path, "--set", "no.such=1", "config").exit_code == 2


def test_help_states_the_rule_for_variables(tmp_path: Path) -> None:
    assert "RAYSCOPE_COLLECTOR__INTERVAL=2 sets" in run(tmp_path, "config", "--help").output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(tmp_path: Path, shell: str) -> None:
    result = run(tmp_path, "completion", shell)
    assert result.exit_code == 0
    assert f"_RAYSCOPE_COMPLETE={shell}_complete" in result.output


def complete(words: str, tmp_path: Path) -> list[str]:
    """What click's bash script would be offered for these words, the last one being typed."""
    environ = os.environ | {"_RAYSCOPE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    command = [sys.executable, "-c", "from cluster.cli.main import main; main(prog_name='rayscope')"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_a_shell_completes_commands_options_and_settings(tmp_path: Path) -> None:
    assert complete("rayscope ", tmp_path) == list(COMMANDS)
    assert complete("rayscope co", tmp_path) == ["config", "completion"]
    assert "--json" in complete("rayscope config --", tmp_path)
    assert complete("rayscope completion b", tmp_path) == ["bash"]
    assert complete("rayscope --set collector.i", tmp_path) == ["collector.interval="]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
def test_bash_takes_the_script(tmp_path: Path) -> None:
    script = run(tmp_path, "completion", "bash").output
    done = subprocess.run(["bash", "-c", script + "\ncomplete -p rayscope"], capture_output=True, text=True, timeout=60)
    assert done.stdout.split()[-1] == "rayscope", done.stderr
