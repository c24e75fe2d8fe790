"""The turn controller with scripted models: turns, speculation, barge-in, what is remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
from live_talk import FakeClock, Talk, speak_and_pause
from scripted import (
    AUDIO,
    CountingTranscriber,
    ScriptedEngine,
    pcm,
    scripted_parts,
    woven,
)

from aqaa.models.errors import EngineBusyError
from aqaa.server.engine.contract import purpose
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.types import Json, Response
from aqaa.server.session.head_start import NO_SLACK_SECONDS, WARM_IDS
from aqaa.server.urgency import Kind


def done(event: server.ServerEvent) -> Response:
    assert isinstance(event, server.ResponseDone)
    return event.response


async def test_a_spoken_turn_is_answered_with_text_and_sound(talk: Talk) -> None:
    await speak_and_pause(talk)
    response = done(await talk.until("response.done"))
    assert response.status == "completed"
    assert response.output[0].model_dump()["content"][0]["transcript"] == "hello there"
    assert len(talk.sound()) == 6 * 0.12 * 24_000 * 2


async def test_the_prompt_holds_the_speech_and_its_prefix_but_not_the_silence_after_it(
    talk: Talk, engine: ScriptedEngine
) -> None:
    await speak_and_pause(talk)
    await talk.until("response.done")
    groups = sum(token >= AUDIO for token in engine.prompts[-1]) // 5
    # 0.1 s of the prefix padding, 1 s of speech, 0.16 s until the pause: 1.26 s.
    assert groups == 10


async def test_the_answer_is_ready_when_the_turn_ends(talk: Talk, engine: ScriptedEngine) -> None:
    await speak_and_pause(talk, silence=0.3)
    await talk.becomes(lambda: len(engine.prompts) == 1 and not engine.running)
    assert "response.created" not in talk.types()
    await talk.say(0.3, loud=False)
    await talk.until("response.done")
    assert len(engine.prompts) == 1
    assert talk.counted("aqaa_speculations_total", outcome="hit") == 1


async def test_an_answer_that_failed_before_it_was_asked_for_is_begun_again(
    talk: Talk, engine: ScriptedEngine
) -> None:
    whole = engine.answer

    def busy_at_first(prompt: Sequence[int]) -> list[int]:
        if len(engine.prompts) == 1:
            raise EngineBusyError("no room just now")
        return whole(prompt)

    engine.answer = busy_at_first
    await speak_and_pause(talk, silence=0.3)
    await talk.becomes(lambda: len(engine.prompts) == 1 and not engine.running)
    await talk.say(0.3, loud=False)
    done = await talk.until("response.done")
    assert done.response.status == "completed"  # type: ignore[union-attr]
    assert talk.counted("aqaa_speculations_total", outcome="failed") == 1


async def test_nothing_is_speculated_on_a_machine_that_has_no_time(
    talk: Talk, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = talk.parts.services.executor
    monkeypatch.setattr(executor, "delay", lambda kind, deadline: 2 * NO_SLACK_SECONDS)
    await speak_and_pause(talk, silence=0.3)
    await talk.becomes(lambda: talk.counted("aqaa_speculations_total", outcome="no_slack") == 1)
    assert engine.prompts == []
    before = [*engine.warmed]
    await talk.say(0.3, loud=False)
    await talk.until("response.done")
    assert len(engine.prompts) == 1
    assert before[-1] == engine.prompts[0], "its prompt was to be read when it was asked for"


async def test_nobody_is_idle_while_the_assistant_speaks(
    talk: Talk, engine: ScriptedEngine
) -> None:
    detection = {"type": "server_vad", "idle_timeout_ms": 5000}
    await talk.send("session.update", session={"audio": {"input": {"turn_detection": detection}}})
    engine.answer = lambda prompt: woven("a long answer", 60)
    engine.gate = asyncio.Event()
    await speak_and_pause(talk)
    await talk.until("response.created")
    await talk.say(7.0, loud=False)  # the answer goes on
    engine.gate.set()
    await talk.until("response.done")
    assert "input_audio_buffer.timeout_triggered" not in talk.types()
    spoken = 0.1 + 1.0 + 0.6 + 7.0
    sound = 60 * 0.12
    await talk.say(sound + 5.5, loud=False)
    timeout = await talk.until("input_audio_buffer.timeout_triggered")
    assert isinstance(timeout, server.InputAudioBufferTimeoutTriggered)
    assert timeout.audio_start_ms >= (spoken + sound - 0.3) * 1000  # from the end of its playing on


async def test_speech_that_goes_on_after_a_pause_is_one_turn(
    talk: Talk, engine: ScriptedEngine
) -> None:
    await speak_and_pause(talk, silence=0.3)
    await talk.becomes(lambda: len(engine.prompts) == 1)
    await talk.say(0.5, loud=True)
    await talk.say(0.6, loud=False)
    await talk.until("response.done")
    assert talk.types().count("input_audio_buffer.committed") == 1
    assert talk.counted("aqaa_speculations_total", outcome="rolled_back") == 1
    assert len(engine.prompts[-1]) > len(engine.prompts[0])


async def test_the_engine_is_warmed_while_the_user_speaks(
    talk: Talk, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds, warm_up = [], engine.warm

    async def noted(session: str, prompt: Sequence[int]) -> int:
        kinds.append(purpose.get()())
        return await warm_up(session, prompt)

    monkeypatch.setattr(engine, "warm", noted)
    await talk.say(0.1, loud=False)
    await talk.say(1.0, loud=True)
    await talk.becomes(lambda: bool(engine.warmed))
    await talk.say(0.6, loud=False)
    await talk.until("response.done")
    assert all(engine.prompts[-1][: len(warm)] == warm for warm in engine.warmed)
    assert set(kinds) == {Kind.SPECULATIVE}, "nobody waits for it yet"


async def test_the_engine_is_warmed_once_a_second_of_a_long_turn(
    talk: Talk, engine: ScriptedEngine
) -> None:
    for _ in range(15):
        await talk.say(0.24, loud=True)
        await asyncio.sleep(0.01)  # it is heard before there is more
    await talk.becomes(lambda: len(engine.warmed) > 2)
    await talk.say(0.6, loud=False)
    await talk.until("response.done")
    sizes = [len(warm) for warm in engine.warmed]
    assert all(later - size >= WARM_IDS for size, later in pairwise(sizes))


async def test_the_usage_tells_what_of_the_prompt_the_engine_had_computed(
    talk: Talk, engine: ScriptedEngine
) -> None:
    engine.reuses = 20
    await speak_and_pause(talk)
    usage = done(await talk.until("response.done")).usage
    assert usage is not None
    cached = usage.input_token_details.cached_tokens_details
    assert usage.input_token_details.cached_tokens == 20
    assert cached.audio_tokens == sum(token >= AUDIO for token in engine.prompts[-1][:20]) > 0
    assert cached.text_tokens == 20 - cached.audio_tokens


async def test_speech_cancels_the_answer_and_nothing_of_it_follows(
    talk: Talk, engine: ScriptedEngine
) -> None:
    engine.answer = lambda prompt: woven("a long answer that is cut", 40)
    engine.seconds = 0.002
    await speak_and_pause(talk)
    await talk.until("response.output_audio.delta", 2)
    await talk.say(0.2, loud=True)
    response = done(await talk.until("response.done"))
    assert response.status == "cancelled"
    assert response.status_details is not None
    assert response.status_details.reason == "turn_detected"
    end = len(talk.events)
    await talk.becomes(lambda: engine.running == 0)
    engine.answer = lambda prompt: woven("the next", 6)
    await talk.say(0.6, loud=False)
    await talk.until("response.done", 2)  # whatever was under way has arrived by now
    later = [x for x in talk.events[end:] if isinstance(x, server.OfResponse)]
    assert {x.response_id for x in later}.isdisjoint({response.id})


async def test_an_interruption_keeps_its_first_syllable(talk: Talk, engine: ScriptedEngine) -> None:
    engine.answer = lambda prompt: woven("a long answer that is cut", 40)
    engine.seconds = 0.002
    await speak_and_pause(talk)
    await talk.until("response.output_audio.delta", 2)
    engine.seconds = 0
    await talk.say(1.0, loud=True)
    await talk.say(0.6, loud=False)
    await talk.until("response.done", 2)
    header = engine.prompts[-1]
    speech = [token for token in header if token >= AUDIO][-10 * 5 :]
    loudness = [token - AUDIO for token in speech[::5]]
    assert sum(code > 100 for code in loudness) >= 8  # 1 s of speech, all of its groups


async def test_the_next_prompt_holds_only_what_was_heard_of_a_cut_answer(
    talk: Talk, engine: ScriptedEngine
) -> None:
    engine.answer = lambda prompt: woven("one two three four five six seven", 40)
    await speak_and_pause(talk)
    await talk.until("response.done")  # all is sent at once; the clock stands still
    talk.clock.now += 0.5  # 4.17 groups are played
    await talk.say(0.2, loud=True)
    await talk.until("input_audio_buffer.speech_started", 2)
    played = talk.clock.now
    await talk.say(0.8, loud=True)
    await talk.say(0.6, loud=False)
    await talk.until("response.done", 2)
    answered = [token for token in engine.prompts[-1] if token >= AUDIO]
    question = [token for token in engine.prompts[0] if token >= AUDIO]
    heard = [code for code in range(40) if AUDIO + code in answered[len(question) :][::5]]
    assert played > 0
    assert 5 <= len(heard) <= 7  # 0.5 s and the 0.1 s until speech was sure, in 120 ms groups


async def test_a_manual_turn_is_answered_when_the_client_asks(
    talk: Talk, engine: ScriptedEngine
) -> None:
    await talk.send("session.update", session={"audio": {"input": {"turn_detection": None}}})
    await talk.say(1.2, loud=True)
    await talk.send("input_audio_buffer.commit")
    await talk.send("response.create")
    assert done(await talk.until("response.done")).status == "completed"
    assert sum(token >= AUDIO for token in engine.prompts[-1]) == 10 * 5
    assert "input_audio_buffer.speech_started" not in talk.types()


async def test_a_text_question_can_have_a_text_answer(talk: Talk) -> None:
    item: Json = {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "hi"}],
    }
    await talk.send("conversation.item.create", item=item)
    await talk.send("response.create", response={"output_modalities": ["text"]})
    await talk.until("response.done")
    assert talk.sound() == b""
    text = [x.text for x in talk.events if isinstance(x, server.ResponseOutputTextDone)]
    assert text == ["hello there"]


async def test_an_engine_that_dies_fails_the_answer_and_spares_the_session(
    talk: Talk, engine: ScriptedEngine
) -> None:
    engine.dies_after = 20
    await speak_and_pause(talk)
    response = done(await talk.until("response.done"))
    assert response.status == "failed"
    assert response.status_details is not None
    assert response.status_details.error is not None
    assert response.status_details.error.code == "engine_died"
    engine.dies_after, engine.alive = None, True
    await talk.send("response.create")
    assert done(await talk.until("response.done", 2)).status == "completed"


async def test_clearing_the_buffer_forgets_who_was_speaking(talk: Talk) -> None:
    await talk.say(1.0, loud=True)
    await talk.until("input_audio_buffer.speech_started")
    await talk.send("input_audio_buffer.clear")
    await talk.say(0.8, loud=False)
    await talk.say(0.2, loud=True)
    await talk.until("input_audio_buffer.speech_started", 2)  # all before it was listened to
    assert "input_audio_buffer.committed" not in talk.types()
    assert "input_audio_buffer.speech_stopped" not in talk.types()


async def test_a_voice_marker_in_the_answer_changes_the_voice(
    talk: Talk, engine: ScriptedEngine
) -> None:
    plain = woven("x", 2)
    engine.answer = lambda prompt: [*plain[:-2], 7, *plain[2:]]
    await speak_and_pause(talk)
    await talk.until("response.done")
    sound = talk.sound()
    assert len(sound) == 4 * 0.12 * 24_000 * 2
    assert sound[: len(sound) // 2] != sound[len(sound) // 2 :]


async def test_a_broken_group_is_counted_and_never_spoken(
    talk: Talk, engine: ScriptedEngine
) -> None:
    legal = woven("x", 2)
    engine.answer = lambda prompt: [*legal[:5], AUDIO + 2000, *legal[5:]]
    await speak_and_pause(talk)
    assert done(await talk.until("response.done")).status == "completed"
    assert talk.counted("aqaa_malformed_groups_total") >= 1


async def test_nothing_is_left_of_a_closed_conversation(engine: ScriptedEngine) -> None:
    engine.seconds = 0.01
    clock = FakeClock()
    talk = Talk(scripted_parts(engine, clock=clock), clock)
    await speak_and_pause(talk)
    await talk.until("response.created")
    await talk.close()
    assert engine.running == 0
    assert "sess_1" in engine.released
    assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []


async def test_odd_chunks_of_bytes_are_the_same_sound(talk: Talk, engine: ScriptedEngine) -> None:
    await talk.send("session.update", session={"audio": {"input": {"turn_detection": None}}})
    data = pcm(1.2, loud=True)
    for begin in range(0, len(data), 1001):
        await talk.append(data[begin : begin + 1001])
    await talk.send("input_audio_buffer.commit")
    await talk.send("response.create")
    await talk.until("response.done")
    assert "error" not in talk.types()
    assert sum(token >= AUDIO for token in engine.prompts[-1]) == 10 * 5


@pytest.mark.parametrize("end", ["clear", "commit"])
async def test_half_a_sample_ends_with_its_buffer(
    talk: Talk, engine: ScriptedEngine, end: str
) -> None:
    await talk.send("session.update", session={"audio": {"input": {"turn_detection": None}}})
    await talk.append(pcm(1.2, loud=True) + b"\x55")
    await talk.send(f"input_audio_buffer.{end}")
    await talk.append(pcm(1.2, loud=True))
    await talk.send("input_audio_buffer.commit")
    await talk.send("response.create")
    await talk.until("response.done")
    newest = [token for token in engine.prompts[-1] if token >= AUDIO][-10 * 5 :]
    assert len(newest) == 10 * 5
    loud = {token - AUDIO for token in newest if token < AUDIO + 1024}
    assert all(200 <= code <= 260 for code in loud), "as loud as it was said"


async def test_what_never_left_the_socket_was_not_heard(talk: Talk) -> None:
    talk.outlet.blocked = True
    await speak_and_pause(talk)
    answer = done(await talk.until("response.done")).output[0].id
    talk.clock.now += 10  # by a clock beside what was queued, the answer is long over
    await talk.say(0.5, loud=True)
    await talk.until("input_audio_buffer.speech_started", count=2)
    assert talk.outlet.dropped == [answer]
    await talk.send("conversation.item.retrieve", item_id=answer)
    item = await talk.until("conversation.item.retrieved")
    assert item.model_dump()["item"]["content"][0]["transcript"] == ""


async def test_a_complete_answer_that_waits_at_the_socket_is_dropped_when_it_is_cancelled(
    talk: Talk,
) -> None:
    talk.outlet.blocked = True
    await speak_and_pause(talk)
    answer = done(await talk.until("response.done")).output[0].id
    await talk.send("response.cancel")
    assert talk.outlet.dropped == [answer]
    assert "error" not in talk.types()


async def test_a_speculation_ends_with_the_answer_that_is_cancelled_before_it_takes_it(
    talk: Talk, engine: ScriptedEngine
) -> None:
    engine.gate = asyncio.Event()  # it is not over by itself
    await speak_and_pause(talk, silence=0.3)
    await talk.becomes(lambda: engine.running == 1)
    talk.at("response.created", lambda: talk.send("response.cancel"))
    await talk.say(0.3, loud=False)
    assert done(await talk.until("response.done")).status == "cancelled"
    await talk.becomes(lambda: engine.running == 0)
    assert talk.counted("aqaa_speculations_total", outcome="abandoned") == 1


async def test_asked_before_anybody_has_said_anything_the_assistant_greets(
    talk: Talk, engine: ScriptedEngine
) -> None:
    await talk.send("response.create")
    assert done(await talk.until("response.done")).status == "completed"
    assert "Hello!" in "".join(map(chr, engine.prompts[-1]))


BY_HAND = {"audio": {"input": {"turn_detection": None}}}
REFUSED = "input_audio_buffer_commit_empty"


def refusals(talk: Talk) -> list[tuple[str | None, str]]:
    return [
        (x.error.code, x.error.message) for x in talk.events if isinstance(x, server.ErrorEvent)
    ]


@pytest.mark.parametrize("session", [BY_HAND, {}], ids=["by hand", "turn detection"])
async def test_silence_that_a_client_commits_is_refused_and_not_answered(
    talk: Talk, engine: ScriptedEngine, session: Json
) -> None:
    await talk.send("session.update", session=session)
    await talk.say(3.0, loud=False)
    await talk.send("input_audio_buffer.commit")
    await talk.send("response.create")
    assert [code for code, _ in refusals(talk)] == [REFUSED, REFUSED]
    assert "nobody speaks in these 3.0 s" in refusals(talk)[0][1]
    assert "nothing to answer" in refusals(talk)[1][1]
    assert "input_audio_buffer.committed" not in talk.types()
    assert engine.prompts == []


async def test_sound_too_short_for_a_word_is_refused(talk: Talk) -> None:
    await talk.send("session.update", session=BY_HAND)
    await talk.say(0.11, loud=True)
    await talk.send("input_audio_buffer.commit")
    assert "too short to hold a word" in refusals(talk)[0][1]


async def test_after_silence_was_refused_a_spoken_question_is_answered_whole(
    talk: Talk, engine: ScriptedEngine
) -> None:
    await talk.send("session.update", session=BY_HAND)
    await talk.say(3.0, loud=False)
    await talk.send("input_audio_buffer.commit")
    await talk.say(1.0, loud=True)
    await talk.send("input_audio_buffer.commit")
    await talk.send("response.create")
    assert done(await talk.until("response.done")).status == "completed"
    groups = sum(token >= AUDIO for token in engine.prompts[-1]) // 5
    assert groups in (
        10,
        11,
    )  # 0.3 s of padding before the speech, and 1 s of it: no 3 s of silence


async def test_after_silence_was_refused_an_answer_with_instructions_of_its_own_is_given(
    talk: Talk,
) -> None:
    await talk.send("session.update", session=BY_HAND)
    await talk.say(1.0, loud=False)
    await talk.send("input_audio_buffer.commit")
    await talk.send("response.create", response={"instructions": "Ask them to say it again."})
    assert done(await talk.until("response.done")).status == "completed"


async def test_a_commit_right_behind_its_sound_waits_until_the_sound_is_heard(talk: Talk) -> None:
    await talk.send("session.update", session=BY_HAND)
    await talk.append(pcm(1.0, loud=True))
    await talk.send("input_audio_buffer.commit")
    assert refusals(talk) == []
    assert "input_audio_buffer.committed" in talk.types()


async def test_silence_that_is_to_be_written_down_is_no_error() -> None:
    clock = FakeClock()
    talk = Talk(
        scripted_parts(clock=clock, transcriber=CountingTranscriber()), clock, "transcription"
    )
    await talk.send("session.update", session={"type": "transcription", **BY_HAND})
    await talk.say(1.0, loud=False)
    await talk.send("input_audio_buffer.commit")
    assert refusals(talk) == []
    await talk.close()
