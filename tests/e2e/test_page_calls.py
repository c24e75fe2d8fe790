"""The page lets the model call functions where wanted. A real Chromium, a scripted model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from chromium import ask, chromium, keep_screenshot, opened
from page_server import page_server, two_page_servers
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser
SOON = 30_000  # ms


def silence(folder: Path) -> Path:
    """A minute of it, for the microphone."""
    file = folder / "silence.wav"
    soundfile.write(file, np.zeros(48_000 * 60), 48_000, subtype="PCM_16")
    return file


def ask_for_a_timer(page: Page) -> None:
    """Begin a conversation with functions."""
    page.get_by_label("Push to talk").check()
    page.get_by_label("Functions").check()
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#state")).to_have_attribute("data-state", "listening", timeout=SOON)
    ask(page, "Five minutes, please.")


def test_what_is_said_before_a_call_is_heard_to_its_end(tmp_path: Path) -> None:
    """What the model says of the call's result comes after it, though it could be there before."""
    with (
        page_server("announcing") as server,
        chromium(silence(tmp_path)) as browser,
        opened(browser, server.url) as page,
    ):
        ask_for_a_timer(page)
        lines = page.locator("#captions li")
        expect(lines.last).to_have_text("Your timer runs.", timeout=SOON)
        expect(lines.nth(1)).to_have_text("One moment, please, I will do that.")
        expect(page.locator("#state")).to_have_attribute("data-state", "listening", timeout=SOON)


def test_a_call_is_shown_run_and_answered_and_another_server_is_told_of_it(tmp_path: Path) -> None:
    with (
        two_page_servers("calling") as servers,
        chromium(silence(tmp_path)) as browser,
        opened(browser, servers.url) as page,
    ):
        ask_for_a_timer(page)
        call = page.locator("#captions li.call")
        expect(call).to_have_text('set_timer {"minutes":5} → {"ok":true}', timeout=SOON)
        expect(page.locator("#captions li").last).to_have_text("Your timer runs.", timeout=SOON)
        expect(page.locator("#state")).to_have_attribute("data-state", "listening", timeout=SOON)
        expect(page.locator("#notice")).to_be_hidden()
        keep_screenshot(page, "called")
        servers.drain_first()
        ask(page, "Is it running?")
        expect(page.locator("#captions li")).to_have_count(5, timeout=SOON)
        expect(page.locator("#captions li").last).to_have_text("Your timer runs.", timeout=SOON)
        told = "".join(map(chr, servers.prompt_of_second()))
        assert '{"name":"set_timer","arguments":{"minutes":5}}' in told
        assert told.index("set_timer(") < told.index("please") < told.index('{"ok":true}')
        assert told.index('{"ok":true}') < told.index("Is it running?")
