"""The `aqaa` command: mounts the sub-commands that pyproject.toml names and makes errors one line.

Every command imports what it needs when it runs, so that `aqaa --help` and `aqaa ask` stay quick.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import distribution, version

import typer

from aqaa.models.errors import AqaaError

app = typer.Typer(
    name="aqaa",
    help="A low-latency streaming voice-assistant server for Step-Audio-AQAA.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _root(
    show_version: bool = typer.Option(False, "--version", help="Print the version and stop."),
) -> None:
    if show_version:
        typer.echo(version("aqaa"))
        raise typer.Exit


def _mount() -> None:
    """Add every command that the installed distribution names, in its order."""
    for entry in distribution("aqaa").entry_points.select(group="aqaa.commands"):
        app.command(entry.name)(entry.load())


def main() -> None:
    """Run the command line; a mistake of the user's is one line on stderr and exit code 2."""
    # onnxruntime (1.32) reports its use to its makers, from a database in ~/.cache, if not told.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    _mount()
    try:
        app()
    except AqaaError as error:
        typer.secho(f"aqaa: {error}", fg=typer.colors.RED, err=True)
        sys.exit(2)
