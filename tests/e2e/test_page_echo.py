"""The demo page whose answers are interrupted again and again as soon as they begin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from chromium import chromium, keep_screenshot, opened
from page_server import page_server
from playwright.sync_api import expect
from scripted import pcm

pytestmark = pytest.mark.browser
RATE = 48_000


def microphone(folder: Path, quiet: float) -> Path:
    """Something loud every so many seconds, as a loudspeaker's sound in a microphone."""
    loud = pcm(0.9, loud=True, rate=RATE) + pcm(quiet, loud=False, rate=RATE)
    sound = pcm(5.0, loud=False, rate=RATE) + loud * 8 + pcm(60.0, loud=False, rate=RATE)
    path = folder / "microphone.wav"
    soundfile.write(path, np.frombuffer(sound, "<i2"), RATE, subtype="PCM_16")
    return path


@pytest.mark.parametrize(("quiet", "warned"), [(1.0, True), (2.4, False)])
def test_a_page_that_seems_to_hear_itself_says_so(
    tmp_path: Path, quiet: float, warned: bool
) -> None:
    """Whoever lets an answer go on for a while speaks for himself."""
    with (
        page_server("long") as server,
        chromium(microphone(tmp_path, quiet)) as browser,
        opened(browser, server.url) as page,
    ):
        page.get_by_role("button", name="Start").click()
        notice = page.locator("#notice")
        if warned:
            expect(notice).to_contain_text("hear its own voice", timeout=50_000)
            keep_screenshot(page, "echo")
        else:
            expect(page.locator("#captions li.cut")).to_have_count(4, timeout=50_000)
            expect(notice).to_be_hidden()
