"""Debian's Firefox, by Mozilla's own client of its remote protocol: no geckodriver is needed."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from marionette_driver import By
from marionette_driver.marionette import Marionette

FIREFOX = "/usr/bin/firefox-esr"
SOON = 120.0  # seconds until something that should be on the page is
PREFERENCES = {
    "media.navigator.permission.disabled": True,  # nobody is there to allow it
    "media.autoplay.default": 0,
    "media.autoplay.blocking_policy": 0,
}


class FirefoxPage:
    """One page: what a visitor does and sees."""

    def __init__(self, marionette: Marionette) -> None:
        self._marionette = marionette

    def open(self, url: str) -> None:
        self._marionette.navigate(url)

    def run(self, script: str, *arguments: object) -> Any:
        """The value of a script's `return`, run in the page."""
        return self._marionette.execute_script(script, script_args=arguments, sandbox=None)

    def size(self, width: int, height: int) -> None:
        """Give the page's content so many CSS pixels."""
        for _ in range(2):  # the frame around it is known only once the window has its size
            inner = self.run("return [innerWidth, innerHeight, outerWidth, outerHeight]")
            frame = inner[2] - inner[0], inner[3] - inner[1]
            self._marionette.set_window_rect(width=width + frame[0], height=height + frame[1])

    def click(self, selector: str) -> None:
        self._marionette.find_element(By.CSS_SELECTOR, selector).click()

    def double_click(self, selector: str) -> None:
        element = self._marionette.find_element(By.CSS_SELECTOR, selector)
        mouse = self._marionette.actions.sequence("pointer", "mouse", {"pointerType": "mouse"})
        mouse.pointer_move(0, 0, origin=element).click().click().perform()

    def type(self, selector: str, text: str) -> None:
        self._marionette.find_element(By.CSS_SELECTOR, selector).send_keys(text)

    def text(self, selector: str) -> str:
        """The words of the first element of this kind; empty if there is none."""
        words: str = self.run(
            "return document.querySelector(arguments[0])?.innerText ?? ''", selector
        )
        return words

    def state(self) -> str:
        """What the page says it is doing: idle, listening, speaking, ..."""
        state: str = self.run("return document.querySelector('#state').dataset.state")
        return state

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something on the page.

        Raises:
            AssertionError: it never came; says what the page showed.
        """
        deadline = time.monotonic() + SOON
        while not condition():
            assert time.monotonic() < deadline, (
                f"{what}: {self.text('#state')}, {self.text('#notice')}"
            )
            time.sleep(0.05)

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self._marionette.screenshot(full=True)))


@contextmanager
def firefox(environment: dict[str, str]) -> Iterator[FirefoxPage]:
    """A browser with a profile of its own and these variables, which name its sound server."""
    with patch.dict(os.environ, environment):
        marionette = Marionette(
            bin=FIREFOX,
            port=0,
            headless=True,
            prefs=PREFERENCES,
            startup_timeout=300,
            gecko_log=os.devnull,
        )
    try:
        marionette.start_session()
        yield FirefoxPage(marionette)
    finally:
        marionette.cleanup()
