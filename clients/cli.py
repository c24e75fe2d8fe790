"""`aqaa ask`, `aqaa talk` and `aqaa bench`."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aqaa.clients.detection import TURN_DETECTION, TurnDetectionKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table

    from aqaa.clients import load_test
    from aqaa.clients.tools import MadeCall, Tools

DEFAULT_URL = "http://127.0.0.1:8000"

Url = Annotated[str, typer.Option(envvar="AQAA_URL", help="Where the server is.")]
Model = Annotated[str, typer.Option(help="The model's name.")]
ToolsOption = Annotated[
    str | None,
    typer.Option(
        "--tools",
        help="Functions that the model may call: `demo` (a timer and the clock), or a JSON file of "
        "what a session declares, whose calls are answered by {ok: true} or their `output`.",
    ),
]
Key = Annotated[str | None, typer.Option(envvar="AQAA_API_KEY", help="API key, if it wants one.")]


def ask(
    question: Annotated[Path, typer.Argument(help="A recorded question (wav, flac, mp3, ogg).")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to write the spoken answer.")
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Ask for text only, no sound.")] = False,
    voice: Annotated[str | None, typer.Option(help="The voice of the answer.")] = None,
    tools: ToolsOption = None,
    url: Url = DEFAULT_URL,
    model: Model = "nano",
    api_key: Key = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Speak a recorded question to a running server, in real time, and hear its answer."""
    from aqaa.clients.client import WIRE_RATE, connect
    from aqaa.clients.sound import write_sound
    from aqaa.clients.turn import SpokenAnswer, speak
    from aqaa.server.audio.files import read_audio
    from aqaa.server.protocol.types import Json

    wave = read_audio(question, WIRE_RATE)
    calls: list[MadeCall] = []
    offered = _tools(tools, calls.append)

    async def run() -> SpokenAnswer:
        async with connect(url, model=model, api_key=api_key) as server:
            audio: Json = {"input": {"turn_detection": {"type": TURN_DETECTION}}}
            settings: Json = {} if offered is None else {"tools": offered.declared}
            await server.update_session(
                audio=audio | ({"output": {"voice": voice}} if voice else {}),
                output_modalities=["text" if text else "audio"],
                aqaa={"extensions": ["latency"]},
                **settings,
            )
            return await speak(server, wave, tools=offered)

    turn = asyncio.run(run())
    if output is not None and turn.audio.size:
        write_sound(output, turn.audio, WIRE_RATE)
    if as_json:
        shown = {
            "transcript": turn.transcript,
            "status": turn.status,
            "audio_seconds": round(turn.seconds, 3),
            "heard_after_ms": None if turn.heard_after is None else round(1000 * turn.heard_after),
            "stages_ms": turn.stages,
            "false_ends": turn.false_ends,
            "underruns": turn.gaps,
            "calls": [asdict(call) for call in calls],
        }
        typer.echo(json.dumps(shown, indent=2))
        return
    for call in calls:
        typer.secho(str(call), dim=True, err=True)
    typer.echo(turn.transcript.strip())
    if turn.heard_after is not None:
        where = f", written to {output}" if output is not None else ""
        heard = f"heard after {1000 * turn.heard_after:.0f} ms"
        typer.secho(f"({turn.seconds:.1f} s of sound{where}; {heard})", dim=True, err=True)


def talk(
    voice: Annotated[str | None, typer.Option(help="The voice of the answers.")] = None,
    tools: ToolsOption = None,
    url: Url = DEFAULT_URL,
    model: Model = "nano",
    api_key: Key = None,
) -> None:
    """Talk hands-free through this machine's microphone and loudspeaker (use a headset)."""
    from aqaa.clients.client import connect
    from aqaa.clients.microphone import converse
    from aqaa.server.protocol.types import Json

    def tell(why: str) -> None:
        typer.secho(f"\n[{why}; one moment]", dim=True, err=True)

    def called(call: MadeCall) -> None:
        typer.secho(f"[{call}]", dim=True, err=True)

    offered = _tools(tools, called)

    async def run() -> None:
        async with connect(url, model=model, api_key=api_key, on_trouble=tell) as server:
            audio: Json = {"input": {"turn_detection": {"type": TURN_DETECTION}}}
            settings: Json = {} if offered is None else {"tools": offered.declared}
            await server.update_session(
                audio=audio | ({"output": {"voice": voice}} if voice else {}),
                aqaa={"extensions": ["interruptions"]},
                **settings,
            )
            typer.secho("Speak. Ctrl-C ends the conversation.", dim=True, err=True)
            await converse(server, lambda words: typer.echo(words, nl=False), offered)

    with suppress(KeyboardInterrupt):
        asyncio.run(run())


def bench(
    questions: Annotated[list[Path], typer.Argument(help="Recorded questions, picked at random.")],
    sessions: Annotated[int, typer.Option("-n", min=1, help="Conversations at once.")] = 4,
    turns: Annotated[int, typer.Option(min=1, help="Questions in each.")] = 5,
    plot: Annotated[Path | None, typer.Option(help="Draw the latencies into this file.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the result as JSON.")] = None,
    detection: Annotated[
        TurnDetectionKind, typer.Option(help="How the server tells that a question is over.")
    ] = TURN_DETECTION,
    url: Url = DEFAULT_URL,
    model: Model = "nano",
    api_key: Key = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Hold many spoken conversations at once, in real time, and report what was heard."""
    from rich.console import Console
    from rich.progress import Progress

    from aqaa.clients import load_test
    from aqaa.clients.client import WIRE_RATE
    from aqaa.server.audio.files import read_audio

    waves = [read_audio(path, WIRE_RATE) for path in questions]
    plan = load_test.LoadPlan(url, model, sessions, turns, api_key, detection=detection)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"{sessions} conversations", total=sessions * turns)
        report = asyncio.run(load_test.run(plan, waves, lambda: progress.advance(task)))
    if save is not None:
        load_test.write_json(report, save)
    if plot is not None:
        load_test.write_plot(report, plot)
    if as_json:
        typer.echo(json.dumps(report.summary(), indent=2))
    else:
        Console().print(_table(report))
    troubles = sorted(set(report.failures))
    if report.refused:
        troubles.append(f"{len(report.refused)} of {sessions} conversations found no place")
    for line in troubles:
        typer.secho(line, fg=typer.colors.RED, err=True)
    if troubles:
        raise typer.Exit(1)


def _tools(name: str | None, on_call: Callable[[MadeCall], None]) -> Tools | None:
    from aqaa.clients.tools import demo, read_tools

    def note(text: str) -> None:
        typer.secho(f"[{text}]", dim=True, err=True)

    if name is None:
        return None
    return demo(on_call, note) if name == "demo" else read_tools(Path(name), on_call, note)


def _table(report: load_test.Report) -> Table:
    from rich.table import Table

    from aqaa.clients.load_test import QUANTILES, percentile

    good = sum(turn.ok for turn in report.turns)
    gaps = sum(turn.gaps for turn in report.turns)
    table = Table(
        title=f"{report.sessions} sessions, {report.asked} turns, {good} answered whole, "
        f"{gaps} underruns, {sum(turn.false_ends for turn in report.turns)} false ends of a turn"
    )
    table.add_column("milliseconds")
    for q in QUANTILES:
        table.add_column(f"p{q}", justify="right")
    for stage, values in report.heard().items():
        if values:
            table.add_row(stage, *(f"{percentile(values, q):.0f}" for q in QUANTILES))
    return table
