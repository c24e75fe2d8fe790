"""The demo page shows what was understood, in its place, with scripted models behind it."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import soundfile
from chromium import chromium
from playwright.sync_api import Page, expect
from scripted import CountingTranscriber, ScriptedEngine, pcm
from scripted_server import serving

pytestmark = pytest.mark.browser
RATE = 48_000
WORDS = ["one", "two", "three"]  # and more, until the browser takes the tone for noise


def microphone(folder: Path) -> Path:
    """Two turns of speech, 6 s apart, and a minute of silence."""
    silence = pcm(5.0, loud=False, rate=RATE)
    sound = (silence + pcm(1.2, loud=True, rate=RATE)) * 2 + silence * 12
    path = folder / "microphone.wav"
    soundfile.write(path, np.frombuffer(sound, "<i2"), RATE, subtype="PCM_16")
    return path


def serve(pipe: Connection, words: bool) -> None:
    """A server in a process of its own, until anything comes through the pipe."""

    async def until_told() -> None:
        transcriber = CountingTranscriber() if words else None
        async with serving(ScriptedEngine(), transcriber=transcriber) as served:
            pipe.send(served.http)
            await asyncio.to_thread(pipe.recv)

    asyncio.run(until_told())


@pytest.fixture(params=["with words", "without"])
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Page]:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    server = spawn.Process(target=serve, args=(theirs, request.param == "with words"))
    server.start()
    assert ours.poll(60), "the server did not come up"
    with chromium(microphone(tmp_path)) as browser:
        page = browser.new_context(permissions=["microphone"]).new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(ours.recv())
        yield page
        assert errors == []
    ours.send("stop")
    server.join()


def test_each_turns_words_stand_above_the_answer_to_it(
    page: Page, request: pytest.FixtureRequest
) -> None:
    page.get_by_role("button", name="Start").click()
    answers = page.locator("#captions li:not(.you)")
    expect(answers).to_have_count(2, timeout=40_000)
    expect(answers.last).to_have_text("hello there", timeout=20_000)
    shown = [line for line in page.locator("#captions li").all_inner_texts() if line]
    if "without" in request.node.name:
        assert shown == ["hello there", "hello there"]
        return
    assert [shown[1], shown[3]] == ["hello there", "hello there"]
    assert [line.split()[:3] for line in shown[::2]] == [WORDS, WORDS]
