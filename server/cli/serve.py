"""`aqaa serve`: where the settings come from; the rest is `gateway.server`."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from aqaa.models.errors import ConfigError

SettingsFile = Annotated[Path | None, typer.Option(help="Settings in TOML; see --print-config.")]


def serve(
    model: Annotated[Path | None, typer.Argument(help="The bundle's directory [nano].")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one [8000].")] = None,
    config: SettingsFile = None,
    api_key: Annotated[
        list[str] | None, typer.Option(help="A key that clients must show; may be repeated.")
    ] = None,
    root_path: Annotated[
        str | None, typer.Option(help="Path prefix that a proxy puts before the server's paths.")
    ] = None,
    max_sessions: Annotated[int | None, typer.Option(help="Conversations at once [8].")] = None,
    engine: Annotated[
        str | None, typer.Option(help="auto, embedded, vllm or vllm-http [auto].")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error [info].")
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Show the settings as TOML and stop.")
    ] = False,
) -> None:
    """Serve spoken conversations: the page at /, OpenAI Realtime and REST beneath /v1.

    Settings come from flags, then AQAA_* variables, then the file, then the defaults.
    """
    from aqaa.server.config import as_toml, load_settings

    settings = load_settings(
        config,
        model=model,
        host=host,
        port=port,
        api_keys=tuple(api_key) if api_key else None,
        root_path=root_path,
        max_sessions=max_sessions,
        engine={"engine": engine} if engine else None,
        log_level=log_level,
    )
    if print_config:
        typer.echo(as_toml(settings), nl=False)
        return
    _check_temporary_folder()
    from aqaa.server.gateway.server import run
    from aqaa.server.observe.logs import set_up

    set_up(settings.log_level, settings.log_format)
    asyncio.run(run(settings, announce=typer.echo))


def _check_temporary_folder() -> None:
    """torch needs one to be imported.

    Raises:
        ConfigError: there is none.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise ConfigError(
            "no folder for temporary files can be written to: mount one at /tmp, or name one in "
            "TMPDIR"
        ) from None
