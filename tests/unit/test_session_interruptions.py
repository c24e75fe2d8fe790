"""Speech into an answer: what interrupts it, and what it goes on through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
from live_talk import FakeClock, Talk, speak_and_pause
from scripted import (
    AUDIO,
    ScriptedEngine,
    ScriptedJudge,
    ScriptedListener,
    scripted_parts,
    woven,
)

from aqaa.server.audio.wire import AudioFormat, decode
from aqaa.server.engine.contract import SamplingParams
from aqaa.server.hearing.end_of_turn import Judge
from aqaa.server.hearing.interruption import Kinds
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.types import Json, Message, OutputSound
from aqaa.server.session.ducking import GAIN, LONGEST_SECONDS

SEMANTIC: Json = {"type": "semantic_vad", "eagerness": "high"}
WIRE = AudioFormat("pcm16", 24_000)
ANSWER = 40  # groups: 4.8 s
STARTED = "input_audio_buffer.speech_started"


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    talk = await answering(SEMANTIC)
    yield talk
    await talk.close()


def rest_of_answer(prompt: Sequence[int]) -> list[int]:
    """The model's whole answer, or the rest of it if the prompt ends with its beginning."""
    whole = woven("an answer that takes a while", ANSWER)
    known = (n for n in range(len(whole) - 1, 0, -1) if tuple(prompt[-n:]) == tuple(whole[:n]))
    return whole[next(known, 0) :]


async def answering(
    detection: Json, judge: Judge | None = None, extensions: Sequence[str] = ("interruptions",)
) -> Talk:
    """A conversation whose answer is made and is being played, past when its turn may go on."""
    engine = ScriptedEngine(answer=rest_of_answer)
    clock = FakeClock()
    talk = Talk(scripted_parts(engine, clock=clock, judge=judge), clock)
    session = {
        "audio": {"input": {"turn_detection": detection}},
        "aqaa": {"extensions": [*extensions]},
    }
    await talk.send("session.update", session=session)
    await speak_and_pause(talk, silence=0.7)
    await talk.until("response.done")
    await talk.say(1.2, loud=False)
    return talk


def told(talk: Talk) -> list[tuple[str, str | None]]:
    return [
        (event.state, event.reason)
        for event in talk.events
        if isinstance(event, server.InterruptionReported)
    ]


def loud_groups(prompt: Sequence[int]) -> int:
    """How many groups of the user's speech are in the prompt; those of the answers are quiet."""
    return sum(token - AUDIO > 100 for token in [one for one in prompt if one >= AUDIO][::5])


def verdicts(talk: Talk) -> dict[str, float]:
    kinds = ("interruption", "backchannel", "noise", "echo")
    counts = {kind: talk.counted("aqaa_doubted_speech_total", verdict=kind) for kind in kinds}
    return {kind: count for kind, count in counts.items() if count}


async def test_a_word_of_assent_leaves_the_answer_as_it_is(talk: Talk) -> None:
    await talk.say(0.3, loud=True)
    await talk.say(1.0, loud=False)
    await talk.until("aqaa.interruption", 2)
    assert talk.types().count(STARTED) == 1
    assert talk.types().count("input_audio_buffer.committed") == 1
    assert told(talk) == [("suspected", None), ("dismissed", "backchannel")]
    assert verdicts(talk) == {"backchannel": 1}


async def test_who_goes_on_speaking_interrupts(talk: Talk) -> None:
    await talk.say(0.9, loud=True)
    started = await talk.until(STARTED, 2)
    assert isinstance(started, server.InputAudioBufferSpeechStarted)
    assert abs(started.audio_start_ms - (3000 - 300)) <= 64  # with the padding before it
    assert told(talk) == [("suspected", None)]
    assert verdicts(talk) == {"interruption": 1}


async def test_nothing_of_an_interruption_is_lost(talk: Talk) -> None:
    await talk.say(1.0, loud=True)  # as long as the question
    await talk.say(0.7, loud=False)
    await talk.until("response.created", 2)
    await talk.conversation.idle()
    engine = talk.parts.services.engine
    assert isinstance(engine, ScriptedEngine)
    assert abs(loud_groups(engine.prompts[-1]) - 2 * loud_groups(engine.prompts[0])) <= 1


async def within_a_long_answer() -> tuple[Talk, FakeClock]:
    """A talk of which two seconds of an answer are there, and more is being made."""
    engine = ScriptedEngine(answer=lambda prompt: woven("slowly", 400), seconds=0.003)
    clock = FakeClock()
    talk = Talk(scripted_parts(engine, clock=clock), clock)
    await talk.send("session.update", session={"audio": {"input": {"turn_detection": SEMANTIC}}})
    await speak_and_pause(talk, silence=0.7)
    await talk.say(1.2, loud=False)
    await talk.becomes(lambda: len(talk.sound()) >= 2 * WIRE.rate)
    return talk, clock


async def test_an_answer_that_is_still_made_is_cancelled_as_ever() -> None:
    talk, _ = await within_a_long_answer()
    await talk.say(0.9, loud=True)
    over = await talk.until("response.done")
    assert isinstance(over, server.ResponseDone)
    assert over.response.status == "cancelled"
    assert over.response.status_details is not None
    assert over.response.status_details.reason == "turn_detected"
    assert talk.types().index(STARTED) < talk.types().index("response.done")
    await talk.close()


async def test_a_click_is_a_noise(talk: Talk) -> None:
    await talk.say(0.1, loud=True)
    await talk.say(1.0, loud=False)
    await talk.until("aqaa.interruption", 2)
    assert verdicts(talk) == {"noise": 1}


async def test_a_short_word_that_the_judge_takes_for_speech_interrupts() -> None:
    judge = ScriptedJudge(0.95, kinds=Kinds(speech=0.9, backchannel=0.1, noise=0.0))
    talk = await answering(SEMANTIC, judge)
    await talk.say(0.3, loud=True)
    await talk.say(0.7, loud=False)
    await talk.until(STARTED, 2)
    await talk.until("response.created", 2)
    assert verdicts(talk) == {"interruption": 1}
    await talk.close()


async def test_assent_is_over_before_its_turn_is() -> None:
    judge = ScriptedJudge(0.95, kinds=Kinds(speech=0.1, backchannel=0.9, noise=0.0))
    talk = await answering(SEMANTIC, judge)  # which ends a turn after 200 ms of silence
    await talk.say(0.3, loud=True)
    await talk.say(1.0, loud=False)
    await talk.until("aqaa.interruption", 2)
    assert verdicts(talk) == {"backchannel": 1}
    assert talk.types().count("input_audio_buffer.committed") == 1
    await talk.close()


async def test_the_answer_that_comes_back_through_the_microphone_is_an_echo(talk: Talk) -> None:
    heard = decode(talk.sound(), WIRE)
    again = (np.clip(2 * heard[WIRE.rate :], -1, 1) * 32767).astype("<i2").tobytes()
    for begin in range(0, 30_000, 960):
        talk.clock.now += 0.02
        await talk.append(again[begin : begin + 960])
    await talk.until("aqaa.interruption", 2)
    assert ("dismissed", "echo") in told(talk)
    assert "interruption" not in verdicts(talk)


@pytest.mark.parametrize(
    "detection", [{"type": "server_vad", "silence_duration_ms": 300}, {"type": "server_vad"}]
)
async def test_plain_server_vad_cuts_at_speech(detection: Json) -> None:
    talk = await answering(detection)
    await talk.say(0.1, loud=True)
    await talk.until(STARTED, 2)
    assert told(talk) == []
    assert verdicts(talk) == {}
    await talk.close()


async def test_an_answer_that_may_not_be_interrupted_is_not_even_suspected_of_it() -> None:
    talk = await answering({**SEMANTIC, "interrupt_response": False})
    await talk.say(0.3, loud=True)
    await talk.say(1.0, loud=False)
    await talk.until(STARTED, 2)
    assert told(talk) == []
    await talk.close()


async def test_speech_after_the_answer_was_heard_is_a_turn(talk: Talk) -> None:
    await talk.say(6.0, loud=False)
    await talk.say(0.3, loud=True)
    await talk.say(0.7, loud=False)
    await talk.until("response.created", 2)
    assert told(talk) == []


async def test_what_the_client_clears_is_not_doubted_any_more(talk: Talk) -> None:
    await talk.say(0.2, loud=True)
    await talk.until("aqaa.interruption")
    await talk.send("input_audio_buffer.clear")
    await talk.say(1.0, loud=False)
    assert told(talk) == [("suspected", None)]
    assert verdicts(talk) == {}


async def test_the_answer_is_quiet_while_it_is_doubted() -> None:
    talk, clock = await within_a_long_answer()
    clock.now += 10  # the client has played all: what is sent now is heard now
    before = len(talk.sound())
    await talk.say(0.1, loud=True)
    await talk.becomes(lambda: len(talk.sound()) >= before + 4 * WIRE.rate)  # 2 s
    heard = np.abs(decode(talk.sound(), WIRE))
    levels = heard[: heard.size // 240 * 240].reshape(-1, 240).max(axis=1)  # of 10 ms
    quiet = 0.01 * np.count_nonzero(levels <= 1.1 * GAIN * heard.max())
    assert 0.3 < quiet <= LONGEST_SECONDS
    await talk.close()


class _SecondThoughts(ScriptedJudge):
    """Takes a sound for speech while it lasts, and for assent once it is over."""

    def listen(self) -> ScriptedListener:
        self.kinds = Kinds(speech=0.95, backchannel=0.05, noise=0.0)
        return super().listen()

    def say(self, turn: tuple[int, ...]) -> float:
        self.kinds = Kinds(speech=0.05, backchannel=0.95, noise=0.0)
        return super().say(turn)


async def interrupted_by_nothing(*extensions: str) -> Talk:
    """An answer is cut by 0.6 s of assent that is known for it when it is over."""
    talk = await answering(SEMANTIC, _SecondThoughts(0.95), extensions)
    await talk.say(0.6, loud=True)
    await talk.until(STARTED, 2)
    await talk.say(0.7, loud=False)
    await talk.until("response.done", 2)
    return talk


async def test_an_answer_that_nothing_cut_goes_on_where_it_was_cut() -> None:
    talk = await interrupted_by_nothing("resume")
    first, second = (event for event in talk.events if isinstance(event, server.ResponseDone))
    (cut,), (rest,) = first.response.output, second.response.output
    assert isinstance(cut, Message)
    assert isinstance(rest, Message)
    deleted = await talk.until("conversation.item.deleted")
    assert isinstance(deleted, server.ConversationItemDeleted)
    assert deleted.item_id == cut.id
    assert talk.types().count("input_audio_buffer.committed") == 1
    (part,) = rest.content
    assert isinstance(part, OutputSound)
    assert part.transcript == "an answer that takes a while"
    await talk.close()


async def test_its_sound_is_what_was_not_heard_and_its_prompt_ends_with_what_was() -> None:
    talk = await interrupted_by_nothing("resume")
    engine = talk.parts.services.engine
    assert isinstance(engine, ScriptedEngine)
    asked, prompt = engine.asked[-1], engine.prompts[-1]
    begun = prompt[len(prompt) - asked.answered :]
    whole = woven("an answer that takes a while", ANSWER)
    assert begun == tuple(whole[: len(begun)])
    heard = sum(token >= AUDIO for token in begun) // 5
    assert 15 <= heard <= 25  # it was cut some two seconds in
    assert abs(len(talk.sound()) / 2 / WIRE.rate - 0.12 * (2 * ANSWER - heard)) < 0.01
    await talk.close()


async def test_an_answer_goes_on_as_often_as_nothing_cuts_it_and_stays_one_answer() -> None:
    talk = await interrupted_by_nothing("resume")
    await talk.say(1.2, loud=False)
    await talk.say(0.6, loud=True)
    await talk.until(STARTED, 3)
    await talk.say(0.7, loud=False)
    await talk.until("response.done", 3)
    engine = talk.parts.services.engine
    assert isinstance(engine, ScriptedEngine)
    groups = [sum(t >= AUDIO for t in p[len(p) - a.answered :]) // 5 for p, a in _resumed(engine)]
    assert len(groups) == 2
    assert groups[0] + 5 < groups[1] < ANSWER
    await talk.say(6.0, loud=False)
    await speak_and_pause(talk, silence=0.7)
    await talk.until("response.done", 4)
    whole = woven("an answer that takes a while", ANSWER)[:-1]  # the turn's end is the prompt's own
    last = engine.prompts[-1]
    assert any(list(last[n : n + len(whole)]) == whole for n in range(len(last)))
    assert sum(token == whole[0] for token in last) == 1
    await talk.close()


def _resumed(engine: ScriptedEngine) -> list[tuple[tuple[int, ...], SamplingParams]]:
    """The prompts and parameters of answers that had begun before."""
    both = zip(engine.prompts, engine.asked, strict=True)
    return [(prompt, asked) for prompt, asked in both if asked.answered]


async def test_more_of_nothing_does_not_cut_the_answer_that_is_about_to_go_on() -> None:
    talk = await answering(SEMANTIC, _SecondThoughts(0.95), ("resume", "interruptions"))
    await talk.say(0.6, loud=True)
    engine = talk.parts.services.engine
    assert isinstance(engine, ScriptedEngine)
    engine.gate = asyncio.Event()  # the answer goes on, and its sound is late
    await talk.say(0.3, loud=False)
    await talk.until("conversation.item.deleted")
    await talk.say(0.15, loud=True)
    await talk.say(0.4, loud=False)
    await talk.becomes(lambda: told(talk)[-1] == ("dismissed", "noise"))
    engine.gate.set()
    await talk.until("response.done", 2)
    assert talk.types().count(STARTED) == 2
    await talk.close()


async def test_what_interrupted_an_answer_is_a_turn_for_clients_that_did_not_ask() -> None:
    talk = await interrupted_by_nothing()
    assert talk.types().count("input_audio_buffer.committed") == 2
    assert "conversation.item.deleted" not in talk.types()
    await talk.close()
