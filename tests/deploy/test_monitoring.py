"""Alerts and dashboard: every expression parses, every metric and label is one that is there."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from shutil import which

import pytest
import yaml
from promql import ALERTS, DASHBOARD, EXPRESSIONS, selectors

from aqaa.server.observe.latency import STAGES

ROOT = Path(__file__).resolve().parents[2]
ALERT_TESTS = ROOT / "tests/deploy/alerts_test.yaml"
# Prometheus' own, and what other exporters publish: nothing here can check their names.
OTHERS = {"up", "DCGM_FI_DEV_GPU_UTIL"}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_the_expression_parses_and_names_a_metric(name: str) -> None:
    assert [s.name for s in selectors(EXPRESSIONS[name])]


def test_every_metric_of_vllm_is_one_that_vllm_makes() -> None:
    spec = importlib.util.find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("vLLM is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "v1/metrics"
    source = "\n".join(file.read_text(encoding="utf-8") for file in folder.glob("*.py"))
    named = {s.name for e in EXPRESSIONS.values() for s in selectors(e)}
    vllm = {name for name in named if name.startswith("vllm:")}
    assert len(vllm) >= 3
    assert {name for name in vllm if f'"{name}"' not in source} == set()
    rest = {n for n in named if not n.startswith(("aqaa_", "vllm:", "haproxy_"))}
    assert rest <= OTHERS


def test_stages_in_the_dashboard_are_told_apart_by_a_label_that_they_have() -> None:
    expression = EXPRESSIONS["Where the wait goes (mean) A"]
    assert "by (stage)" in expression
    assert STAGES[0] == "turn_end"  # the panel's description names it


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert max(x for x, _ in taken) < 24


def test_every_alert_is_shown_to_fire_and_not_to_fire() -> None:
    fires: set[str] = set()
    stays: set[str] = set()
    for test in yaml.safe_load(ALERT_TESTS.read_text(encoding="utf-8"))["tests"]:
        for check in test["alert_rule_test"]:
            (fires if check.get("exp_alerts") else stays).add(check["alertname"])
    assert fires == stays == set(ALERTS)


def test_every_alert_is_explained_to_whoever_it_wakes() -> None:
    text = (ROOT / "docs/operate.md").read_text(encoding="utf-8")
    assert [name for name in ALERTS if f"`{name}`" not in text] == []


@pytest.mark.programs
@pytest.mark.skipif(which("promtool") is None, reason="needs promtool: apt-get install prometheus")
@pytest.mark.parametrize(
    "command",
    [
        ["check", "config", "deploy/prometheus/prometheus.yml"],
        ["test", "rules", "tests/deploy/alerts_test.yaml"],
    ],
    ids=["config", "rules"],
)
def test_prometheus_accepts_and_proves_them(command: list[str]) -> None:
    done = subprocess.run(
        ["promtool", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
