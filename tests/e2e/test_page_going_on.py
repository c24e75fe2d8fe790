"""The page goes on with the conversation when its server drains or dies. A real Chromium."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import soundfile
from chromium import ask, chromium, keep_states, opened
from host_pauses import HOST_SECONDS
from page_server import TwoServers, two_page_servers
from playwright.sync_api import Browser, Page, expect
from scripted import AUDIO, pcm

pytestmark = pytest.mark.browser
SOON = 30_000  # ms
STATE = "#state"
SPEECH_AT = 4.0  # seconds after the page opens the microphone


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Its user says nothing for a while, then speaks for a second."""
    recording = tmp_path_factory.mktemp("microphone") / "speech.wav"
    speech = np.frombuffer(pcm(1.0, loud=True, rate=48_000), "<i2")
    wave = np.concatenate((np.zeros(round(SPEECH_AT * 48_000)), speech, np.zeros(48_000 * 60)))
    soundfile.write(recording, wave.astype(np.int16), 48_000, subtype="PCM_16")
    with chromium(recording) as browser:
        yield browser


@pytest.fixture
def servers(request: pytest.FixtureRequest) -> Iterator[TwoServers]:
    with two_page_servers(getattr(request, "param", "well")) as servers:
        yield servers


@pytest.fixture
def page(browser: Browser, servers: TwoServers) -> Iterator[Page]:
    with opened(browser, servers.url) as page:
        yield page


def start(page: Page, mode: str) -> None:
    page.get_by_label(mode).check()
    page.get_by_role("button", name="Start").click()
    expect(page.locator(STATE)).to_have_attribute("data-state", "listening", timeout=SOON)


def letters(prompt: tuple[int, ...]) -> str:
    return "".join(chr(id) for id in prompt if 32 <= id < AUDIO)


def test_after_a_drain_the_next_question_is_answered_by_a_server_that_knows_the_first(
    page: Page, servers: TwoServers
) -> None:
    start(page, "Push to talk")
    page.locator("#voice").select_option("amy")
    ask(page, "first question")
    expect(page.locator("#captions li:not(.you)")).to_have_text(["hello there"], timeout=SOON)
    servers.drain_first()
    expect(page.locator(STATE)).to_have_attribute("data-state", "listening", timeout=SOON)
    ask(page, "second question")
    expect(page.locator("#captions li:not(.you)")).to_have_text(
        ["hello there", "hello there"], timeout=SOON
    )
    expect(page.locator("#notice")).to_be_hidden()
    told = letters(servers.prompt_of_second())
    assert told.index("first question") < told.index("hello there") < told.index("second question")


@pytest.mark.parametrize("servers", ["slow"], indirect=True)
def test_an_answer_that_was_cut_off_comes_again_and_the_page_says_what_it_does(
    page: Page, servers: TwoServers
) -> None:
    start(page, "Push to talk")
    ask(page, "hello")
    expect(page.locator(STATE)).to_have_attribute("data-state", "speaking", timeout=SOON)
    keep_states(page)
    servers.kill_first()
    expect(page.locator("#captions li:not(.you):not(.cut)")).to_have_text(
        ["hello there"], timeout=SOON
    )
    assert "reconnecting" in page.evaluate("window.states")
    assert "lost" not in page.evaluate("window.states")
    expect(page.locator(STATE)).to_have_attribute("data-state", "listening", timeout=SOON)


def test_a_server_that_freezes_is_told_of_within_two_seconds_and_then_left(
    page: Page, servers: TwoServers
) -> None:
    start(page, "Push to talk")
    ask(page, "first question")
    answers = page.locator("#captions li:not(.you)")
    expect(answers).to_have_text(["hello there"], timeout=SOON)
    expect(page.locator(STATE)).to_have_attribute("data-state", "listening", timeout=SOON)
    page.evaluate(
        """() => {
          const notice = document.getElementById("notice");
          new MutationObserver(() => { window.toldAt ??= performance.now(); })
            .observe(notice, { childList: true, characterData: true, subtree: true });
        }"""
    )
    servers.freeze_first()
    ask(page, "second question")
    asked = page.evaluate("performance.now()")
    expect(page.locator("#notice")).to_contain_text("no sign of life", timeout=SOON)
    assert page.evaluate("window.toldAt") - asked < 1000 * (2 + HOST_SECONDS)
    servers.replace_first()
    expect(answers).to_have_text(["hello there", "hello there"], timeout=SOON)
    expect(page.locator("#notice")).to_be_hidden()
    told = letters(servers.prompt_of_second())
    assert told.index("first question") < told.index("hello there") < told.index("second question")


def test_a_server_that_is_frozen_when_the_page_comes_to_it_is_left(
    page: Page, servers: TwoServers
) -> None:
    start(page, "Push to talk")
    with page.expect_websocket(timeout=SOON):  # a second one, which nobody answers
        servers.freeze_first()
        ask(page, "hello")
    page.wait_for_timeout(500)
    servers.replace_first()
    expect(page.locator("#captions li:not(.you)")).to_have_text(["hello there"], timeout=SOON)
    expect(page.locator("#notice")).to_be_hidden()


def test_what_was_spoken_comes_along_as_sound(page: Page, servers: TwoServers) -> None:
    start(page, "Hands-free")
    expect(page.locator("#captions li:not(.you)")).to_have_text(["hello there"], timeout=SOON)
    servers.drain_first()
    ask(page, "and then?")
    expect(page.locator("#captions li:not(.you)")).to_have_count(2, timeout=SOON)
    told = servers.prompt_of_second()
    loud = [id for id in told if AUDIO <= id < AUDIO + 1024 and id - AUDIO > 100]
    assert 6 <= len(loud) <= 20  # two ids each 120 ms, of what the browser took for speech
