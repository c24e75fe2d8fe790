"""The Markdown tables of spoken conversations that the benchmarks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aqaa.clients.load_test import Report, percentile
from aqaa.server.observe.latency import STAGES

LATENCIES = ("heard", *STAGES, "total")
LEGEND = (
    "Milliseconds, p50 / p95, from the last sample of speech to the first of the answer as the "
    "client hears it (heard), and where the server says they went. Broken: no whole answer came."
)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    head, *body = [f"| {' | '.join(line)} |" for line in (header, *rows)]
    return "\n".join([head, "|---" * len(header) + "|", *body])


def conversations(
    what: str, rows: Sequence[tuple[str, Report]], more: Mapping[str, Sequence[str]] | None = None
) -> str:
    """One row for each report.

    Args:
        what: the first column's head.
        rows: its cells, each with its report.
        more: further columns by their heads, one cell for each report.
    """
    more = more or {}
    counts = ("turns", "broken", "refused", "underruns", "silent, ms")
    cells = [
        [label, *_counts(report), *_latencies(report), *(column[n] for column in more.values())]
        for n, (label, report) in enumerate(rows)
    ]
    return f"{LEGEND}\n\n{markdown([what, *counts, *LATENCIES, *more], cells)}"


def _counts(report: Report) -> list[str]:
    gaps = sum(turn.gaps for turn in report.turns)
    silent = sum(turn.gap_seconds for turn in report.turns)
    refused = str(len(report.refused))
    if report.refused:
        refused += f" (told within {1000 * max(report.refused):.0f} ms)"
    return [str(report.asked), str(report.broken), refused, str(gaps), f"{1000 * silent:.0f}"]


def _latencies(report: Report) -> list[str]:
    samples = report.heard()
    return [
        " / ".join(f"{percentile(values, q):.0f}" for q in (50, 95))
        if (values := samples.get(name))
        else "-"
        for name in LATENCIES
    ]
