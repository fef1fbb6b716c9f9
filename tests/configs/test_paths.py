"""Where files are: the XDG rules, and a runtime directory that nobody else can write in."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

import pytest

from cluster.core.errors import SettingsError
from configs import paths
from configs.settings import Settings, StoreSettings, TracerSettings


def test_xdg_directories_are_used(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": "/s", "XDG_CONFIG_HOME": "/c", "XDG_RUNTIME_DIR": str(tmp_path)}
    assert paths.store_path(environ) == Path("/s/rayscope/rayscope.db")
    assert paths.config_files(environ) == [Path("/c/rayscope/config.yaml"), Path("/etc/rayscope/config.yaml")]
    assert paths.tracer_socket(environ) == tmp_path / "rayscope/tracer.sock"


def test_relative_xdg_directories_do_not_count() -> None:
    environ = {"HOME": "/home/me", "XDG_STATE_HOME": "state", "XDG_CONFIG_HOME": ""}
    assert paths.state_dir(environ) == Path("/home/me/.local/state/rayscope")
    assert paths.config_files(environ)[0] == Path("/home/me/.config/rayscope/config.yaml")


def test_without_home_the_password_database_says_where_it_is() -> None:
    assert paths.state_dir({}) == Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".local/state/rayscope"


@pytest.mark.parametrize("environ", [{}, {"XDG_RUNTIME_DIR": "/absent"}, {"XDG_RUNTIME_DIR": "relative"}])
def test_without_a_runtime_directory_there_is_a_place_of_our_own(environ: dict[str, str]) -> None:
    expected = Path("/run/rayscope") if os.geteuid() == 0 else Path(f"/tmp/rayscope-{os.geteuid()}")
    assert paths.runtime_place(environ) == expected


def test_settings_name_the_files_and_a_tilde_is_home() -> None:
    settings = Settings(store=StoreSettings(path="~/x.db"), tracer=TracerSettings(socket="/run/t.sock"))
    assert paths.store_path({"HOME": "/home/me"}, settings) == Path("/home/me/x.db")
    assert paths.tracer_socket({"HOME": "/home/me"}, settings) == Path("/run/t.sock")


def test_a_relative_path_is_from_where_the_command_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert paths.store_path({}, Settings(store=StoreSettings(path="x.db"))) == tmp_path / "x.db"


def test_the_runtime_directory_is_made_private_and_found_again(tmp_path: Path) -> None:
    made = paths.runtime_dir({"XDG_RUNTIME_DIR": str(tmp_path)})
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert paths.runtime_dir({"XDG_RUNTIME_DIR": str(tmp_path)}) == made


def test_a_directory_that_others_may_change_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(SettingsError, match="belongs to another user or is no directory"):
        paths.make_private(link)
    target.chmod(0o777)
    with pytest.raises(SettingsError, match="others may write in it; run: chmod 700"):
        paths.make_private(target)
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="cannot be made"):
        paths.make_private(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(SettingsError, match="belongs to another user"):
        paths.make_private(tmp_path)
