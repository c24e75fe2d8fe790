"""Every setting of the server, in one frozen model.

Read once, at the start: flags over environment (`AQAA_HOST`, `AQAA_ENGINE__ENGINE`, ...) over a
TOML file over the defaults. `aqaa serve --print-config` shows the result.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from aqaa.models.bundle import nano_path
from aqaa.models.errors import ConfigError
from aqaa.server.compute.settings import ComputeSettings
from aqaa.server.engine.settings import EngineSettings
from aqaa.server.observe.logs import LogFormat

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]

SECRET_NAMES = re.compile(r"(^|_)(key|keys|token|secret|password)$")  # settings shown as stars
STARS = "**********"


class Settings(BaseSettings):
    """What an operator may choose; every default has its reason."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="AQAA_",
        env_nested_delimiter="__",
        env_ignore_empty=True,  # docker compose's ${NAME:-} sets empty variables
    )

    model: Path = Field(default_factory=nano_path, description="the bundle's directory")
    host: str = Field(default="127.0.0.1", description="loopback: open to others on purpose only")
    port: int = Field(default=8000, ge=0, le=65535, description="0: any free one")
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    log_format: LogFormat = Field(default="text", description="json: one object a line")

    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(), description="none: whoever reaches the port may talk; commas between several"
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="web origins that may connect beside the server's own; '*' allows any",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="addresses or networks whose X-Forwarded-* headers are believed"
    )
    root_path: str = Field(
        default="", pattern="^(/[^/?#]+)*$", description="the path prefix behind a proxy: /aqaa"
    )
    max_sessions: Positive = Field(
        default=8,
        description="conversations at once, fewer where the machine serves fewer well; the next "
        "one is refused",
    )
    min_sessions: Positive = Field(
        default=2,
        description="conversations that always find a place, however badly they would be served; "
        "more where others keep the machine busy now and will not later; as many as max_sessions: "
        "nothing is measured",
    )
    max_sessions_per_key: Positive | None = Field(default=None, description="None: no such bound")
    max_rest_requests: Positive = Field(
        default=4, description="REST answers in the making at once; the next one gets 503"
    )
    max_rest_requests_per_key: Positive | None = Field(
        default=None, description="None: no such bound"
    )
    store: str | None = Field(
        default=None,
        pattern="^(rediss?|unix)://",
        description="redis://... of a Redis or Valkey that several gateways share: remembered chat"
        " audio, places of a key; none: this process's memory",
    )
    max_connections: Positive = Field(
        default=1000, description="of all kinds, open at once; the next one is closed"
    )
    max_message_bytes: Positive = Field(
        default=16 * 1024 * 1024, description="of one WebSocket message: 12 MiB of sound in base64"
    )
    max_upload_bytes: Positive = Field(default=32 * 1024 * 1024, description="of one REST body")
    session_seconds: Seconds = Field(default=3600, description="OpenAI's bound of an hour")
    max_turn_seconds: Seconds = Field(
        default=60,
        description="of one turn or recording; less where the context has no room for 41.7 "
        "tokens a second",
    )
    send_buffer_bytes: Positive = Field(
        default=8 * 1024 * 1024,
        description="unsent events of one session (about 2 min of sound): then it is closed",
    )
    handshake_seconds: Seconds = Field(
        default=10, description="for a request's headers to arrive, and for a body to begin"
    )
    min_upload_rate: Positive = Field(
        default=8000, description="bytes a second of a REST body: less than any phone's link"
    )
    send_stall_seconds: Seconds = Field(
        default=30, description="for which a REST client may read nothing, then it is dropped"
    )
    keep_alive_seconds: Positive = Field(
        default=75, description="of an idle REST connection; longer than load balancers keep one"
    )
    ping_seconds: Seconds = Field(
        default=20, description="between pings: a peer that is gone is noticed after twice this"
    )
    ahead_seconds: Seconds = Field(
        default=4.0,
        description="sound made ahead of its playing, 0.6 s while another answer has none; "
        "more would take computing from others",
    )
    drain_seconds: Seconds = Field(
        default=20, description="for running answers to end after SIGTERM; Kubernetes kills at 30"
    )
    speculation: bool = Field(default=True, description="start answering at a short pause")
    compute: ComputeSettings = ComputeSettings()
    engine: EngineSettings = EngineSettings()

    @field_validator("api_keys", "allowed_origins", "trusted_proxies", mode="before")
    @classmethod
    def _commas(cls, value: object) -> object:
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = json.loads(value)  # as other sections are written in the environment
        if isinstance(value, str):
            parts = [part.strip() for part in value.split(",") if part.strip()]
            if value.strip() and not parts:
                raise ValueError("nothing stands between the commas")
            return parts
        if isinstance(value, list | tuple):
            return [part.strip() if isinstance(part, str) else part for part in value]
        return value

    @field_validator("api_keys")
    @classmethod
    def _not_guessed(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(not key.get_secret_value() for key in value):
            raise ValueError("a key is empty: everybody would know it. Give a key, or none at all")
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _as_browsers_write_them(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_origin(one) for one in value)

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_any_case(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("root_path", mode="before")
    @classmethod
    def _with_first_slash_only(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        path = value.strip().strip("/")
        return f"/{path}" if path else ""

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            ip_network(one, strict=False)
        return value

    @field_validator("host", mode="before")
    @classmethod
    def _not_empty(cls, value: object) -> object:
        if isinstance(value, str) and not value.strip():
            raise ValueError("an empty address would listen on all; say 0.0.0.0 if that is meant")
        if isinstance(value, str):
            return value.strip().removeprefix("[").removesuffix("]")  # [::1], as URLs have it
        return value


def _origin(text: str) -> str:
    """A web origin as browsers send it: no slash at its end, no capitals, no usual port."""
    if text in ("*", "null"):
        return text
    parts = urlsplit(text)
    port, usual = parts.port, {"http": 80, "https": 443}.get(parts.scheme)
    beyond = parts.path.strip("/") or parts.query or "*" in text
    if beyond or not parts.scheme or not parts.hostname:
        raise ValueError(f"{text!r} is no web origin: write https://host or http://host:port")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, usual) else "")


def load_settings(file: Path | None = None, **flags: object) -> Settings:
    """The settings, from `file` (TOML), the environment and flags; a flag of None says nothing.

    Raises:
        ConfigError: the file cannot be read, a key is unknown or has an impossible value, or the
            environment holds a variable that another program put there.
    """
    _check_environment()
    from_file: dict[str, Any] = {}
    if file is not None:
        try:
            from_file = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"cannot read the settings in {file}: {error}") from error
    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}

    class WithFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, from_file)

    try:
        return WithFile(**given)
    except SettingsError as error:  # a variable of a section that is not JSON
        name = re.search(r'field "(\w+)"', str(error))
        variable = f"AQAA_{name[1].upper()}" if name else "a variable AQAA_..."
        raise ConfigError(
            f"{variable} names a section: set one of its values, such as {variable}__ENGINE=vllm"
            if name and name[1] == "engine"
            else f"{variable} cannot be read: {error}"
        ) from error
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc']))}: {_words(e)}" for e in error.errors()]
        raise ConfigError("these settings are wrong:\n" + "\n".join(lines)) from error


def _words(fault: ErrorDetails) -> str:
    if fault["type"] != "model_type":
        return fault["msg"]
    section = "__".join(map(str, fault["loc"])).upper()
    return f"it is a section: set its values one by one, AQAA_{section}__NAME=..."


def _check_environment() -> None:
    """Name what Kubernetes sets for a service that is called `aqaa`.

    Raises:
        ConfigError: AQAA_PORT is such a variable.
    """
    port = os.environ.get("AQAA_PORT", "")
    if port.startswith(("tcp://", "udp://")):
        raise ConfigError(
            f"AQAA_PORT is {port!r}, which Kubernetes sets for a service named aqaa: give the pod "
            "`enableServiceLinks: false`, rename the service, or set AQAA_PORT to a number"
        )


def as_toml(settings: Settings) -> str:
    """The settings as a file that `load_settings` reads; keys and passwords are shown as stars."""
    return "\n".join(_lines(settings.model_dump(mode="json"), ())) + "\n"


def _hidden(name: str, value: object) -> object:
    """Stars for a secret; a URL without the password that it may hold."""
    if SECRET_NAMES.search(name) and value:
        return [STARS] * len(value) if isinstance(value, list) else STARS
    if isinstance(value, str):
        value = re.sub(r"(://[^/@\s:]*):[^/\s]*@", rf"\1:{STARS}@", value)
        return re.sub(r"([?&](?:password|token|key)=)[^&\s]*", rf"\1{STARS}", value)
    return value


def _lines(table: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    lines = [f"[{'.'.join(path)}]"] if path else []
    lines += [
        f"# {key} is not set" if value is None else f"{key} = {_value(_hidden(key, value))}"
        for key, value in table.items()
        if not isinstance(value, dict)
    ]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += ["", *_lines(value, (*path, key))]
    return lines


def _value(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_value(v)}" for k, v in value.items()) + "}"
    return json.dumps(value)  # TOML's strings, numbers and booleans are written like JSON's
