"""Requests drawn from the OpenAPI document: none is answered as a fault of the server."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy
from schemathesis import Case
from scripted import CountingTranscriber, ScriptedEngine
from scripted_server import serving

EXAMPLES = 40  # of each operation
PATIENCE = 20.0  # seconds for a reply


def statuses_by_operation(url: str) -> dict[str, Counter[int]]:
    """The status of each request that was drawn, by its operation."""
    document = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [result.ok() for result in document.get_all_operations()]
    return {operation.label: statuses(operation.as_strategy()) for operation in operations}


def statuses(requests: SearchStrategy[Case]) -> Counter[int]:
    """The status of each of `EXAMPLES` requests."""
    found = Counter[int]()

    @settings(
        max_examples=EXAMPLES,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    @given(case=requests)
    def ask(case: Case) -> None:
        name_the_served_model(case)
        reply = case.call(timeout=PATIENCE)
        found[reply.status_code] += 1
        assert reply.status_code < 500, reply.text[:500]
        if reply.status_code >= 400:
            assert reply.json()["error"]["message"]

    ask()
    return found


def name_the_served_model(case: Case) -> None:
    """A drawn name is never the served model's, and nothing behind that check would be reached."""
    if isinstance(case.body, dict) and "model" in case.body:
        case.body["model"] = "scripted"


async def test_no_request_that_the_document_allows_is_a_fault_of_the_server() -> None:
    engine = ScriptedEngine(vocab_size=sys.maxunicode + 1)  # its text ids are code points
    async with serving(engine, transcriber=CountingTranscriber()) as served:
        found = await asyncio.to_thread(statuses_by_operation, served.http)
    assert {"POST /v1/chat/completions", "POST /v1/audio/transcriptions"} <= found.keys()
    assert all(found[operation].total() > 0 for operation in found)
