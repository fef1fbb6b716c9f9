"""Four sources, later wins; whatever is wrong is named with its source, its key and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.core.errors import SettingsError
from configs.describe import known
from configs.load import Given, load, parse_override
from configs.settings import Settings


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing of this machine's own settings is seen."""
    return {"XDG_CONFIG_HOME": str(tmp_path / "config"), "HOME": str(tmp_path)}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def problem(environ: dict[str, str], file: Path | None = None, *flags: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(environ, file, [parse_override(flag) for flag in flags])
    return str(caught.value)


def test_without_anything_the_defaults_hold(environ: dict[str, str]) -> None:
    loaded = load(environ)
    assert loaded.settings == Settings()
    assert loaded.origins == dict.fromkeys(known(), "default")


def test_later_sources_win_and_each_value_keeps_its_origin(environ: dict[str, str], tmp_path: Path) -> None:
    file = write(tmp_path / "my.yaml", "collector:\n  interval: 2\n  rows_limit: 3\n  absent_after: 4\n")
    environ |= {"RAYSCOPE_COLLECTOR__ROWS_LIMIT": "30", "RAYSCOPE_COLLECTOR__ABSENT_AFTER": "40"}
    loaded = load(environ, file, [parse_override("collector.absent_after=400")])
    collector = loaded.settings.collector
    assert (collector.interval, collector.rows_limit, collector.absent_after, collector.metadata_interval) == (2.0, 30, 400.0, 10.0)
    assert loaded.origins["collector.interval"] == f"{file}:2"
    assert loaded.origins["collector.rows_limit"] == "RAYSCOPE_COLLECTOR__ROWS_LIMIT"
    assert loaded.origins["collector.absent_after"] == "--set collector.absent_after"
    assert loaded.origins["collector.metadata_interval"] == "default"


def test_the_users_own_file_is_found(environ: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "config/rayscope/config.yaml", "node:\n  name: here\n")
    assert load(environ).settings.node.name == "here"


def test_a_named_file_takes_the_place_of_the_one_that_would_be_found(environ: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "config/rayscope/config.yaml", "node:\n  name: here\n")
    file = write(tmp_path / "other.yaml", "collector:\n  interval: 5\n")
    assert load(environ, file).settings.node.name is None


def test_flags_of_commands_name_themselves(environ: dict[str, str]) -> None:
    assert load(environ, None, [Given("tracer.socket", "/x.sock", "--socket")]).origins["tracer.socket"] == "--socket"
    with pytest.raises(SettingsError, match=r"--interval: collector\.interval: 'soon' is not allowed"):
        load(environ, None, [Given("collector.interval", "soon", "--interval")])


@pytest.mark.parametrize("text", ["", "null", " null "])
def test_text_can_say_null(environ: dict[str, str], text: str) -> None:
    assert load(environ | {"RAYSCOPE_COLLECTOR__DOCKER_SOCKET": text}).settings.collector.docker_socket is None
    assert load(environ, None, [parse_override(f"collector.docker_socket={text}")]).settings.collector.docker_socket is None


def test_null_is_refused_where_it_means_nothing(environ: dict[str, str]) -> None:
    environ["RAYSCOPE_COLLECTOR__INTERVAL"] = ""
    assert "RAYSCOPE_COLLECTOR__INTERVAL: collector.interval: '' is not allowed" in problem(environ)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("off", False), ("1", True)])
def test_text_can_say_yes_and_no(environ: dict[str, str], text: str, value: bool) -> None:
    assert load(environ | {"RAYSCOPE_TRACER__START": text}).settings.tracer.start is value


def test_an_empty_file_and_empty_sections_set_nothing(environ: dict[str, str], tmp_path: Path) -> None:
    for text in ("", "# only a comment\n", "---\n", "collector:\ntracer:\n", "collector: {}\n"):
        assert load(environ, write(tmp_path / "empty.yaml", text)).settings == Settings()
    assert load(environ, Path("/dev/null")).settings == Settings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("collector:\n  intervall: 2\n", ":2: there is no setting 'collector.intervall'; did you mean collector.interval?"),
        ("colector:\n  interval: 2\n", ":2: there is no setting 'colector'; did you mean collector?"),
        ("collector.interval: 2\n", ":1: there is no setting 'collector.interval'; write it as `collector:` with `interval:` below it"),
        ("colector: {}\n", ":1: there is no setting 'colector'; did you mean collector?"),
        ("colector:\n", ":1: there is no setting 'colector'; did you mean collector?"),
        ("zebra:\n  x: 2\n", ":2: there is no setting 'zebra'; `rayscope config --defaults` lists all"),
        ("collector:\n\n  interval: fast\n", ":3: collector.interval: 'fast' is not allowed. Allowed: a number from 0.01 to 86,400."),
        ("collector:\n  interval: -1\n", ":2: collector.interval: -1 is not allowed"),
        ("collector:\n  interval: .nan\n", ":2: collector.interval: nan is not allowed"),
        ("collector:\n  interval: .inf\n", ":2: collector.interval: inf is not allowed"),
        ("collector:\n  interval: true\n", ":2: collector.interval: True is not allowed"),
        ("collector:\n  interval: [1]\n", ":2: collector.interval: [1] is not allowed"),
        ("collector:\n  interval: {a: 1}\n", ":2: collector.interval: {'a': 1} is not allowed"),
        ("collector:\n  interval: 2001-01-01\n", ":2: collector.interval: datetime.date(2001, 1, 1) is not allowed"),
        ("collector:\n  interval: 2001-13-01\n", ":2: collector.interval: '2001-13-01' is not allowed"),
        (f"collector:\n  rows_limit: {'9' * 5000}\n", ":2: collector.rows_limit: '9999"),
        ("collector:\n  rows_limit: 1.5\n", ":2: collector.rows_limit: 1.5 is not allowed. Allowed: a whole number above 0."),
        ("collector: 5\n", ":1: collector: settings were expected below it, such as `interval:`"),
        ("collector: [1]\n", ":1: collector: settings were expected below it"),
        ("ray:\n  namespace: 5\n", ":2: ray.namespace: 5 is not allowed; put it in quotes"),
        ("ray:\n  namespace: on\n", ":2: ray.namespace: True is not allowed; put it in quotes"),
        ("node:\n  name: 'a b'\n", "Allowed: at most 63 letters, digits"),
        ("tracer:\n  protocol: smoke\n", "Allowed: auto or http or document."),
    ],
)
def test_a_wrong_file_names_its_line_its_key_and_what_is_allowed(environ: dict[str, str], tmp_path: Path, text: str, said: str) -> None:
    file = write(tmp_path / "wrong.yaml", text)
    message = problem(environ, file)
    assert message.startswith(f"{file}:")
    assert said in message
    assert len(message) < 600


def test_wrong_values_are_named_even_where_a_later_source_hides_them(environ: dict[str, str], tmp_path: Path) -> None:
    file = write(tmp_path / "wrong.yaml", "collector:\n  interval: fast\n")
    assert f"{file}:2" in problem(environ, file, "collector.interval=2")


def test_every_problem_is_named_at_once_but_not_without_end(environ: dict[str, str], tmp_path: Path) -> None:
    two = write(tmp_path / "two.yaml", "collector:\n  interval: fast\n  rows_limit: many\n")
    assert len(problem(environ, two).splitlines()) == 2
    many = write(tmp_path / "many.yaml", "".join(f"s{number}: 1\n" for number in range(500)))
    assert problem(environ, many).splitlines()[-1] == "and 490 more"


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("RAYSCOPE_COLLECTOR__INTERVALL", "did you mean RAYSCOPE_COLLECTOR__INTERVAL?"),
        ("RAYSCOPE_COLLECTOR_INTERVAL", "did you mean RAYSCOPE_COLLECTOR__INTERVAL?"),
        ("RAYSCOPE_", "there is no setting"),
        ("RAYSCOPE_collector__interval", "there is no setting"),
    ],
)
def test_an_unknown_variable_is_refused_by_name(environ: dict[str, str], variable: str, said: str) -> None:
    message = problem(environ | {variable: "2"})
    assert message.startswith(f"{variable}: ")
    assert said in message


def test_the_variables_that_kubernetes_adds_for_a_service_are_passed_over(environ: dict[str, str]) -> None:
    names = ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR", "HEAD_SVC_PORT_6379_TCP_PROTO"]
    assert load(environ | {f"RAYSCOPE_{name}": "tcp://192.0.2.1:80" for name in names}).settings == Settings()


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("collector.interval", "KEY=VALUE was expected"),
        ("=", "there is no setting ''"),
        ("collector.intervall=2", "did you mean collector.interval?"),
        ("collector=2", "there is no setting 'collector'"),
        ("collector.interval=never", "--set collector.interval: collector.interval: 'never' is not allowed"),
    ],
)
def test_a_wrong_flag_is_named(environ: dict[str, str], flag: str, said: str) -> None:
    message = problem(environ, None, flag)
    assert message.startswith("--set ")
    assert said in message


def test_a_message_shows_no_control_characters_and_no_endless_values(environ: dict[str, str]) -> None:
    message = problem(environ | {"RAYSCOPE_NODE__NAME": "\x1b[31m" + "x" * 10_000})
    assert "\x1b" not in message
    assert len(message) < 600
