"""`aqaa eval`: ask a bundle the held-out questions by voice and print how well it answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    model: Annotated[Path, typer.Argument(help="The bundle's directory.")],
    questions: Annotated[int, typer.Option(min=1, help="Conversations in each condition.")] = 120,
    styled: Annotated[int, typer.Option(min=1, help="Conversations with voice control.")] = 24,
    save: Annotated[Path | None, typer.Option(help="Write every answer as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Judge a bundle from wav to wav on voices and phrasings that it was not trained on.

    Needs the extra `recipe` (an ASR, DNSMOS, synthesisers); takes minutes.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from aqaa.recipe.evaluate.run import evaluate as judge

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("loading", total=None)
        report = judge(
            model,
            questions=questions,
            styled=styled,
            tick=lambda what: progress.update(task, description=what),
        )
    told = json.dumps(report.as_json(), indent=2, ensure_ascii=False)
    if save is not None:
        save.write_text(told + "\n", encoding="utf-8")
    typer.echo(told if as_json else report.table())
