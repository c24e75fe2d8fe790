"""`aqaa eval --url`: a running server is asked a set by voice, and judged by the ear of an ASR."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from serving import AQAA, Question


def test_a_server_is_asked_a_set_and_judged_by_ability(
    server: str, question: Question, tmp_path: Path
) -> None:
    shutil.copy(question.path, tmp_path)
    turn = {"audio": Path(question.path).name, "text": question.text}
    right = [[word] for word in question.words]
    rows = [
        {"id": "right", "ability": "understanding", "turns": [turn | {"right": right}]},
        {"id": "wrong", "ability": "logic", "turns": [turn | {"right": [["xylophone"]]}]},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    done = subprocess.run(
        [AQAA, "eval", "--url", server, "--set", tmp_path, "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    scores = {score["ability"]: score["mean"] for score in found["abilities"]}
    assert scores == {"understanding": 1.0, "logic": 0.0, "all": 0.5}
    assert all(turn["heard_after"] > 0 for turn in found["turns"])
