"""Alerts and dashboard name metrics that a running server publishes."""

from __future__ import annotations

import re

import httpx
from promql import EXPRESSIONS, selectors


def test_every_metric_of_ours_is_in_a_running_servers_metrics(server: str) -> None:
    published = set(re.findall(r"^# TYPE (\S+)", httpx.get(f"{server}/metrics").text, re.M))
    named = {s.name for e in EXPRESSIONS.values() for s in selectors(e)}
    ours = {re.sub(r"_(bucket|sum|count)$", "", n) for n in named if n.startswith("aqaa_")}
    assert len(ours) > 10
    assert ours <= published
