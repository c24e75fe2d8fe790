"""Shared fixtures: where the published reference lies, and small things that every folder needs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """The reference fixtures: $AQAA_FIXTURES, else the set that lies beside the repository."""
    default = REPOSITORY.parent / "shared" / "reference" / "public"
    directory = Path(os.environ.get("AQAA_FIXTURES", default))
    if not (directory / "expected").is_dir():
        pytest.skip(f"no reference fixtures at {directory}: set AQAA_FIXTURES to their directory")
    return directory
