"""A real server on the nano bundle, started as a user would, and recorded questions to ask it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from serving import Question, serving

from aqaa.models.bundle import nano_path


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("e2e")


@pytest.fixture(scope="session")
def questions() -> list[Question]:
    folder = nano_path() / "examples"
    listed = json.loads((folder / "examples.json").read_text(encoding="utf-8"))
    return [Question(folder / q["file"], q["text"], q["words"]) for q in listed]


@pytest.fixture
def question(questions: list[Question]) -> Question:
    return questions[0]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`aqaa serve` on nano; its base URL. It must end with code 0 on SIGTERM."""
    with serving(tmp_path_factory.mktemp("server") / "log") as base:
        yield base
