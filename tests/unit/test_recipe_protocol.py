"""Sets of questions, judges and the report by ability."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from aqaa.models.errors import ConnectionLostError, InputError
from aqaa.recipe.evaluate.judge_model import ModelJudge, mark
from aqaa.recipe.evaluate.protocol import (
    Asked,
    RuleJudge,
    Verdict,
    as_json,
    as_table,
    ask_rows,
    by_ability,
    plot,
    read_set,
    recording,
)

ROW = {
    "id": "capital",
    "ability": "understanding",
    "turns": [{"audio": "one.flac", "text": "Capital of France?", "right": [["paris", "parris"]]}],
}


def a_set(folder: Path, *rows: object) -> Path:
    soundfile.write(folder / "one.flac", np.zeros(1600, np.float32), 16_000)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(text)
    return folder


def a_verdict(ability: str, score: float) -> Verdict:
    return Verdict("row", ability, "asked", "written", "heard", score, 0.5)


def test_a_set_is_read_with_what_must_be_heard(tmp_path: Path) -> None:
    (row,) = read_set(a_set(tmp_path, ROW))
    assert row.turns[0].right == (("paris", "parris"),)
    assert recording(tmp_path / "one.flac").size == 2400  # 24 kHz


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ability": "cooking"}, "ability"),
        ({"turns": []}, "turns"),
        ({"turns": [{"audio": "two.flac"}]}, "two.flac"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_set_of_another_shape_is_refused_with_its_line(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    with pytest.raises(InputError, match=rf"line 2: .*{says}"):
        read_set(a_set(tmp_path, ROW, ROW | change))


def test_a_folder_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rows\.jsonl"):
        read_set(tmp_path)


async def test_a_set_without_anything_right_needs_a_judge(tmp_path: Path) -> None:
    rows = read_set(a_set(tmp_path, ROW | {"turns": [{"audio": "one.flac"}]}))
    with pytest.raises(InputError, match="judge"):
        await ask_rows("http://127.0.0.1:9", tmp_path, rows, RuleJudge())


async def test_by_rule_the_words_must_be_heard_whatever_was_written() -> None:
    asked = Asked(audio="one.flac", right=(("paris",),))
    assert await RuleJudge().score(asked, "It is Paris.", "") == 1.0
    assert await RuleJudge().score(asked, "It is Perris.", "It is Paris.") == 0.0


def test_a_mark_is_a_share_and_no_mark_is_an_error() -> None:
    assert [mark(said) for said in ("1", "Mark: 3.", "5/5")] == [0.0, 0.5, 1.0]
    with pytest.raises(ConnectionLostError, match="no mark"):
        mark("excellent")


async def test_a_judge_that_is_not_there_is_named() -> None:
    judge = ModelJudge("http://127.0.0.1:9/v1")
    with pytest.raises(ConnectionLostError, match=r"127\.0\.0\.1:9/v1/chat"):
        await judge.score(Asked(audio="one.flac", text="Why?"), "Because.", "")


def test_the_report_has_every_ability_asked_for_and_all(tmp_path: Path) -> None:
    verdicts = [a_verdict("logic", 1.0)] * 3 + [a_verdict("logic", 0.0), a_verdict("gaming", 1.0)]
    scores = by_ability(verdicts)
    assert [(s.ability, s.mean, s.n) for s in scores] == [
        ("logic", 0.75, 4), ("gaming", 1.0, 1), ("all", 0.8, 5),
    ]  # fmt: skip
    assert "| logic | 75.0% ± " in as_table(scores)
    assert json.loads(as_json(scores, verdicts))["turns"][3]["score"] == 0.0
    plot(scores, tmp_path / "abilities.png")
    assert (tmp_path / "abilities.png").stat().st_size > 1000
