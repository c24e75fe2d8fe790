"""How calls are judged, and that recordings are read with what they must call."""

import json
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import soundfile

from aqaa.models.bundle import nano_path
from aqaa.models.errors import AudioError
from aqaa.recipe.domain.tools import COFFEE, TOOLS, Call
from aqaa.recipe.evaluate.household import (
    PEOPLE_SAID,
    Heard,
    Spoken,
    between,
    call_markers,
    household_rows,
    listen,
    people_coffee,
    people_commands,
    same_call,
    share_right,
)
from aqaa.recipe.evaluate.pipeline import Pipeline

LATTE = Call("order_coffee", (("coffeeDrink", "latte"), ("size", "twelve ounce")))
FIVE_MINUTES = (("minutes", 5),)
SILENCE = np.zeros(8000, np.float32)
RECORDINGS = Path(__file__).parents[1] / "e2e" / "recordings"


def test_a_call_is_right_with_exactly_its_arguments() -> None:
    assert same_call(LATTE, LATTE.spelt())
    assert same_call(LATTE, LATTE.spelt().replace("latte", "Latte"))
    assert not same_call(LATTE, LATTE.spelt().replace("latte", "mocha"))
    assert not same_call(LATTE, LATTE.spelt().replace("order_coffee", "set_timer"))
    fewer, more = Call(LATTE.name, LATTE.arguments[:1]), (*LATTE.arguments, ("roast", "dark roast"))
    assert not same_call(LATTE, fewer.spelt())
    assert not same_call(LATTE, Call(LATTE.name, more).spelt())
    for broken in (
        "",
        "{",
        "[]",
        '{"name":"order_coffee"}',
        '{"name":"order_coffee","arguments":1}',
    ):
        assert not same_call(LATTE, broken)


def test_truth_is_no_number_and_a_number_may_be_a_string() -> None:
    on = Call("set_light", (("on", True),))
    assert not same_call(on, '{"name":"set_light","arguments":{"on":1}}')
    timer = Call("set_timer", (("minutes", 5),))
    assert same_call(timer, '{"name":"set_timer","arguments":{"minutes":"5"}}')


def test_a_call_stands_between_its_markers() -> None:
    assert between([5, 13, 1, 2, 14, 3], 13, 14) == [1, 2]
    assert between([5, 13, 1, 2], 13, 14) is None
    assert between([5, 1, 2, 14], 13, 14) is None


def test_what_must_not_be_called_is_right_when_nothing_is() -> None:
    nothing = Spoken("Why?", SILENCE, tuple(TOOLS.values()), None)
    assert Heard(nothing, "").right
    assert not Heard(nothing, LATTE.spelt()).right


def test_a_share_has_wilsons_interval() -> None:
    one = Spoken("a latte", SILENCE, (COFFEE,), LATTE)
    heard = [Heard(one, LATTE.spelt())] * 90 + [Heard(one, "")] * 10
    share, half = share_right(heard)
    assert share == pytest.approx(0.9)
    assert half == pytest.approx(0.0596, abs=5e-4)


def test_recordings_come_with_what_they_must_call(tmp_path: Path) -> None:
    for kind in ("coffee", "commands"):
        (tmp_path / kind).mkdir()
        soundfile.write(tmp_path / kind / "one.flac", SILENCE, 16_000)
    slots = {"size": "twelve ounce", "coffeeDrink": "latte"}
    (tmp_path / "coffee.json").write_text(json.dumps([{"file": "one.flac", "slots": slots}]))
    (tmp_path / "commands.tsv").write_text("file\ttranscript\none.flac\twhat time is it\n")

    (order,), (command,) = people_coffee(tmp_path), people_commands(tmp_path)

    assert order.call == LATTE
    assert order.tools == (COFFEE,)
    assert order.wave.shape == SILENCE.shape
    assert command.call == Call("get_time")
    soundfile.write(tmp_path / "coffee" / "one.flac", SILENCE, 8000)
    with pytest.raises(AudioError, match="16000"):
        list(people_coffee(tmp_path))


def test_people_ask_for_tools_that_there_are() -> None:
    for call in PEOPLE_SAID.values():
        assert dict(call.arguments).keys() <= dict(TOOLS[call.name].parameters).keys()


async def test_nano_calls_the_tool_that_is_asked_for() -> None:
    """How often it hears the number is for the evaluation to say, and for nano's card."""
    pipeline = Pipeline(nano_path())
    markers = call_markers(pipeline)
    assert markers is not None
    wave, _ = soundfile.read(RECORDINGS / "set-timer-joe.flac", dtype="float32")
    told = TOOLS["set_timer"], TOOLS["lock_door"]
    timer = Spoken("Set a timer for five minutes.", wave, told, Call("set_timer", FIVE_MINUTES))
    await pipeline.start()
    try:
        (heard,) = await listen(pipeline, [timer], markers)
    finally:
        await pipeline.close()
    call = json.loads(heard.called)
    assert (call["name"], [*call["arguments"]]) == ("set_timer", ["minutes"])


async def test_a_decoder_whose_pieces_have_no_markers_of_calls_has_no_rows(tmp_path: Path) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["What is two plus three?"] * 30),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=30,
        model_type="bpe",
        minloglevel=2,
    )
    pipeline = Pipeline(nano_path())
    decoder = pipeline.bundle.decoder.model_copy(update={"path": tmp_path})
    pipeline.bundle = pipeline.bundle.model_copy(update={"decoder": decoder})
    assert await household_rows(pipeline, None, lambda what: None) == []
