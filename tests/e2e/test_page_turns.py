"""The demo page when a turn that had ended goes on, with scripted models behind it."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import soundfile
from chromium import chromium, keep_screenshot
from playwright.sync_api import Page, expect
from scripted import CountingTranscriber, ScriptedEngine, pcm, woven
from scripted_server import serving

from aqaa.server.hearing.turn_detector import EAGERNESS_MS

pytestmark = pytest.mark.browser
RATE = 48_000
PAUSE = 1.0  # seconds: the turn ends in it, and is open again after it


def microphone(folder: Path) -> Path:
    """A turn that pauses in its middle, and a minute of silence."""
    silence, speech = pcm(1.0, loud=False, rate=RATE), pcm(1.0, loud=True, rate=RATE)
    sound = silence * 5 + speech + pcm(PAUSE, loud=False, rate=RATE) + speech + silence * 60
    path = folder / "microphone.wav"
    soundfile.write(path, np.frombuffer(sound, "<i2"), RATE, subtype="PCM_16")
    return path


def serve(pipe: Connection) -> None:
    """A server in a process of its own, until anything comes through the pipe."""

    async def until_told() -> None:
        engine = ScriptedEngine(answer=lambda prompt: woven("hello there", 25), seconds=0.005)
        async with serving(engine, transcriber=CountingTranscriber()) as served:
            pipe.send(served.http)
            await asyncio.to_thread(pipe.recv)

    asyncio.run(until_told())


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    server = spawn.Process(target=serve, args=(theirs,))
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


def test_the_answer_to_a_part_leaves_the_page_with_the_part(page: Page) -> None:
    page.get_by_role("button", name="Start").click()
    answers = page.locator("#captions li:not(.you)")
    # It passes: the page itself looks at each of its frames, and not we now and then.
    page.wait_for_function("document.querySelector('#captions li.cut')", timeout=20_000)
    expect(page.locator("#captions li.cut")).to_have_count(0, timeout=10_000)
    expect(answers.first).to_have_text("hello there", timeout=20_000)
    assert answers.count() == 1
    expect(page.locator("#state")).to_have_attribute("data-state", "listening", timeout=20_000)
    keep_screenshot(page, "taken_back")
    said = [line for line in page.locator("#captions li.you").all_inner_texts() if line]
    assert len(said) == 1
    assert said[0].startswith("one two three")
    rows = page.locator("#turns tr")
    assert rows.count() == 1
    assert rows.locator("td").first.inner_text() == "1"
    assert page.locator("#notice").is_hidden()


def test_a_turns_bar_adds_up_to_what_it_was_waited_for(page: Page) -> None:
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#state")).to_have_attribute("data-state", "speaking", timeout=20_000)
    bar = page.get_by_role("img", name="silence")
    expect(bar).to_be_visible(timeout=10_000)
    shown = page.locator("#turns td").nth(1).inner_text().split()
    told = dict(part.rsplit(" ", 2)[:2] for part in (bar.get_attribute("title") or "").split(", "))
    assert list(told) == ["silence", "thinking", "voice", "way"]
    assert float(told["silence"]) >= EAGERNESS_MS["auto"]
    assert abs(sum(map(float, told.values())) - float(shown[0])) <= 2
    widths = [piece.bounding_box() for piece in bar.locator("span").all()]
    whole = bar.bounding_box()
    assert whole is not None
    assert sum(box["width"] for box in widths if box) == pytest.approx(whole["width"], rel=0.02)
