"""The Python client against small real WebSocket servers, and its parts alone."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio.server import Server, ServerConnection, serve

from aqaa.clients import turn as turn_module
from aqaa.clients.client import WIRE_RATE, connect, realtime_url
from aqaa.clients.load_test import LoadPlan, Report, run
from aqaa.clients.microphone import LOW, Player
from aqaa.clients.sound import speech_end, write_sound
from aqaa.clients.turn import GapCounter, SpokenAnswer, speak
from aqaa.models.errors import AudioError, CapacityError, ConnectionLostError, NoSpeechError

Handler = Callable[[ServerConnection], Awaitable[None]]
BEEP = np.sin(np.arange(2400) / 10).astype(np.float32)  # 0.1 s


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[str]:
    server: Server
    async with serve(handler, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"http://127.0.0.1:{port}"


def event(kind: str, **fields: object) -> str:
    return json.dumps({"type": kind, "event_id": "e", **fields})


def of_content(kind: str, **fields: object) -> str:
    return event(kind, response_id="r", item_id="i", output_index=0, content_index=0, **fields)


def response(status: str, reason: str | None = None) -> dict[str, object]:
    audio = {"output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "joe"}}
    details = {"type": "cancelled", "reason": reason} if reason else None
    return {
        "id": "r",
        "status": status,
        "status_details": details,
        "output_modalities": ["audio"],
        "audio": audio,
    }


def sound(seconds: float) -> str:
    return base64.b64encode(bytes(2 * round(seconds * WIRE_RATE))).decode()


async def answer(socket: ServerConnection) -> None:
    """One answer: a word, two pieces of sound, done."""
    await socket.send(of_content("response.output_audio_transcript.delta", delta="Paris"))
    await socket.send(of_content("response.output_audio.delta", delta=sound(0.5)))
    await socket.send(of_content("response.output_audio.delta", delta=sound(0.25)))
    await socket.send(event("response.done", response=response("completed")))


async def after_speech(socket: ServerConnection, appends: int = 10) -> None:
    while appends:
        appends -= json.loads(await socket.recv())["type"] == "input_audio_buffer.append"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host:8000", "ws://host:8000/v1/realtime?model=nano"),
        ("https://host/voice/", "wss://host/voice/v1/realtime?model=nano"),
        ("host:8000", "ws://host:8000/v1/realtime?model=nano"),
        ("ws://host/v1", "ws://host/v1/realtime?model=nano"),
        ("wss://host/v1/realtime", "wss://host/v1/realtime?model=nano"),
    ],
)
def test_the_url_of_a_server_becomes_that_of_its_realtime_endpoint(url: str, expected: str) -> None:
    assert realtime_url(url, "nano") == expected


async def test_a_spoken_turn_collects_words_sound_and_latency() -> None:
    async def handler(socket: ServerConnection) -> None:
        await after_speech(socket)
        await answer(socket)
        await socket.wait_closed()

    async with listening(handler) as url, connect(url) as server:
        turn = await speak(server, BEEP)
    assert (turn.transcript, turn.status) == ("Paris", "completed")
    assert turn.audio.size == round(0.75 * WIRE_RATE)
    assert turn.heard_after is not None
    assert turn.heard_after > 0
    assert turn.ok


async def test_a_piece_without_sound_is_not_the_beginning_of_the_answer() -> None:
    async def handler(socket: ServerConnection) -> None:
        await after_speech(socket)
        await socket.send(of_content("response.output_audio.delta", delta=""))
        await asyncio.sleep(0.05)
        await answer(socket)
        await socket.wait_closed()

    async with listening(handler) as url, connect(url) as server:
        turn = await speak(server, BEEP)
    assert turn.gaps == 0


async def test_an_answer_that_the_user_talked_over_gives_way_to_the_next() -> None:
    async def handler(socket: ServerConnection) -> None:
        await after_speech(socket)
        await socket.send(of_content("response.output_audio_transcript.delta", delta="What"))
        await socket.send(event("response.done", response=response("cancelled", "turn_detected")))
        await answer(socket)
        await socket.wait_closed()

    async with listening(handler) as url, connect(url) as server:
        turn = await speak(server, BEEP)
    assert turn.transcript == "Paris"


async def test_an_answer_that_is_whole_before_the_question_is_gives_way_to_the_next() -> None:
    part, whole = {"item_id": "part"}, {"item_id": "whole"}

    async def handler(socket: ServerConnection) -> None:
        await after_speech(socket, 2)
        await socket.send(
            event("input_audio_buffer.speech_stopped", audio_end_ms=20, item_id="part")
        )
        await socket.send(event("input_audio_buffer.committed", previous_item_id=None, **part))
        await socket.send(of_content("response.output_audio_transcript.delta", delta="What"))
        await socket.send(event("response.done", response=response("completed")))
        started = event("input_audio_buffer.speech_started", audio_start_ms=0, **whole)
        await socket.send(started)
        await after_speech(socket, 10)
        await socket.send(
            event("input_audio_buffer.speech_stopped", audio_end_ms=220, item_id="whole")
        )
        await socket.send(event("conversation.item.deleted", **part))
        await socket.send(event("input_audio_buffer.committed", previous_item_id=None, **whole))
        await answer(socket)
        await socket.wait_closed()

    async with listening(handler) as url, connect(url) as server:
        turn = await speak(server, BEEP)
    assert turn.transcript == "Paris"
    assert (turn.false_ends, turn.taken_back) == (1, 1)
    assert turn.heard_after is not None


async def test_an_answer_to_what_noise_follows_is_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def handler(socket: ServerConnection) -> None:
        await after_speech(socket, 2)
        await answer(socket)
        async for _ in socket:
            pass

    monkeypatch.setattr(turn_module, "GOES_ON_SECONDS", 0.1)
    async with listening(handler) as url, connect(url) as server:
        turn = await speak(server, BEEP)
    assert (turn.transcript, turn.false_ends) == ("Paris", 0)


async def test_a_load_asks_for_the_turn_detection_that_it_was_told() -> None:
    asked: list[str] = []

    async def handler(socket: ServerConnection) -> None:
        update = json.loads(await socket.recv())
        asked.append(update["session"]["audio"]["input"]["turn_detection"]["type"])
        await after_speech(socket)
        await answer(socket)
        await socket.wait_closed()

    async with listening(handler) as url:
        await run(LoadPlan(url, "nano", sessions=1, turns=1, detection="semantic_vad"), [BEEP])
    assert asked == ["semantic_vad"]


async def test_a_full_server_is_a_capacity_error() -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.close(1013, "all sessions taken")

    async with listening(handler) as url, connect(url) as server:
        with pytest.raises(CapacityError, match="all sessions taken"):
            await speak(server, BEEP)


async def test_a_server_that_hangs_up_mid_answer_is_a_lost_connection() -> None:
    async def handler(socket: ServerConnection) -> None:
        await after_speech(socket)
        await socket.send(of_content("response.output_audio.delta", delta=sound(0.5)))
        await socket.close(1011, "engine died")

    async with listening(handler) as url, connect(url) as server:
        with pytest.raises(ConnectionLostError, match="engine died"):
            await speak(server, BEEP)


async def test_an_error_event_ends_the_turn_with_its_message() -> None:
    async def handler(socket: ServerConnection) -> None:
        error = {"type": "server_error", "message": "the decoder is gone"}
        await socket.send(event("error", error=error))
        await socket.wait_closed()

    async with listening(handler) as url, connect(url) as server:
        with pytest.raises(ConnectionLostError, match="the decoder is gone"):
            await speak(server, BEEP)


async def test_events_of_a_later_protocol_are_passed_over() -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.send(event("response.hologram.delta", delta="?"))
        await after_speech(socket)
        await answer(socket)
        await socket.wait_closed()

    async with listening(handler) as url, connect(url) as server:
        assert (await speak(server, BEEP)).ok


async def test_nothing_at_the_address_says_how_to_start_a_server() -> None:
    with pytest.raises(ConnectionLostError, match="aqaa serve"):
        async with connect("http://127.0.0.1:9"):
            pass


async def test_a_load_counts_every_turn_that_was_answered_or_lost_and_who_found_no_place() -> None:
    served = 0

    async def handler(socket: ServerConnection) -> None:
        nonlocal served
        served += 1
        if served == 2:
            await socket.close(1013, "full")
            return
        if served == 3:
            await after_speech(socket)
            await socket.close(1011, "engine died")
            return
        await after_speech(socket)
        await answer(socket)
        await socket.wait_closed()

    async with listening(handler) as url:
        report = await run(LoadPlan(url, "nano", sessions=3, turns=1), [BEEP])
    assert (report.asked, len(report.turns), len(report.failures)) == (2, 1, 1)
    assert (report.broken, len(report.refused)) == (1, 1)
    assert report.refused[0] < 0.5
    assert report.summary()["ok_fraction"] == 0.5


def test_a_piece_that_comes_after_the_sound_has_run_out_is_a_gap() -> None:
    speaker = GapCounter()
    speaker.play(WIRE_RATE, now=10.0)
    speaker.play(WIRE_RATE, now=10.9)  # in time: one second was there
    assert speaker.gaps == 0
    speaker.play(WIRE_RATE, now=12.5)  # two seconds ran out at 12.0
    assert speaker.gaps == 1
    assert speaker.gap_seconds == pytest.approx(0.5)


def test_a_turn_with_a_gap_is_not_ok() -> None:
    assert not SpokenAnswer(status="completed", audio=BEEP, gaps=1).ok
    assert not SpokenAnswer(status="completed").ok
    assert not SpokenAnswer(status="cancelled", audio=BEEP).ok


def test_percentiles_are_of_the_turns_that_were_heard() -> None:
    report = Report(
        1, [SpokenAnswer(heard_after=s / 1000) for s in (100, 200, 300)] + [SpokenAnswer()]
    )
    assert report.summary()["latency_ms"] == {"heard": {"p50": 200.0, "p95": 290.0, "p99": 298.0}}


def test_speech_ends_where_the_sound_does() -> None:
    rate = 16_000
    wave = np.concatenate([np.sin(np.arange(rate)), np.zeros(rate)]).astype(np.float32)
    assert abs(speech_end(wave, rate) - rate) <= rate // 100
    assert speech_end(np.zeros(10, np.float32), rate) == 10


def test_the_player_knows_how_much_of_an_answer_was_heard() -> None:
    player = Player()
    player.put("a", np.ones(2400, np.float32))
    player.put("a", np.ones(2400, np.float32))
    assert player.take(3600).sum() == 3600
    assert player.cut() == ("a", 150)
    assert player.cut() is None
    assert not player.take(100).any()


def test_an_answer_that_begins_while_another_is_played_is_heard_after_it() -> None:
    player = Player()
    player.put("a", np.ones(2400, np.float32))
    player.put("b", np.ones(2400, np.float32))
    player.take(1200)
    assert player.item == "a"
    player.take(2400)
    assert player.cut() == ("b", 50)
    player.put("b", np.ones(2400, np.float32))
    player.put("c", np.ones(2400, np.float32))
    player.take(2400)
    assert player.cut() == ("c", 0), "it is that which would be heard next"


def test_the_player_is_quiet_while_it_is_doubtful_whether_the_user_interrupts() -> None:
    player = Player()
    player.put("a", np.ones(4 * WIRE_RATE, np.float32))
    assert (player.take(480) == 1).all()
    player.duck(True)
    falling = player.take(480)
    assert np.abs(np.diff(falling)).max() < 0.01
    player.take(480)
    assert player.take(480) == pytest.approx(LOW)
    player.duck(False)
    assert player.take(480)[-1] < 1
    player.take(480)
    assert (player.take(480) == 1).all()
    player.duck(True)
    player.cut()
    player.put("b", np.ones(WIRE_RATE, np.float32))
    player.take(960)
    assert (player.take(480) == 1).all()


def test_an_answer_cannot_be_written_to_an_unknown_kind_of_file(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"answer\.docx"):
        write_sound(tmp_path / "answer.docx", BEEP, 24_000)


async def test_a_microphone_speaks_in_real_time_and_goes_on_in_silence() -> None:
    sizes: list[int] = []
    loop = asyncio.get_running_loop()

    async def handler(socket: ServerConnection) -> None:
        start = loop.time()
        for _ in range(10):
            message = json.loads(await socket.recv())
            sizes.append(len(base64.b64decode(message["audio"])))
        assert loop.time() - start > 0.15  # ten blocks of 20 ms cannot arrive sooner
        await answer(socket)
        await socket.wait_closed()

    async with listening(handler) as url, connect(url) as server:
        await speak(server, BEEP)
    assert set(sizes) == {960}


async def test_a_recording_in_which_nobody_speaks_ends_with_that_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.wait_closed()

    monkeypatch.setattr(turn_module, "NO_SPEECH_SECONDS", 0.2)
    async with listening(handler) as url, connect(url) as server:
        with pytest.raises(NoSpeechError, match="nobody speak"):
            await speak(server, BEEP)


async def test_an_answer_may_take_its_time_once_speech_was_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def handler(socket: ServerConnection) -> None:
        started = {"audio_start_ms": 0, "item_id": "item"}
        await socket.send(event("input_audio_buffer.speech_started", **started))
        await asyncio.sleep(0.5)
        await answer(socket)
        async for _ in socket:  # read, or the client's goodbye is not seen for ten seconds
            pass

    monkeypatch.setattr(turn_module, "NO_SPEECH_SECONDS", 0.1)
    async with listening(handler) as url, connect(url) as server:
        assert (await speak(server, BEEP)).transcript == "Paris"


async def test_a_proxy_of_the_environment_is_not_asked_for_the_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def handler(socket: ServerConnection) -> None:
        await after_speech(socket)
        await answer(socket)
        await socket.wait_closed()

    for name in ("http_proxy", "https_proxy", "ws_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    async with listening(handler) as url, connect(url) as server:
        assert (await speak(server, BEEP)).transcript == "Paris"


@pytest.mark.parametrize("url", ["http://[", "ftp://host", "http://a..b", "http://host:port", ""])
async def test_an_address_that_is_none_is_one_clear_line(url: str) -> None:
    with pytest.raises(ConnectionLostError, match=r"is no address of a server|no aqaa server"):
        async with connect(url):
            pass


async def test_a_proxy_that_cannot_be_spoken_to_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "socks5://127.0.0.1:9")
    with pytest.raises(ConnectionLostError, match="no aqaa server answers"):
        async with connect("http://192.0.2.1:1"):
            pass
