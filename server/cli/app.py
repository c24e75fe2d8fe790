"""The `aqaa` command: one place where sub-commands are mounted and errors become one line.

Every command imports what it needs when it runs, so that `aqaa --help` and `aqaa ask` stay quick.
"""

from __future__ import annotations

import sys
from importlib.metadata import version

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
    from aqaa.clients import cli as client
    from aqaa.server.cli import evaluate, inspect, plan, serve, tokens, vocode

    app.command()(serve.serve)
    app.command()(client.ask)
    app.command()(client.talk)
    app.command()(client.bench)
    app.command()(inspect.inspect)
    app.command()(plan.plan)
    app.command()(tokens.tokens)
    app.command()(vocode.vocode)
    app.command()(vocode.resynth)
    app.command("eval")(evaluate.evaluate)


def main() -> None:
    """Run the command line; a mistake of the user's is one line on stderr and exit code 2."""
    _mount()
    try:
        app()
    except AqaaError as error:
        typer.secho(f"aqaa: {error}", fg=typer.colors.RED, err=True)
        sys.exit(2)
