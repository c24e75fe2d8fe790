"""Chromium with a recording as its microphone, and what its pages looked like."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"


@contextmanager
def chromium(microphone: Path) -> Iterator[Browser]:
    """A browser whose microphone plays the file, once, from when a page opens it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--autoplay-policy=no-user-gesture-required",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={microphone}%noloop",
            ],
        )
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, url: str) -> Iterator[Page]:
    """The page at `url`, with a microphone; no script of it may fail meanwhile."""
    context = browser.new_context(permissions=["microphone"])
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    expect(page.locator("#voice option").first).to_be_attached()
    yield page
    context.close()
    assert errors == []


def ask(page: Page, text: str) -> None:
    """Send a typed question."""
    page.get_by_placeholder("or type a question").fill(text)
    page.get_by_role("button", name="Send").click()


def keep_states(page: Page) -> None:
    """Have the states that the page passes through from now on be `window.states`."""
    page.evaluate(
        """() => {
          window.states = [];
          const state = document.getElementById("state");
          new MutationObserver(() => window.states.push(state.dataset.state))
            .observe(state, { attributes: true });
        }"""
    )


def keep_screenshot(page: Page, name: str) -> None:
    """A picture of the whole page, to be looked at."""
    folder = Path(os.environ.get("AQAA_SCREENSHOTS", SCREENSHOTS))
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png", full_page=True)
