"""The demo page in a real Chromium, with a recording as its microphone."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
import soxr
from chromium import chromium, keep_screenshot
from ears import hear, mentions
from playwright.sync_api import Browser, Page, expect
from serving import Question

pytestmark = pytest.mark.browser
RATE = 48_000
LEAD = 6  # seconds of silence first, so that a slow machine is listening by then
TAP_BLOCK = 4096  # samples
CLOCKS_MS = 150  # the page dates its microphone by what has arrived, the server by what was sent

# Everything that reaches the loudspeaker is also kept, so that the test can hear it.
TAP = """
const connect = AudioNode.prototype.connect;
window.heard = [];
AudioNode.prototype.connect = function (target, ...rest) {
  if (target instanceof AudioDestinationNode && !(this instanceof ScriptProcessorNode)) {
    const tap = this.context.createScriptProcessor(4096, 1, 1);
    tap.onaudioprocess = ({ inputBuffer }) => {
      window.heardRate = inputBuffer.sampleRate;
      window.heard.push(Float32Array.from(inputBuffer.getChannelData(0)));
    };
    connect.call(this, tap);
    connect.call(tap, target);
  }
  return connect.call(this, target, ...rest);
};
"""
TAKE = """() => {
  const all = new Float32Array(window.heard.reduce((n, block) => n + block.length, 0));
  let at = 0;
  for (const block of window.heard) { all.set(block, at); at += block.length; }
  const bytes = new Uint8Array(all.buffer);
  let binary = "";
  for (let i = 0; i < bytes.length; i += 8192) {
    binary += String.fromCharCode(...bytes.subarray(i, i + 8192));
  }
  return [btoa(binary), window.heardRate];
}"""


def microphone(question: Question, folder: Path) -> Path:
    """The question between silences; it starts when the page opens the microphone."""
    wave, native = soundfile.read(question.path, dtype="float32")
    wave = soxr.resample(wave, native, RATE)
    whole = np.concatenate([np.zeros(LEAD * RATE), wave, np.zeros(60 * RATE)])
    path = folder / "microphone.wav"
    soundfile.write(path, whole, RATE, subtype="PCM_16")
    return path


@pytest.fixture
def browser(question: Question, tmp_path: Path) -> Iterator[Browser]:
    with chromium(microphone(question, tmp_path)) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, server: str) -> Iterator[Page]:
    context = browser.new_context(permissions=["microphone"])
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.add_init_script(TAP)
    page.goto(server)
    expect(page.locator("#voice option").first).to_be_attached()
    yield page
    assert errors == []


def loudspeaker(page: Page) -> tuple[np.ndarray, int]:
    """All sound so far; the page counts its gaps itself.

    The tap lies on the page's main thread: when that is late, whole silent blocks come of it.
    """
    data, rate = page.evaluate(TAKE)
    blocks = np.frombuffer(base64.b64decode(data), np.float32).reshape(-1, TAP_BLOCK)
    return blocks[np.abs(blocks).max(axis=1) > 0].reshape(-1), int(rate)


def heard_latency(server: str) -> tuple[float, float]:
    """Answers heard so far, and the seconds in all that they were waited for, by the server."""
    text = httpx.get(f"{server}/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    count, total = (values[f"aqaa_heard_latency_seconds_{name}"] for name in ("count", "sum"))
    return float(count), float(total)


def test_a_spoken_question_is_answered_aloud_and_captioned(
    page: Page, server: str, question: Question
) -> None:
    count, total = heard_latency(server)
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#state")).to_have_attribute("data-state", "speaking", timeout=30_000)
    keep_screenshot(page, "speaking")
    expect(page.locator("#state")).to_have_attribute("data-state", "listening", timeout=30_000)
    keep_screenshot(page, "answered")
    caption = page.locator("#captions li:not(.you)").inner_text()
    assert mentions(caption, question.words), caption
    heard = hear(*loudspeaker(page))
    assert mentions(heard, question.words), heard
    assert page.locator("#turns tr").count() == 1
    shown, unit = page.locator("#turns tr td").nth(1).inner_text().split()
    assert unit == "ms"
    now, seconds = heard_latency(server)
    assert now == count + 1
    assert float(shown) >= (seconds - total) * 1000 - CLOCKS_MS


def test_push_to_talk_answers_aloud_when_the_key_is_released(
    page: Page, question: Question
) -> None:
    page.get_by_label("Push to talk").check()
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#state")).to_have_attribute("data-state", "listening", timeout=15_000)
    page.get_by_role("button", name="Hold to talk").focus()
    page.wait_for_timeout(1000 * (LEAD - 2.5))
    page.keyboard.down("Space")
    page.wait_for_timeout(1000 * (2.5 + soundfile.info(question.path).duration))
    page.keyboard.up("Space")
    expect(page.locator("#captions li:not(.you)").first).to_contain_text(".", timeout=30_000)
    expect(page.locator("#state")).to_have_attribute("data-state", "listening", timeout=30_000)
    heard = hear(*loudspeaker(page))
    assert mentions(heard, question.words), heard


def test_a_typed_question_is_answered(page: Page, question: Question) -> None:
    page.get_by_label("Push to talk").check()
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#state")).to_have_attribute("data-state", "listening", timeout=15_000)
    page.get_by_placeholder("or type a question").fill(question.text)
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#state")).to_have_attribute("data-state", "speaking", timeout=30_000)
    expect(page.locator("#state")).to_have_attribute("data-state", "listening", timeout=30_000)
    assert mentions(page.locator("#captions li:not(.you)").last.inner_text(), question.words)


def test_a_hint_asks_what_stands_on_it(page: Page) -> None:
    page.get_by_label("Push to talk").check()
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#state")).to_have_attribute("data-state", "listening", timeout=15_000)
    page.get_by_role("button", name="What is the capital of France?").click()
    expect(page.locator("#captions li.you")).to_have_text("What is the capital of France?")
    expect(page.locator("#state")).to_have_attribute("data-state", "speaking", timeout=30_000)
    assert mentions(page.locator("#captions li:not(.you)").last.inner_text(), ["paris"])


def test_the_page_fits_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    keep_screenshot(page, "phone")
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 360
    expect(page.get_by_role("button", name="Start")).to_be_in_viewport()
