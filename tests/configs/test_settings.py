"""settings.py, default.yaml and the words about them agree."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from configs.describe import default_yaml, known, sections
from configs.settings import Settings

DEFAULTS = Path(__file__).parents[2] / "configs" / "default.yaml"


def test_default_yaml_is_what_settings_py_says() -> None:
    assert DEFAULTS.read_text() == default_yaml(), "write it anew: rayscope config --defaults > configs/default.yaml"


def test_default_yaml_parses_to_the_defaults() -> None:
    assert Settings.model_validate(yaml.safe_load(DEFAULTS.read_text())) == Settings()
    assert list(yaml.safe_load(DEFAULTS.read_text())) == list(sections())


@pytest.mark.parametrize("key", known())
def test_every_setting_has_a_sentence_and_says_what_is_allowed(key: str) -> None:
    entry = known()[key]
    assert entry.description.endswith(".")
    assert entry.allowed
    assert ("null" in entry.description) == entry.nullable, "a sentence says what null means exactly where null is allowed"


@pytest.mark.parametrize("section", sections())
def test_every_section_has_a_sentence(section: str) -> None:
    assert sections()[section].endswith(".")


def test_what_is_allowed_is_in_words() -> None:
    assert known()["collector.interval"].allowed == "a number from 0.01 to 86,400"
    assert known()["tracer.protocol"].allowed == "auto or http or document"
    assert known()["tracer.socket"].allowed == "text from 1 to 107 characters, or null"
    assert known()["ray.dashboard_port"].allowed == "a whole number from 0 to 65,535"
