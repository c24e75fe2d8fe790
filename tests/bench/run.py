"""`make bench`: run every benchmark beside this file and write their tables to docs/performance.md.

A benchmark is a module here with `TITLE` and `main() -> str`, which returns Markdown. Each runs in
a process of its own, so that one's threads and caches do not speed up or slow down another's.
Name some to run only those: `python tests/bench/run.py vocoder engines`. Each is stopped after
`LIMIT` seconds, with all the processes that it started.
"""

from __future__ import annotations

import datetime
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
REPORT = HERE.parents[1] / "docs" / "performance.md"
LIMIT = 1200  # seconds; the longest take about eight minutes on two idle cores
RUN = """
import importlib, sys
bench = importlib.import_module(sys.argv[1])
print(f"## {bench.TITLE}\\n")
print(bench.main())
"""


def machine() -> str:
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return (
        f"{len(names)} x {names[0]}, Python {platform.python_version()}, torch {torch.__version__}"
    )


def sections() -> dict[str, str]:
    """What the report says now, by benchmark, so that a partial run keeps the rest."""
    if not REPORT.is_file():
        return {}
    parts = REPORT.read_text(encoding="utf-8").split("<!-- bench: ")[1:]
    return {name: body for name, _, body in (part.partition(" -->\n") for part in parts)}


def run(name: str) -> str | None:
    """What a benchmark printed; None if it failed or took longer than `LIMIT`."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, name],
        cwd=HERE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that its servers end with it
    )
    try:
        printed, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        print(f"stopped after {LIMIT} s", flush=True)
        return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return printed if process.returncode == 0 else None


def report(found: Mapping[str, str], present: Sequence[str]) -> str:
    """The whole page: what was found, by benchmark, and which of those present are missing."""
    body = "".join(f"<!-- bench: {name} -->\n{found[name]}" for name in sorted(found))
    missing = ", ".join(f"`{name}`" for name in present if name not in found)
    unmeasured = f" Not measured yet: {missing}." if missing else ""
    return (
        "# Performance\n\nThe latest tables of `make bench`, each with its day and machine "
        "(not noted in the oldest), all shared and noisy: compare within a table, "
        "not across days.\n\n"
        "One table alone: `python tests/bench/run.py NAME`. Names: "
        f"{', '.join(f'`{name}`' for name in present)}.{unmeasured}\n\n{body}"
    )


def main() -> int:
    present = sorted(f.stem for f in HERE.glob("*.py") if f.stem != "run")
    wanted = sys.argv[1:] or present
    if unknown := set(wanted) - set(present):
        print(f"no such benchmark: {', '.join(sorted(unknown))}; there are: {', '.join(present)}")
        return 2
    failed = []
    for name in wanted:
        print(f"== {name}", flush=True)
        printed = run(name)
        if printed is None:
            failed.append(name)
            continue
        print(printed, flush=True)
        table = f"_{datetime.date.today()}, {machine()}_\n\n{printed.strip()}\n\n"
        # Read only now: others may have written theirs meanwhile.
        REPORT.write_text(report({**sections(), name: table}, present), encoding="utf-8")
    print(f"failed: {', '.join(failed)}" if failed else f"written: {REPORT}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
