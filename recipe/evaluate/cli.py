"""`aqaa eval`: ask a bundle the held-out questions by voice and print how well it answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    model: Annotated[
        Path | None, typer.Argument(help="The bundle's directory; or none, with --url.")
    ] = None,
    questions: Annotated[int, typer.Option(min=1, help="Conversations in each condition.")] = 120,
    styled: Annotated[int, typer.Option(min=1, help="Conversations with voice control.")] = 24,
    people: Annotated[
        Path | None, typer.Option(help="Folder of recordings of people giving commands.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write every answer as JSON.")] = None,
    url: Annotated[str | None, typer.Option(help="Ask this server instead.")] = None,
    questions_from: Annotated[
        Path | None, typer.Option("--set", help="Folder of rows.jsonl and recordings, with --url.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="URL of an OpenAI-compatible model that judges.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the abilities, with --url.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Judge a bundle from wav to wav on voices and phrasings that it was not trained on.

    With --url and --set any server is asked over the realtime protocol, and judged by ability.
    Needs the extra `recipe` (an ASR, DNSMOS, synthesisers); takes minutes.
    """
    if url is not None:
        if questions_from is None:
            raise typer.BadParameter("--url needs --set, a folder of questions")
        _ask_server(url, questions_from, judge, save, plot, as_json)
        return
    if model is None:
        raise typer.BadParameter("name a bundle's directory, or a server with --url")
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from aqaa.recipe.evaluate.run import evaluate as judge_bundle

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("loading", total=None)
        report = judge_bundle(
            model,
            questions=questions,
            styled=styled,
            people=people,
            tick=lambda what: progress.update(task, description=what),
        )
    told = json.dumps(report.as_json(), indent=2, ensure_ascii=False)
    if save is not None:
        save.write_text(told + "\n", encoding="utf-8")
    typer.echo(told if as_json else report.table())


def _ask_server(
    url: str, folder: Path, judge: str | None, save: Path | None, plot: Path | None, as_json: bool
) -> None:
    import asyncio

    from aqaa.recipe.evaluate import protocol
    from aqaa.recipe.evaluate.judge_model import ModelJudge

    rows = protocol.read_set(folder)
    judged_by: protocol.Judge = protocol.RuleJudge() if judge is None else ModelJudge(judge)
    verdicts = asyncio.run(
        protocol.ask_rows(url, folder, rows, judged_by, every_last=judge is not None)
    )
    scores = protocol.by_ability(verdicts)
    told = protocol.as_json(scores, verdicts)
    if save is not None:
        save.write_text(told + "\n", encoding="utf-8")
    if plot is not None:
        protocol.plot(scores, plot)
    typer.echo(told if as_json else protocol.as_table(scores))
