"""The page's playback, in node: what it reports of an answer that it is given piece by piece."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from javascript import NODE

PLAYBACK = Path(__file__).resolve().parents[2] / "clients" / "web" / "worklets" / "playback.js"
# A browser's audio thread, as far as playback sees it. `run` gives it a message or plays a block.
BROWSER = """
const reports = [];
globalThis.sampleRate = 48000;
globalThis.currentTime = 0;
globalThis.AudioWorkletProcessor = class {
  port = { postMessage: (report) => reports.push(report) };
};
globalThis.registerProcessor = (_, Kind) => { globalThis.playback = new Kind(); };
require("node:vm").runInThisContext(require("node:fs").readFileSync(process.argv[1], "utf8"));
const said = (kind, more) => playback.port.onmessage({ data: { kind, item: "answer", ...more } });
const sound = (count) => said("samples", { samples: new Float32Array(count).fill(0.5) });
const played = () => playback.process([], [[new Float32Array(128)]]);
"""
ENOUGH = 2944  # samples, of 23 blocks: playback begins with 60 ms

pytestmark = pytest.mark.skipif(shutil.which(NODE) is None, reason="needs node")


def reports(script: str) -> list[dict[str, Any]]:
    """What playback tells the page but for how far it is."""
    command = [NODE, "-e", f"{BROWSER}{script}\nconsole.log(JSON.stringify(reports));", PLAYBACK]
    told = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    return [report for report in told if report["kind"] != "playing"]


@pytest.mark.parametrize("blocks", [1, 24])
def test_an_answer_is_finished_whether_its_end_comes_before_its_last_sound_or_after_it(
    blocks: int,
) -> None:
    told = reports(f"""
        said("begin");
        sound({ENOUGH});
        for (let n = 0; n < {blocks}; n++) played();
        said("end");
        for (let n = 0; n < 30; n++) played();
    """)
    assert [report["kind"] for report in told] == ["started", "finished"]
    assert (told[-1]["played"], told[-1]["gaps"]) == (ENOUGH, 0)


def test_a_gap_is_counted_when_more_sound_comes_after_it() -> None:
    told = reports(f"""
        said("begin");
        sound({ENOUGH});
        for (let n = 0; n < 30; n++) played();
        sound({ENOUGH});
        said("end");
        for (let n = 0; n < 30; n++) played();
    """)
    assert [report["kind"] for report in told] == ["started", "finished"]
    assert (told[-1]["played"], told[-1]["gaps"]) == (2 * ENOUGH, 1)
