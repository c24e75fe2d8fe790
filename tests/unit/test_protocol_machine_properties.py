"""Whatever clients send and whatever happens inside, the server speaks legal Realtime."""

from __future__ import annotations

import base64
from collections.abc import Callable

from driven_machine import Driven
from hypothesis import given, settings
from hypothesis import strategies as st

from aqaa.server.protocol import effects as fx
from aqaa.server.protocol.types import Json

SECOND = base64.b64encode(bytes(48_000)).decode()
PICK = st.integers(min_value=0, max_value=7)
DETECTION = st.sampled_from(
    [
        None,
        {"type": "server_vad"},
        {"type": "server_vad", "interrupt_response": False},
        {"type": "server_vad", "create_response": False},
        {"type": "semantic_vad", "eagerness": "high"},
    ]
)
ITEM = st.sampled_from(
    [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": SECOND}]},
        {"type": "function_call_output", "call_id": "c", "output": "4"},
    ]
)


Action = Callable[[Driven], object]


def client(message: Json) -> Action:
    return lambda driven: driven.send(message)


def about_item(kind: str, pick: int, **more: object) -> Action:
    return lambda driven: driven.send({"type": kind, "item_id": driven.item(pick), **more})


def happened(given_input: fx.Input) -> Action:
    return lambda driven: driven.happen(given_input)


def run_input(make: Callable[[str], fx.Input], pick: int) -> Action:
    """Also for runs that are long over: the driver may lag behind the machine."""
    return lambda driven: driven.happen(make(driven.response(pick)))


def item_input(make: Callable[[str], fx.Input], pick: int) -> Action:
    """Also for items that have no sound, have their words already, or are gone."""
    return lambda driven: driven.happen(make(driven.item(pick)))


def after(pick: int, item: Json) -> Action:
    return lambda driven: driven.send(
        {"type": "conversation.item.create", "previous_item_id": driven.item(pick), "item": item}
    )


ACTIONS: st.SearchStrategy[Action] = st.one_of(
    st.just(client({"type": "input_audio_buffer.append", "audio": SECOND})),
    st.just(client({"type": "input_audio_buffer.commit"})),
    st.just(client({"type": "input_audio_buffer.clear"})),
    st.just(client({"type": "output_audio_buffer.clear"})),
    st.builds(
        lambda d: client(
            {"type": "session.update", "session": {"audio": {"input": {"turn_detection": d}}}}
        ),
        DETECTION,
    ),
    st.builds(
        lambda v: client(
            {"type": "session.update", "session": {"audio": {"output": {"voice": v}}}}
        ),
        st.sampled_from(["amy", "alloy", "nobody"]),
    ),
    st.builds(
        lambda t: client(
            {"type": "session.update", "session": {"audio": {"input": {"transcription": t}}}}
        ),
        st.sampled_from([None, {"model": "whisper-1"}]),
    ),
    st.builds(item_input, st.just(lambda i: fx.UserWords(i, (("word", -1.0),))), PICK),
    st.builds(item_input, st.just(lambda i: fx.UserWordsEnded(i, "word", (), 1.0)), PICK),
    st.builds(item_input, st.just(fx.UserWordsFailed), PICK),
    st.builds(lambda item: client({"type": "conversation.item.create", "item": item}), ITEM),
    st.builds(after, PICK, ITEM),
    st.builds(about_item, st.just("conversation.item.retrieve"), PICK),
    st.builds(about_item, st.just("conversation.item.delete"), PICK),
    st.builds(
        lambda pick, ms: about_item("conversation.item.truncate", pick, audio_end_ms=ms),
        PICK,
        st.sampled_from([0, 60, 9999]),
    ),
    st.just(client({"type": "response.create"})),
    st.just(client({"type": "response.create", "response": {"output_modalities": ["text"]}})),
    st.just(client({"type": "response.create", "response": {"conversation": "none", "input": []}})),
    st.just(client({"type": "response.cancel"})),
    st.builds(
        lambda pick: (
            lambda driven: driven.send(
                {"type": "response.cancel", "response_id": driven.response(pick)}
            )
        ),
        PICK,
    ),
    st.just(happened(fx.SpeechStarted(0))),
    st.just(happened(fx.SpeechResumed(0))),
    st.just(happened(fx.SpeechStopped(900, (7,)))),
    st.just(happened(fx.SpeechStopped(900, (7,), nothing=True))),
    st.just(happened(fx.IdleTimedOut(0, 900, (7,)))),
    st.builds(run_input, st.just(lambda r: fx.RunStarted(r, 3, 40, 2, 20)), PICK),
    st.builds(run_input, st.just(lambda r: fx.RunText(r, "word ", 1, 0)), PICK),
    st.builds(run_input, st.just(lambda r: fx.RunSound(r, bytes(5760), 5)), PICK),
    st.builds(run_input, st.just(lambda r: fx.RunEnded(r, "completed")), PICK),
    st.builds(run_input, st.just(lambda r: fx.RunEnded(r, "failed", "engine_died")), PICK),
    st.builds(run_input, st.just(lambda r: fx.RunEnded(r, "max_output_tokens")), PICK),
)


@given(actions=st.lists(ACTIONS, max_size=40), items=st.sampled_from([3, 512]))
@settings(max_examples=400)
def test_any_history_gives_a_legal_sequence_and_one_done_for_each_response(
    actions: list[Action], items: int
) -> None:
    driven = Driven(items)
    for action in actions:
        action(driven)
    for run in list(driven.runs):
        driven.happen(fx.RunEnded(run.response_id, "completed"))
    for run in driven.runs:  # an answer that waited for its turn may have begun just now
        driven.happen(fx.RunEnded(run.response_id, "completed"))
    assert not driven.machine.answering()
    assert set(driven.reader.done.values()) <= {1}
    assert set(driven.reader.done) == {run.response_id for run in driven.runs}


@given(actions=st.lists(ACTIONS, max_size=40))
@settings(max_examples=100)
def test_nothing_is_said_about_a_response_after_its_end(actions: list[Action]) -> None:
    driven = Driven()
    for action in actions:
        action(driven)
    for run in driven.runs:
        driven.happen(fx.RunEnded(run.response_id, "completed"))
    late = [
        driven.machine.on_input(fx.RunSound(run.response_id, bytes(480), 5))
        for run in driven.runs
        if driven.reader.done[run.response_id]
    ]
    assert not any(late)


@given(actions=st.lists(ACTIONS, max_size=60))
@settings(max_examples=100)
def test_the_conversation_never_outgrows_its_limit(actions: list[Action]) -> None:
    driven = Driven(items=3)
    for action in actions:
        action(driven)
        assert len(driven.reader.order) <= 3
