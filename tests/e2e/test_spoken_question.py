"""The main job: a recorded question is streamed in, in real time, and its answer is heard."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import soundfile
from ears import hear, mentions
from serving import AQAA, Question


def test_ask_answers_a_recorded_question_by_the_ear_of_an_asr(
    server: str, question: Question, tmp_path: Path
) -> None:
    answer = tmp_path / "answer.wav"
    done = subprocess.run(
        [AQAA, "ask", question.path, "-o", answer, "--url", server, "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["status"] == "completed"
    assert mentions(told["transcript"], question.words), told["transcript"]
    wave, rate = soundfile.read(answer, dtype="float32")
    heard = hear(wave, rate)
    assert mentions(heard, question.words), f"asked {question.text!r}, heard {heard!r}"


def test_a_text_only_question_is_answered_without_sound(
    server: str, question: Question, tmp_path: Path
) -> None:
    answer = tmp_path / "answer.wav"
    done = subprocess.run(
        [AQAA, "ask", question.path, "--text", "-o", answer, "--url", server],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert mentions(done.stdout, question.words), done.stdout
    assert not answer.exists()


def test_ask_without_a_server_says_how_to_start_one(question: Question) -> None:
    done = subprocess.run(
        [AQAA, "ask", question.path, "--url", "http://127.0.0.1:9"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "aqaa serve" in done.stderr
    assert "Traceback" not in done.stderr


def test_ask_names_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = subprocess.run(
        [AQAA, "ask", tmp_path / "nothing.wav"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "nothing.wav" in done.stderr
    assert "Traceback" not in done.stderr
