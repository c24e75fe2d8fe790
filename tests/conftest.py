"""Shared fixtures: where the published reference lies, and small things that every folder needs."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings
from javascript import has_agents
from vllm_engines import (  # noqa: F401 - fixtures; shared by folders, so vLLM starts once
    step1_bundle,
    vllm_engine,
    vllm_http_engine,
    vllm_server,
    vllm_tp2_engine,
)

REPOSITORY = Path(__file__).resolve().parent.parent

# A property's examples are the same in every run: what is found belongs to the change that is
# tested. None has a deadline, for this machine is shared with others.
settings.register_profile("aqaa", deadline=None, derandomize=True, database=None)
settings.load_profile("aqaa")

# Tests that need one of these skip where it is missing; not so where all are asked for.
PACKAGES = (
    "vllm",
    "ray",
    "playwright",
    "marionette_driver",
    "livekit.agents",
    "pipecat",
    "agents",
    "faster_whisper",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--whole", action="store_true", help="refuse to run where tests would lack a package"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Say at once what would be skipped; servers that tests start offer their places.

    What a server measures beside other tests says nothing of how many it would serve well.
    """
    os.environ.setdefault("AQAA_MIN_SESSIONS", "8")
    if config.getoption("whole"):
        missing = [name for name in PACKAGES if find_spec(name) is None]
        missing += [] if has_agents() else ["node with @openai/agents-realtime"]
        if missing:
            raise pytest.UsageError(f"not installed: {', '.join(missing)}")


def pytest_collection_finish() -> None:
    """One thread for each of torch's small calls here: more only wait for one another.

    The tests' models are so small that a second thread costs more than it computes, six times as
    much beside other work (test_linguistic_stream_equals_encode: 28 s of CPU time, 5 s with one).
    Servers that tests start choose for themselves.
    """
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """The reference fixtures: $AQAA_FIXTURES, else the set that lies beside the repository."""
    default = REPOSITORY.parent / "shared" / "reference" / "public"
    directory = Path(os.environ.get("AQAA_FIXTURES", default))
    if not (directory / "expected").is_dir():
        pytest.skip(f"no reference fixtures at {directory}: set AQAA_FIXTURES to their directory")
    return directory
