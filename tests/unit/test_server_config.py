"""Where settings come from, and that what is printed can be read again."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from aqaa.models.errors import ConfigError
from aqaa.server.config import Settings, as_toml, load_settings


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
    assert settings.compute == load_settings().compute


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


def test_what_is_not_set_is_named_all_the_same() -> None:
    printed = as_toml(load_settings())
    assert "# store is not set" in printed
    assert set(Settings.model_fields) <= set(re.findall(r"\w+", printed))


def test_no_secret_is_ever_printed() -> None:
    remote = {"url": "http://me:hunter2@gpu:8000", "api_key": "swordfish"}
    printed = as_toml(load_settings(api_keys=["mellon"], engine={"vllm_http": remote}))
    for secret in ("mellon", "swordfish", "hunter2"):
        assert secret not in printed
    assert tomllib.loads(printed)["api_keys"] == ["**********"]


@pytest.mark.parametrize(
    "url",
    ["redis://:hunter2@tail@redis:6379", "redis://me:hunter2@redis", "redis://r?password=hunter2"],
)
def test_no_password_of_a_url_is_printed_however_it_is_given(url: str) -> None:
    printed = as_toml(load_settings(store=url))
    assert "hunter2" not in printed
    assert "tail" not in printed


def test_brackets_around_an_address_are_none_of_it() -> None:
    assert load_settings(host="[::1]").host == "::1"


@pytest.mark.parametrize("name", ["AQAA_PORT", "AQAA_HOST", "AQAA_API_KEYS", "AQAA_LOG_LEVEL"])
def test_an_empty_variable_means_the_default(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    default = load_settings().model_dump()
    monkeypatch.setenv(name, "")
    assert load_settings().model_dump() == default


@pytest.mark.parametrize("blank", ["", " "])
def test_an_empty_host_is_not_every_address(tmp_path: Path, blank: str) -> None:
    with pytest.raises(ConfigError, match=r"host.*0\.0\.0\.0"):
        load_settings(written(tmp_path, f'host = "{blank}"'))


def test_blanks_around_commas_are_not_part_of_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQAA_API_KEYS", "first, second ,")
    monkeypatch.setenv("AQAA_ALLOWED_ORIGINS", " https://a.example , https://b.example")
    settings = load_settings()
    assert [key.get_secret_value() for key in settings.api_keys] == ["first", "second"]
    assert settings.allowed_origins == ("https://a.example", "https://b.example")


def test_a_list_in_the_environment_may_be_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQAA_API_KEYS", '["first", "sec,ond"]')
    keys = load_settings().api_keys
    assert [key.get_secret_value() for key in keys] == ["first", "sec,ond"]
    monkeypatch.setenv("AQAA_API_KEYS", '["first"')
    with pytest.raises(ConfigError, match="api_keys"):
        load_settings()


def test_commas_alone_are_no_list_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose's "${FIRST:-},${SECOND:-}" left a server open to everybody."""
    monkeypatch.setenv("AQAA_API_KEYS", ",")
    with pytest.raises(ConfigError, match=r"api_keys: .*between the commas"):
        load_settings()


def test_a_log_level_may_be_written_in_capitals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQAA_LOG_LEVEL", "WARNING")
    assert load_settings().log_level == "warning"


@pytest.mark.parametrize("text", ['api_keys = [""]', 'api_keys = ["good", " "]'])
def test_a_key_that_everybody_would_guess_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="a key is empty"):
        load_settings(written(tmp_path, text))


def test_blanks_around_a_key_in_a_list_are_none_of_it(tmp_path: Path) -> None:
    """A secret that was made by `echo` ends with a line."""
    settings = load_settings(written(tmp_path, 'api_keys = [" first", "second\\n"]'))
    assert [key.get_secret_value() for key in settings.api_keys] == ["first", "second"]


@pytest.mark.parametrize(
    ("origin", "sent"),
    [
        ("https://App.Example/", "https://app.example"),
        ("HTTPS://app.example:443", "https://app.example"),
        ("http://[::1]:5173/", "http://[::1]:5173"),
        ("http://localhost:80", "http://localhost"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("null", "null"),
        ("*", "*"),
    ],
)
def test_an_origin_is_what_browsers_send_of_it(origin: str, sent: str) -> None:
    assert load_settings(allowed_origins=[origin]).allowed_origins == (sent,)


@pytest.mark.parametrize(
    "origin", ["app.example", "https://", "https://*.example", "https://a.example/page", "http://["]
)
def test_an_origin_that_no_page_has_is_refused(origin: str) -> None:
    with pytest.raises(ConfigError, match="allowed_origins"):
        load_settings(allowed_origins=[origin])


@pytest.mark.parametrize(
    ("given", "prefix"), [("/talk/", "/talk"), ("/", ""), ("/a/b/", "/a/b"), ("talk", "/talk")]
)
def test_a_path_prefix_has_one_slash_before_it_and_none_behind(given: str, prefix: str) -> None:
    assert load_settings(root_path=given).root_path == prefix


@pytest.mark.parametrize("name", ["session_seconds", "max_turn_seconds", "drain_seconds"])
@pytest.mark.parametrize("value", ["inf", "nan"])
def test_a_time_that_is_no_number_is_refused_and_not_met_by_the_first_caller(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"AQAA_{name.upper()}", value)
    with pytest.raises(ConfigError, match=name):
        load_settings()


def test_what_kubernetes_sets_for_a_service_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQAA_PORT", "tcp://10.0.0.7:8000")
    with pytest.raises(ConfigError, match="Kubernetes"):
        load_settings()


def test_a_section_set_by_a_plain_value_is_one_helpful_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AQAA_ENGINE", "vllm")
    with pytest.raises(ConfigError, match=r"^[^\n]*AQAA_ENGINE__ENGINE=vllm[^\n]*$"):
        load_settings()


def test_so_it_is_whatever_the_section_and_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQAA_COMPUTE", "4")
    with pytest.raises(ConfigError, match=r"compute: .*AQAA_COMPUTE__NAME="):
        load_settings()


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
