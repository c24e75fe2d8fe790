"""Where settings come from, and that what is printed can be read again."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from aqaa.models.errors import ConfigError
from aqaa.server.config import as_toml, load_settings


def written(directory: Path, text: str) -> Path:
    file = directory / "aqaa-server.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_flags_go_over_the_environment_over_the_file_over_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, 'port = 1\nhost = "file"\nmax_sessions = 3\n')
    monkeypatch.setenv("AQAA_PORT", "2")
    monkeypatch.setenv("AQAA_HOST", "environment")
    settings = load_settings(file, port=3)
    assert (settings.port, settings.host, settings.max_sessions) == (3, "environment", 3)
    assert settings.workers == load_settings().workers


def test_sections_are_reached_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQAA_ENGINE__ENGINE", "vllm-http")
    assert load_settings().engine.engine == "vllm-http"


def test_keys_are_separated_by_commas_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQAA_API_KEYS", "one,two")
    assert [key.get_secret_value() for key in load_settings().api_keys] == ["one", "two"]


def test_the_printed_settings_are_the_file_that_gives_them(tmp_path: Path) -> None:
    settings = load_settings(port=1234, allowed_origins=["https://a.example"])
    again = load_settings(written(tmp_path, as_toml(settings)))
    assert again.model_dump() == settings.model_dump()


def test_keys_are_never_printed() -> None:
    printed = as_toml(load_settings(api_keys=["secret"]))
    assert "secret" not in printed
    assert tomllib.loads(printed)["api_keys"] == ["**********"]


@pytest.mark.parametrize("text", ["prot = 1", "port = -1", "port = ", "[engine]\nname = 1"])
def test_a_wrong_setting_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"port|prot|engine|cannot read"):
        load_settings(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        load_settings(tmp_path / "nowhere.toml")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().port = 1  # type: ignore[misc]
