"""The beta's names, for those who ask for them; what is said in both ways means the same."""

from __future__ import annotations

import pytest
from driven_machine import Driven

from aqaa.server.protocol import client_events as client
from aqaa.server.protocol import effects as fx
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.beta import from_ga, is_beta, to_ga
from aqaa.server.protocol.errors import ProtocolError
from aqaa.server.protocol.types import Json


def said(driven: Driven, message: Json) -> list[Json]:
    outputs = driven.take(driven.machine.on_client(client.parse_client_event(to_ga(message))))
    return in_beta(outputs)


def in_beta(outputs: list[object]) -> list[Json]:
    events = [from_ga(o.model_dump()) for o in outputs if isinstance(o, server.FromServer)]
    return [event for event in events if event is not None]


def test_the_header_decides() -> None:
    assert is_beta({"openai-beta": "realtime=v1"})
    assert not is_beta({})


def test_a_flat_session_is_understood_and_given_back_flat() -> None:
    flat: Json = {
        "modalities": ["text", "audio"],
        "instructions": "be brief",
        "voice": "amy",
        "input_audio_format": "g711_ulaw",
        "output_audio_format": "pcm16",
        "turn_detection": {"type": "server_vad", "threshold": 0.7},
        "max_response_output_tokens": 100,
        "temperature": 0.8,
    }
    (updated,) = said(Driven(), {"type": "session.update", "session": flat})
    session = updated["session"]
    assert session["turn_detection"]["threshold"] == 0.7
    kept = {k: v for k, v in flat.items() if k not in ("turn_detection", "temperature")}
    assert {key: session[key] for key in kept} == kept


def test_the_users_words_are_asked_for_flat_and_told_after_the_item() -> None:
    driven = Driven()
    asked = {"model": "whisper-1"}
    (updated,) = said(
        driven, {"type": "session.update", "session": {"input_audio_transcription": asked}}
    )
    assert updated["session"]["input_audio_transcription"] == asked
    driven.happen(fx.SpeechStarted(100))
    events = in_beta([*driven.happen(fx.SpeechStopped(900, (7,)))])
    (created,) = [event for event in events if event["type"] == "conversation.item.created"]
    item_id = created["item"]["id"]
    (told,) = in_beta([*driven.happen(fx.UserWordsEnded(item_id, "hi", (("hi", -0.1),), 0.8))])
    assert told["type"] == "conversation.item.input_audio_transcription.completed"
    assert (told["item_id"], told["transcript"]) == (item_id, "hi")


def test_an_item_is_created_once_and_not_added_and_done() -> None:
    item = {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "hi"}]}
    (created,) = said(Driven(), {"type": "conversation.item.create", "item": item})
    assert created["type"] == "conversation.item.created"
    assert created["item"]["content"] == [{"type": "text", "text": "hi"}]


def test_an_answer_is_told_in_the_betas_names() -> None:
    driven = Driven()
    said(driven, {"type": "response.create", "response": {"modalities": ["text", "audio"]}})
    run = driven.runs[-1].response_id
    events = in_beta([*driven.happen(fx.RunText(run, "hi", 1, 0))])
    events += in_beta([*driven.happen(fx.RunSound(run, bytes(480), 5))])
    events += in_beta([*driven.happen(fx.RunEnded(run, "completed"))])
    names = [event["type"] for event in events]
    assert "response.audio.delta" in names
    assert "response.audio_transcript.done" in names
    assert not any("output_audio" in name for name in names)
    assert events[-1]["response"]["output"][0]["content"][0]["type"] == "audio"


@pytest.mark.parametrize("part", ["session", "response"])
@pytest.mark.parametrize("name", ["pcm24", "", 7, [], {}, {"type": "audio/pcm"}, ["pcm16"]])
def test_a_format_that_there_is_not_is_told_with_those_that_there_are(
    part: str, name: object
) -> None:
    """One that is no string ended the session; an unknown name left the format as it was."""
    with pytest.raises(ProtocolError, match=r"pcm16, g711_ulaw, g711_alaw") as refused:
        to_ga({"type": f"{part}.update", part: {"output_audio_format": name}})
    assert refused.value.param == f"{part}.output_audio_format"


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({"turn_detection": {"threshold": 7}}, "session.turn_detection.threshold"),
        ({"voice": "nobody"}, "session.voice"),
        ({"max_response_output_tokens": 0}, "session.max_response_output_tokens"),
        ({"input_audio_transcription": {"model": 5}}, "session.input_audio_transcription.model"),
        ({"instrucions": "be brief"}, "session.instrucions"),
    ],
)
def test_an_error_names_what_the_client_wrote(session: Json, param: str) -> None:
    (told,) = said(Driven(), {"type": "session.update", "session": session})
    assert told["error"]["param"] == param
    assert param in told["error"]["message"] or "nobody" in told["error"]["message"]


def test_no_setting_of_the_beta_is_lost() -> None:
    quieter = {"type": "far_field"}
    ga = to_ga({"type": "session.update", "session": {"input_audio_noise_reduction": quieter}})
    assert ga["session"]["audio"]["input"]["noise_reduction"] == quieter
    ga = to_ga({"type": "response.create", "response": {"max_response_output_tokens": 9}})
    assert ga["response"]["max_output_tokens"] == 9


def test_what_a_client_says_in_ga_names_is_heard_beside_the_betas() -> None:
    mixed: Json = {"audio": {"output": {"speed": 1.5}}, "voice": "amy"}
    ga = to_ga({"type": "session.update", "session": mixed})
    assert ga["session"] == {"audio": {"output": {"speed": 1.5, "voice": "amy"}}}
    assert mixed == {"audio": {"output": {"speed": 1.5}}, "voice": "amy"}
    assert to_ga({"session": {"audio": 5, "voice": "amy"}})["session"]["audio"] == {
        "output": {"voice": "amy"}
    }


def test_a_users_part_is_called_in_an_error_what_the_client_called_it() -> None:
    message = {"type": "message", "role": "user", "content": [{"type": "text", "text": "hi"}]}
    with pytest.raises(ProtocolError, match="'text' is none of 'input_text'") as refused:
        client.parse_client_event(to_ga({"type": "conversation.item.create", "item": message}))
    assert refused.value.param == "item.content.0.type"
