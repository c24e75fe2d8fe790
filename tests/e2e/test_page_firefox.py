"""The demo page in a real Firefox, with a sound card's microphone and loudspeaker of 44.1 kHz."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from firefox import FirefoxPage, firefox
from page_server import PageServer, page_server
from sound_server import SoundServer, sound_server

from aqaa.models.bundle import nano_path

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # Mozilla's client's
]
SCREENSHOTS = Path(os.environ.get("AQAA_SCREENSHOTS", "build/screenshots"))
QUESTION = nano_path() / "examples" / "1-capital-joe_lively.flac"
ANSWER = "hello there"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoundServer]:
    with sound_server(tmp_path_factory.mktemp("sound")) as sound:
        yield sound


@pytest.fixture(scope="module")
def browser(sound: SoundServer) -> Iterator[FirefoxPage]:
    with firefox(sound.environment) as browser:
        yield browser


@pytest.fixture
def server() -> Iterator[PageServer]:
    with page_server("well") as server:
        yield server


@pytest.fixture
def page(browser: FirefoxPage, server: PageServer) -> FirefoxPage:
    browser.open(server.url)
    browser.size(1100, 800)
    browser.until(
        lambda: browser.run("return document.querySelector('#voice').length") > 0, "voices"
    )
    return browser


def is_in(page: FirefoxPage, state: str) -> None:
    page.until(lambda: page.state() == state, state)


def test_a_spoken_question_is_heard_and_answered_aloud_with_captions(
    page: FirefoxPage, sound: SoundServer
) -> None:
    page.run(
        """const Native = window.AudioContext;
        window.AudioContext = class extends Native {
          constructor(options) { super(options); window.rate = this.sampleRate; }
        };"""
    )
    page.click("#start")
    is_in(page, "listening")
    sound.play(QUESTION)
    page.until(lambda: ANSWER in page.text("#captions"), "an answer")
    is_in(page, "listening")
    page.screenshot(SCREENSHOTS / "firefox.png")
    assert page.run("return window.rate") == sound.rate
    assert page.text("#turns tr td:nth-child(2)").endswith(" ms")
    assert page.text("#notice") == ""
    page.click("#start")


def test_a_typed_question_is_answered_and_the_voice_says_when_it_can_change(
    page: FirefoxPage,
) -> None:
    page.click("#start")
    is_in(page, "listening")
    page.type("#text", "hello")
    page.click("#typed button")
    page.until(lambda: ANSWER in page.text("#captions"), "an answer")
    is_in(page, "listening")
    assert "Stop" in page.text("#voice-help")
    page.click("#start")
    is_in(page, "idle")
    assert not page.run("return document.querySelector('#voice').disabled")


def test_a_double_click_opens_one_session(page: FirefoxPage, server: PageServer) -> None:
    page.double_click("#start")
    is_in(page, "listening")
    assert server.sessions() == 1
    page.click("#start")
    page.until(lambda: server.sessions() == 0, "no session")


def test_the_page_fits_a_phone(page: FirefoxPage) -> None:
    """In a frame: the narrowest window of Debian's Firefox has about 490 pixels."""
    page.run(
        """const frame = document.createElement("iframe");
        frame.width = 360; frame.height = 740; frame.style.border = 0; frame.src = "/";
        frame.onload = () => { window.inside = frame.contentWindow; };
        document.body.replaceChildren(frame);"""
    )
    page.until(
        lambda: page.run("return window.inside?.document.querySelector('#voice').length > 0"),
        "the page in the frame",
    )
    page.screenshot(SCREENSHOTS / "firefox-phone.png")
    width, content, start = page.run(
        """const { innerWidth, document: page } = window.inside;
        const start = page.querySelector("#start").getBoundingClientRect();
        return [innerWidth, page.documentElement.scrollWidth, start.bottom];"""
    )
    assert width == 360
    assert content <= width
    assert start < 740
