"""Where `make setup` puts the JavaScript client that tests speak through."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

NODE = "node"
AGENTS = Path(sys.prefix) / "share" / "agents-js" / "node_modules"


def has_agents() -> bool:
    """Whether @openai/agents-realtime and node are there."""
    return shutil.which(NODE) is not None and (AGENTS / "@openai" / "agents-realtime").is_dir()


def agents_modules() -> Path:
    """The folder of modules; the test that asks is skipped where they are not installed."""
    if not has_agents():
        pytest.skip("needs node and @openai/agents-realtime: make setup")
    return AGENTS
