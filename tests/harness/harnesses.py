"""`make harness`: other people's harnesses against `aqaa serve` with nano; writes docs/harness.md.

    PYTHONPATH=tests/support python tests/harness/harnesses.py PYTHON

PYTHON is the interpreter of the environment that has the packages which ours cannot hold. What they
wrote themselves is kept in build/harness. Ends with 1 if one of them could not run to its end.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
import soundfile
from bench_tables import markdown
from question_sets import (
    BBA_SPEED,
    Clip,
    clips,
    write_big_bench_audio,
    write_clips,
    write_voicebench,
)
from recorded_questions import Sound
from serving import serving

from aqaa.clients.client import WIRE_RATE, realtime_url
from aqaa.clients.detection import TurnDetectionKind
from aqaa.clients.replay import INPUT, OUTPUT

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = ROOT / "build" / "harness" / "work"
PAGE = ROOT / "docs" / "harness.md"
BEGIN, END = "<!-- Written by make harness. -->\n", "<!-- Here the results end. -->\n"
LIMIT = 600  # seconds for a harness; the longest takes about two minutes
HEARD = 0.01  # of full scale, the mean of FRAME_SECONDS from which sound is heard
FRAME_SECONDS = 0.02
WORD_GAP = 0.5  # seconds of silence from which an answer has stopped, and not only paused


def run(command: Sequence[str | Path], log: Path, **environment: str) -> int:
    """The exit status; what it printed is in `log`.

    Raises:
        subprocess.TimeoutExpired: it took longer than `LIMIT`.
    """
    with log.open("wb") as out:
        return subprocess.run(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            timeout=LIMIT,
            check=False,
        ).returncode


def voicebench(base: str) -> str:
    """voicebench's report of the scenario.

    Raises:
        RuntimeError: it could not run to its end.
    """
    scenario = write_voicebench(WORK / "voicebench")
    out = WORK / "voicebench" / "report"
    log = WORK / "voicebench.log"
    program = [sys.executable, "-m", "voicebench", "run", scenario, "--out", out]
    path = f"{HERE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    if run([*program, "--url", realtime_url(base, "nano")], log, PYTHONPATH=path) not in (0, 1):
        raise RuntimeError(log.read_text(encoding="utf-8")[-2000:])
    return voicebench_tables(json.loads((out / "report.json").read_text(encoding="utf-8")))


def voicebench_tables(report: Mapping[str, Any]) -> str:
    """What it says of each turn and of all."""
    (session,) = report["sessions"]
    turns = [
        [
            turn["id"],
            turn["expect"],
            *(_cell(turn[key]) for key in ("response_latency_ms", "ttfa_ms", "stop_latency_ms")),
            "pass" if turn["passed"] else f"fail: {'; '.join(turn['notes'])}",
        ]
        for turn in session["turns"]
    ]
    head = ("turn", "expected", "latency, ms", "first audio, ms", "stopped, ms", "its verdict")
    total = report["summary"]
    wrong = total["mean_wer"]
    said = (
        f"{total['turns_passed']} of {total['turns']} turns passed; latency p50 "
        f"{_cell(total['response_latency_ms']['p50'])} ms, p90 "
        f"{_cell(total['response_latency_ms']['p90'])} ms; missed responses "
        f"{total['missed_responses']}, false barge-ins {total['false_barge_ins']} of "
        f"{total['noise_turns']}, talk-over {_cell(total['talk_over_ms'])} ms, word error rate "
        f"{_cell(wrong if wrong is None else 100 * wrong)} %."
    )
    return f"{said}\n\n{markdown(head, turns)}"


def big_bench_audio(base: str, python: str) -> str:
    """speech-to-speech's report of the questions.

    Raises:
        RuntimeError: it could not run to its end.
    """
    manifest, hub = write_big_bench_audio(WORK / "big_bench_audio")
    out = WORK / "big_bench_audio" / "report.json"
    log = WORK / "big_bench_audio.log"
    program = [python, "-m", "speech_to_speech.evals.big_bench_audio", "run", "--subset", manifest]
    options = ["--speed", str(BBA_SPEED), "--trailing-silence-ms", "4000", "--out", out]
    run(
        [*program, *options, "--url", realtime_url(base, "nano")],
        log,
        HF_HUB_CACHE=str(hub),
        HF_HUB_OFFLINE="1",
        PYTHONPATH="",
    )
    if not out.is_file():
        raise RuntimeError(log.read_text(encoding="utf-8")[-2000:])
    return big_bench_audio_tables(json.loads(out.read_text(encoding="utf-8")))


def big_bench_audio_tables(report: Mapping[str, Any]) -> str:
    """What it says of each question and of all."""
    rows = [
        [
            str(item["id"]),
            item["official_answer"],
            _cell(item["extracted"]),
            _cell(item["ttfb_s"] and 1000 * item["ttfb_s"]),
            item["reply"],
            _cell(item["error"]),
        ]
        for item in report["items"]
    ]
    total = report["totals"]
    said = f"{total['correct']} of {total['n']} correct, {total['errors']} errors."
    head = ("item", "answer", "understood", "first audio, ms", "reply", "error")
    return f"{said}\n\n{markdown(head, rows)}"


def full_duplex(base: str) -> str:
    """When the assistant was heard in each clip's output.wav, by the turn detection asked for.

    Raises:
        RuntimeError: a clip was not replayed to its end.
    """
    rows = [row for detection in get_args(TurnDetectionKind) for row in _replayed(base, detection)]
    head = ("clip", "detection", "spoke early", "latency, ms", "stopped, ms", "answered again, ms")
    return markdown(head, rows)


def _replayed(base: str, detection: str) -> list[list[str]]:
    folder, log = WORK / "full_duplex" / detection, WORK / f"full_duplex_{detection}.log"
    write_clips(folder)
    program = [sys.executable, "-m", "aqaa.clients.replay", folder, "--url", base]
    if run([*program, "--detection", detection], log) != 0:
        raise RuntimeError(log.read_text(encoding="utf-8")[-2000:])
    rows = []
    for name, clip in clips().items():
        said, _ = soundfile.read(folder / name / INPUT, dtype="float32")
        heard, rate = soundfile.read(folder / name / OUTPUT, dtype="float32")
        if (heard.size, rate) != (said.size, WIRE_RATE):
            raise RuntimeError(f"{name}: {OUTPUT} is not as long as {INPUT}")
        rows.append([name, detection, *(_cell(value) for value in heard_in(clip, heard))])
    return rows


def heard_in(clip: Clip, heard: Sound) -> tuple[object, object, object, object]:
    """Of what was heard in `clip`: whether it began before the question's end; milliseconds from
    that to the first sound; from the user's cutting in to silence; from that to sound again.
    """
    frame = round(WIRE_RATE * FRAME_SECONDS)
    count = heard.size // frame
    loud = np.abs(heard[: count * frame]).reshape(count, frame).mean(axis=1) > HEARD
    end = round(clip.question_end / FRAME_SECONDS)
    early = "yes" if loud[:end].any() else "no"
    latency = _until(loud[end:])
    if clip.cut_in is None:
        return early, latency, None, None
    at, half = round(clip.cut_in / FRAME_SECONDS), round(WORD_GAP / FRAME_SECONDS)
    after = loud[at:]
    if not loud[at - half : at].any():
        return early, latency, "was silent", _until(after)
    quiet = np.convolve(after, np.ones(half), mode="valid") == 0
    stopped = _until(quiet)
    again = None if stopped is None else _until(after[round(stopped / 1000 / FRAME_SECONDS) :])
    return early, latency, stopped, again


def _until(flags: np.ndarray[Any, np.dtype[np.bool_]]) -> float | None:
    """Milliseconds to the first of `flags`."""
    return 1000 * FRAME_SECONDS * int(flags.argmax()) if flags.any() else None


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def written(page: str, results: str) -> str:
    """`page` with these results."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{results}\n{END}{after}"


def main(python: str) -> int:
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    parts: dict[str, Callable[[str], str]] = {
        f"voicebench {version('voicebench')}": voicebench,
        "speech_to_speech.evals.big_bench_audio": lambda base: big_bench_audio(base, python),
        "Full-Duplex-Bench's folders, `python -m aqaa.clients.replay`": full_duplex,
    }
    sections, failed = [], []
    with serving(WORK / "serve.log") as base:
        for title, part in parts.items():
            print(f"== {title}", flush=True)
            try:
                found = part(base)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                failed.append(title)
                found = f"It did not run to its end:\n\n```\n{error}\n```"
            print(found, flush=True)
            sections.append(f"### {title}\n\n{found}\n")
    results = f"_{datetime.date.today()}, {os.cpu_count()} cores_\n\n" + "\n".join(sections)
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
