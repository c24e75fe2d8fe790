"""`make nano`: rebuilds models/nano from nothing, stage by stage.

    python -m aqaa.recipe                 all that is shipped, in order; each resumes what it began
    python -m aqaa.recipe decoder pack    these stages only
    python -m aqaa.recipe --list

Files go to `$AQAA_NANO_WORK` (default build/nano). A stage is a process of its own, on one thread.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from rich.console import Console

from aqaa.models.bundle import nano_path
from aqaa.recipe.pack import pack
from aqaa.recipe.speech.cache import work_dir

STAGES: dict[str, tuple[str, ...]] = {
    "speech": ("aqaa.recipe.speech",),
    "linguistic": ("aqaa.recipe.linguistic",),
    "semantic": ("aqaa.recipe.semantic",),
    "transcriber": ("aqaa.recipe.transcriber",),
    "turn": ("aqaa.recipe.turn",),
    "vocoder": ("aqaa.recipe.vocoder",),
    "tokens": ("aqaa.recipe.decoder", "tokens"),
    "decoder": ("aqaa.recipe.decoder", "train"),
    "closing": ("aqaa.recipe.decoder", "close"),
    "preference": ("aqaa.recipe.decoder", "prefer"),
    "pack": (),
    "evaluate": (),
}
NAMED = {"preference"}  # that helped no decoder yet (models/nano/LOG.md): run where they are named
# glibc returns large blocks at once by default; keeping them makes CPU steps up to 4x faster.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "OMP_NUM_THREADS": "1",
}


def evaluate_nano(folder: Path, console: Console) -> None:
    """Prints the table and keeps it, with every answer, in the work directory."""
    from aqaa.recipe.evaluate.examples import write_examples
    from aqaa.recipe.evaluate.run import evaluate

    report = evaluate(folder, tick=lambda what: console.log(what))
    (work_dir() / "evaluation.json").write_text(json.dumps(report.as_json(), indent=1))
    write_examples(report, folder / "examples")
    console.print(report.table(), markup=False)


def wanted(named: Collection[str]) -> list[str]:
    """The stages to run, in their order: those `named`, or all but those that must be."""
    return [stage for stage in STAGES if (stage in named if named else stage not in NAMED)]


def main() -> None:
    """Parse the command line and run the stages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "stages", nargs="*", help=f"of {', '.join(STAGES)}; default: all but {', '.join(NAMED)}"
    )
    parser.add_argument("--list", action="store_true", help="print the stages")
    arguments = parser.parse_args()
    console = Console()
    if arguments.list:
        console.print("\n".join(STAGES))
        return
    unknown = [name for name in arguments.stages if name not in STAGES]
    if unknown:
        parser.error(f"no stage {unknown[0]!r}; there are: {', '.join(STAGES)}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for name in wanted(arguments.stages):
        console.rule(name)
        if name == "pack":
            pack()
        elif name == "evaluate":
            evaluate_nano(nano_path(), console)
        else:
            module, *rest = STAGES[name]
            command = [sys.executable, "-m", module, *rest]
            subprocess.run(command, check=True, env=os.environ | ALLOCATOR)


if __name__ == "__main__":
    main()
