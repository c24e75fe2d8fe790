"""Every PromQL expression of deploy/: of the alerts and of the dashboard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
DASHBOARD: dict[str, Any] = json.loads(
    (ROOT / "deploy/grafana/dashboards/aqaa.json").read_text(encoding="utf-8")
)
GROUPS = yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
ALERTS: dict[str, str] = {rule["alert"]: rule["expr"] for g in GROUPS for rule in g["rules"]}


def dashboard_expressions() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "1m")
            yield f"{panel['title']} {target['refId']}", expression.replace("$instance", ".*")


EXPRESSIONS = {**ALERTS, **dict(dashboard_expressions())}


def selectors(expression: str) -> list[Any]:
    """Every vector selector of a PromQL expression."""
    found: list[Any] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found
