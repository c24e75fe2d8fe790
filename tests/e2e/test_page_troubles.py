"""The demo page when things go wrong: it says what it is, and goes on. A real Chromium."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile
from chromium import ask, chromium, keep_screenshot, keep_states, opened
from page_server import PageServer, page_server
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.browser
SOON = 20_000  # ms
STATE = "#state"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    silence = tmp_path_factory.mktemp("microphone") / "silence.wav"
    soundfile.write(silence, np.zeros(48_000 * 60), 48_000, subtype="PCM_16")
    with chromium(silence) as browser:
        yield browser


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[PageServer]:
    with page_server(getattr(request, "param", "well")) as server:
        yield server


@pytest.fixture
def page(browser: Browser, server: PageServer) -> Iterator[Page]:
    with opened(browser, server.url) as page:
        yield page


def start(page: Page, mode: str = "Hands-free") -> None:
    page.get_by_label(mode).check()
    page.get_by_role("button", name="Start").click()
    expect(page.locator(STATE)).to_have_attribute("data-state", "listening", timeout=SOON)


def test_a_double_click_opens_one_session(page: Page, server: PageServer) -> None:
    page.get_by_role("button", name="Start").dblclick()
    expect(page.locator(STATE)).to_have_attribute("data-state", "listening", timeout=SOON)
    assert server.sessions() == 1
    page.get_by_role("button", name="Stop").click()
    deadline = time.monotonic() + 10
    while server.sessions() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert server.sessions() == 0


@pytest.mark.parametrize("server", ["broken"], indirect=True)
def test_an_answer_that_fails_says_so_and_the_session_goes_on(page: Page) -> None:
    start(page)
    ask(page, "hello")
    expect(page.locator("#notice")).to_contain_text("There is no answer", timeout=SOON)
    expect(page.locator(STATE)).to_have_attribute("data-state", "listening")
    keep_screenshot(page, "no-answer")
    ask(page, "hello again")
    expect(page.locator("#captions li.you")).to_have_count(2)


@pytest.mark.parametrize("server", ["soundless"], indirect=True)
def test_an_answer_without_sound_is_shown_and_leaves_thinking(page: Page) -> None:
    start(page)
    ask(page, "hello")
    expect(page.locator("#captions li").last).to_have_text("hello there", timeout=SOON)
    expect(page.locator(STATE)).to_have_attribute("data-state", "listening", timeout=SOON)


@pytest.mark.parametrize("server", ["waiting"], indirect=True)
def test_a_question_asked_while_the_page_thinks_about_another_takes_its_place(page: Page) -> None:
    start(page, "Push to talk")
    keep_states(page)
    ask(page, "first question")
    expect(page.locator(STATE)).to_have_attribute("data-state", "thinking")
    ask(page, "second question")
    expect(page.locator("#captions li:not(.you)")).to_have_text(["hello there"], timeout=SOON)
    expect(page.locator(STATE)).to_have_attribute("data-state", "listening", timeout=SOON)
    expect(page.locator("#notice")).to_be_hidden()
    states = page.evaluate("window.states")
    assert "listening" not in states[: states.index("speaking")]


def test_an_error_is_shown_as_what_it_is_and_the_session_goes_on(page: Page) -> None:
    start(page)
    ask(page, "x" * 40_000)
    expect(page.locator("#notice")).to_contain_text("characters", timeout=SOON)
    assert "lost" not in page.locator(STATE).inner_text().lower()
    ask(page, "hello")
    expect(page.locator("#captions li").last).to_have_text("hello there", timeout=SOON)
    expect(page.locator("#notice")).to_be_hidden()


def test_after_an_answer_speed_and_mode_still_change_and_the_voice_says_when(page: Page) -> None:
    start(page)
    ask(page, "hello")
    expect(page.locator("#captions li").last).to_have_text("hello there", timeout=SOON)
    expect(page.locator(STATE)).to_have_attribute("data-state", "listening", timeout=SOON)
    expect(page.locator("#voice")).to_be_disabled()
    expect(page.locator("#voice-help")).to_contain_text("Stop")
    page.get_by_label("Push to talk").check()
    page.locator("#speed").fill("1.5")
    ask(page, "hello")
    expect(page.locator("#captions li:not(.you)")).to_have_count(2, timeout=SOON)
    expect(page.locator("#notice")).to_be_hidden()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#voice")).to_be_enabled()


def test_a_tap_on_push_to_talk_asks_nothing(page: Page) -> None:
    start(page, "Push to talk")
    page.get_by_role("button", name="Hold to talk").click(delay=60)
    expect(page.locator("#notice")).to_contain_text("Hold the button")
    expect(page.locator(STATE)).to_have_attribute("data-state", "listening")
    page.wait_for_timeout(1000)
    assert page.locator("#captions li").count() == 0


def test_a_button_that_is_held_when_the_session_ends_is_not_held_in_the_next(page: Page) -> None:
    talk = page.locator("#talk")
    start(page, "Push to talk")
    page.keyboard.down("Space")
    expect(talk).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Stop").click()
    page.keyboard.up("Space")
    sent: list[str] = []
    page.on("websocket", lambda one: one.on("framesent", lambda frame: sent.append(str(frame))))
    start(page, "Push to talk")
    expect(talk).to_have_attribute("aria-pressed", "false")
    page.wait_for_timeout(500)
    assert any("session.update" in frame for frame in sent)
    assert not any("input_audio_buffer.append" in frame for frame in sent)


@pytest.mark.parametrize("rate", [44_100, 22_050, 96_000])
def test_the_page_runs_at_the_rate_of_the_device(page: Page, rate: int) -> None:
    page.evaluate(
        """rate => {
          const Native = window.AudioContext;
          window.rates = [];
          window.AudioContext = class extends Native {
            constructor(options) {
              super({ sampleRate: rate, ...options });
              window.rates.push(this.sampleRate);
            }
          };
        }""",
        rate,
    )
    start(page)
    keep_states(page)
    ask(page, "hello")
    page.wait_for_function("window.states.includes('speaking')", timeout=SOON)
    expect(page.locator(STATE)).to_have_attribute("data-state", "listening", timeout=SOON)
    expect(page.locator("#notice")).to_be_hidden()
    assert page.evaluate("window.rates") == [rate]


def test_a_page_that_is_not_secure_says_what_it_needs(browser: Browser, server: PageServer) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script("Object.defineProperty(window, 'isSecureContext', { value: false })")
    page.goto(server.url)
    expect(page.locator(STATE)).to_contain_text(re.compile("https.*localhost"))
    page.get_by_role("button", name="Start").click()
    expect(page.locator(STATE)).to_have_attribute("data-state", "refused")
    keep_screenshot(page, "needs-https")
    context.close()


def test_the_meter_of_the_answer_falls_back_when_it_has_been_heard(page: Page) -> None:
    page.evaluate(
        """() => {
          const meter = document.querySelector("#level-out");
          window.highest = 0;
          new MutationObserver(() => { window.highest = Math.max(window.highest, meter.value); })
            .observe(meter, { attributes: true });
        }"""
    )
    start(page)
    ask(page, "hello")
    expect(page.locator("#captions li").last).to_have_text("hello there", timeout=SOON)
    expect(page.locator(STATE)).to_have_attribute("data-state", "listening", timeout=SOON)
    assert page.evaluate("window.highest") > 0.1
    expect(page.locator("#level-out")).to_have_js_property("value", 0)


def test_sound_that_stopped_while_the_page_was_hidden_comes_back_when_it_is_seen(
    page: Page,
) -> None:
    keep_context(page)
    start(page)
    page.evaluate(
        """() => {
          window.seen = (hidden) => {
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
          };
          window.seen(true);
          window.context.suspend();
        }"""
    )
    expect(page.locator(STATE)).to_have_attribute("data-state", "paused")
    page.evaluate("window.seen(false)")
    expect(page.locator(STATE)).to_have_attribute("data-state", "listening", timeout=SOON)


def test_an_unplugged_microphone_is_told(page: Page) -> None:
    page.evaluate(
        """() => {
          const devices = navigator.mediaDevices;
          const native = devices.getUserMedia.bind(devices);
          devices.getUserMedia = async (...args) => (window.stream = await native(...args));
        }"""
    )
    start(page)
    page.evaluate("window.stream.getTracks()[0].dispatchEvent(new Event('ended'))")
    expect(page.locator(STATE)).to_contain_text("unplugged")
    expect(page.get_by_role("button", name="Start")).to_be_enabled()


def keep_context(page: Page) -> None:
    """Have the page's audio context be `window.context`."""
    page.evaluate(
        """() => {
          const Native = window.AudioContext;
          window.AudioContext = class extends Native {
            constructor(options) { super(options); window.context = this; }
          };
        }"""
    )


def test_sound_that_the_browser_stops_comes_back_with_a_tap(page: Page) -> None:
    keep_context(page)
    start(page)
    page.evaluate("window.context.suspend()")
    expect(page.locator(STATE)).to_have_attribute("data-state", "paused")
    page.locator("h1").click()
    expect(page.locator(STATE)).to_have_attribute("data-state", "listening", timeout=SOON)
