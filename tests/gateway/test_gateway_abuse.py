"""Whatever a client does, it gets a clear error or close code, and nothing of it stays behind."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest
from scripted import AUDIO, ScriptedEngine, pcm, woven
from scripted_server import Served, serving
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from aqaa.server.answering.answer import Answer
from aqaa.server.gateway.outbox import Outbox
from aqaa.server.hearing.speech_input import SpeechInput
from aqaa.server.protocol.types import Json
from aqaa.server.session.live_session import LiveSession

SOON = 20.0  # seconds until a test gives up on something that should happen at once
SPEECH = base64.b64encode(pcm(1.0, loud=True)).decode()
SILENCE = base64.b64encode(pcm(0.6, loud=False)).decode()


async def receive(client: ClientConnection, kind: str) -> Json:
    """The next event of this type."""
    async with asyncio.timeout(SOON):
        while True:
            event: Json = json.loads(await client.recv())
            if event["type"] == kind:
                return event


async def send(client: ClientConnection, kind: str, **fields: object) -> None:
    await client.send(json.dumps({"type": kind, **fields}))


async def close_code(client: ClientConnection) -> int:
    """The code that the server closes with."""
    async with asyncio.timeout(SOON):
        with suppress(ConnectionClosed):
            while True:
                await client.recv()
    return client.close_code or 0


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that no event tells."""
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def nobody_is_left(served: Served) -> None:
    """No session, no generation; waited for, since a close takes a moment to be noticed."""
    await until(lambda: not served.state.sessions.inside() and not served.engine.running)


async def still_serves(served: Served) -> None:
    async with connect(served.ws) as client:
        await receive(client, "session.created")


@pytest.fixture
async def client(served: Served) -> AsyncIterator[ClientConnection]:
    # One that reads no more would wait ten seconds for the close that it does not read.
    async with connect(served.ws, compression=None, max_queue=None) as client:
        await receive(client, "session.created")
        yield client


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "invalid_json"),
        ("[]", "invalid_json"),
        ("[" * 100_000, "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        ("{}", "missing_required_parameter"),
        ('{"type": "session.destroy"}', "invalid_value"),
        ('{"type": {"a": 1}}', "invalid_value"),
        ('{"type": "input_audio_buffer.append"}', "missing_required_parameter"),
        ('{"type": "input_audio_buffer.append", "audio": "###"}', "invalid_value"),
        ('{"type": "input_audio_buffer.append", "audio": 7}', "invalid_value"),
        ('{"type": "session.update", "session": 5}', "invalid_value"),
        (
            '{"type": "session.update", "session": {"audio": {"input": {"format": "wav"}}}}',
            "invalid_value",
        ),
        ('{"type": "session.update", "session": {"truncation": NaN}}', "invalid_json"),
        ('{"type": "session.update", "session": {"truncation": {"a": 1e999}}}', "invalid_json"),
        (
            '{"type": "session.update", "session": {"tools": [' + "[]," * 60_000 + "[]]}}",
            "invalid_json",
        ),
        (
            '{"type": "conversation.item.create", "item": {"type": "message", "role": "user",'
            ' "content": [{"type": "input_text", "text": "\\ud800"}]}}',
            "invalid_json",
        ),
    ],
)
async def test_a_message_that_makes_no_sense_is_an_error_and_the_session_goes_on(
    client: ClientConnection, message: str | bytes, code: str
) -> None:
    await client.send(message)
    error = await receive(client, "error")
    assert error["error"]["code"] == code
    await send(client, "input_audio_buffer.clear")
    await receive(client, "input_audio_buffer.cleared")


async def test_text_that_is_not_utf_8_is_closed_with_1007_and_is_no_fault(
    client: ClientConnection, caplog: pytest.LogCaptureFixture
) -> None:
    await client.send(b"\xff\xfe", text=True)
    assert await close_code(client) == 1007
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_frame_of_20_mb_is_closed_with_1009(
    served: Served, client: ClientConnection
) -> None:
    with suppress(ConnectionClosed):
        await client.send("x" * 20_000_000)
    assert await close_code(client) == 1009
    await nobody_is_left(served)
    await still_serves(served)


async def test_ten_thousand_tiny_appends_are_one_sound(
    client: ClientConnection, served: Served
) -> None:
    await send(client, "session.update", session={"audio": {"input": {"turn_detection": None}}})
    data = pcm(2.0, loud=True)
    step = len(data) // 10_000 // 2 * 2 or 2
    message = json.dumps
    for begin in range(0, step * 10_000, step):
        piece = base64.b64encode(data[begin : begin + step]).decode()
        await client.send(message({"type": "input_audio_buffer.append", "audio": piece}))
    await send(client, "input_audio_buffer.commit")
    await send(client, "response.create")
    done = await receive(client, "response.done")
    assert done["response"]["status"] == "completed"


async def test_a_long_upload_at_once_is_one_turn_that_fits_or_an_error_that_says_so(
    client: ClientConnection,
) -> None:
    await send(client, "session.update", session={"audio": {"input": {"turn_detection": None}}})
    minute = base64.b64encode(pcm(60, loud=True)).decode()
    await send(client, "input_audio_buffer.append", audio=minute)
    error = await receive(client, "error")
    assert error["error"]["code"] == "input_audio_buffer_full"
    await send(client, "input_audio_buffer.commit")
    await receive(client, "input_audio_buffer.committed")


@pytest.mark.parametrize("size", [1, 3])
async def test_a_byte_that_is_no_sample_harms_nothing(client: ClientConnection, size: int) -> None:
    await send(client, "input_audio_buffer.append", audio=base64.b64encode(bytes(size)).decode())
    await send(client, "input_audio_buffer.clear")
    await receive(client, "input_audio_buffer.cleared")
    await asyncio.sleep(0.1)  # the fault closed the session a moment later
    await at_question(client)


async def test_half_a_sample_is_forgotten_with_the_buffer(
    served: Served, client: ClientConnection
) -> None:
    await send(client, "session.update", session={"audio": {"input": {"turn_detection": None}}})
    await send(client, "input_audio_buffer.append", audio="AQ==")
    await send(client, "input_audio_buffer.clear")
    await send(client, "input_audio_buffer.append", audio=SPEECH)
    await send(client, "input_audio_buffer.commit")
    await send(client, "response.create")
    await receive(client, "response.done")
    # What the scripted tokenizer makes of `SPEECH`; with its bytes swapped it is twice as loud.
    loudness = [token - AUDIO for token in served.engine.prompts[-1] if token >= AUDIO]
    assert loudness[5] == pytest.approx(8000 / 32768 * 1000, rel=0.1)


async def test_a_sound_that_is_deleted_while_it_is_tokenised_lets_the_answer_end(
    client: ClientConnection, served: Served
) -> None:
    content = [{"type": "input_audio", "audio": base64.b64encode(pcm(15, loud=True)).decode()}]
    item = {"type": "message", "id": "it", "role": "user", "content": content}
    await send(client, "conversation.item.create", item=item)
    await send(client, "response.create")
    await send(client, "conversation.item.delete", item_id="it")
    await receive(client, "response.done")


async def test_the_beta_is_asked_for_by_a_subprotocol_where_no_header_can_be_sent(
    served: Served,
) -> None:
    offered = [Subprotocol("realtime"), Subprotocol("openai-beta.realtime-v1")]
    async with connect(served.ws, subprotocols=offered) as client:
        created = await receive(client, "session.created")
    assert created["session"]["input_audio_format"] == "pcm16"


async def test_a_format_that_is_none_is_an_error_to_a_beta_client_too(served: Served) -> None:
    async with connect(served.ws, additional_headers={"OpenAI-Beta": "realtime=v1"}) as client:
        session = {"input_audio_format": {"type": "audio/pcm"}}
        await send(client, "session.update", session=session, event_id="mine")
        error = (await receive(client, "error"))["error"]
        await send(client, "input_audio_buffer.clear")
        await receive(client, "input_audio_buffer.cleared")
    assert (error["param"], error["event_id"]) == ("session.input_audio_format", "mine")


async def at_hello(client: ClientConnection) -> None:
    """Nothing was said yet."""


async def at_speech(client: ClientConnection) -> None:
    await send(client, "input_audio_buffer.append", audio=SPEECH)
    await receive(client, "input_audio_buffer.speech_started")


async def at_pause(client: ClientConnection) -> None:
    await at_speech(client)
    pause = base64.b64encode(pcm(0.3, loud=False)).decode()
    await send(client, "input_audio_buffer.append", audio=pause)


async def at_question(client: ClientConnection) -> None:
    await at_speech(client)
    await send(client, "input_audio_buffer.append", audio=SILENCE)
    await receive(client, "response.created")


async def at_answer(client: ClientConnection) -> None:
    await at_question(client)
    await receive(client, "response.output_audio.delta")


State = Callable[[ClientConnection], object]
STATES = [at_hello, at_speech, at_pause, at_question, at_answer]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
@pytest.mark.parametrize("abruptly", [False, True], ids=["closing", "vanishing"])
async def test_a_client_that_leaves_at_any_state_leaves_nothing_behind(
    served: Served, state: Callable[[ClientConnection], object], abruptly: bool
) -> None:
    served.engine.answer = lambda prompt: woven("a very long answer", 200)
    served.engine.seconds = 0.005
    async with connect(served.ws) as client:
        await receive(client, "session.created")
        await state(client)  # type: ignore[misc]
        if abruptly:
            client.transport.abort()
    await nobody_is_left(served)
    assert len(served.engine.released) >= 1


async def test_a_half_open_connection_is_noticed(engine: ScriptedEngine) -> None:
    async with serving(engine, ping_seconds=0.3) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(HANDSHAKE.encode())
        await reader.readuntil(b"\r\n\r\n")
        assert served.state.sessions.inside() == 1
        await nobody_is_left(served)  # it never answers a ping
        writer.close()


HELLO = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}

HANDSHAKE = (
    "GET /v1/realtime HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Version: 13\r\n\r\n"
)


def masked(opcode: int, payload: bytes) -> bytes:
    """A client's frame; the mask is zero, so the payload stays readable."""
    return bytes([0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0]) + payload


async def test_what_a_client_sends_after_its_close_is_nobodys(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(HANDSHAKE.encode())
    await reader.readuntil(b"\r\n\r\n")
    append = b'{"type":"input_audio_buffer.append","audio":"AAAA"}'
    writer.write(masked(8, (1000).to_bytes(2, "big")) + masked(1, append) * 50)
    with suppress(ConnectionError):
        await reader.read()
    writer.close()
    await nobody_is_left(served)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    await still_serves(served)


async def test_no_object_of_a_session_outlives_it(served: Served) -> None:
    def kept() -> list[object]:
        gc.collect()
        kinds = (LiveSession, Answer, SpeechInput, Outbox)
        return [thing for thing in gc.get_objects() if type(thing) in kinds]

    # A client that reads no more would not see the server's close: it always reads.
    served.engine.gate = asyncio.Event()
    async with connect(served.ws, max_queue=None) as client:
        await at_question(client)
        assert {type(thing) for thing in kept()} == {LiveSession, Answer, SpeechInput, Outbox}
    served.engine.gate.set()
    for _ in range(9):
        async with connect(served.ws, max_queue=None) as client:
            await at_question(client)
    await nobody_is_left(served)
    await until(lambda: not kept())


async def test_two_hundred_connections_over_the_limit_are_told_to_try_later(
    engine: ScriptedEngine,
) -> None:
    async with serving(engine, max_sessions=3) as served:
        inside = [await connect(served.ws) for _ in range(3)]
        for client in inside:
            await receive(client, "session.created")

        async def refused() -> int:
            async with connect(served.ws, open_timeout=SOON) as client:
                return await close_code(client)

        assert set(await asyncio.gather(*(refused() for _ in range(200)))) == {1013}
        assert served.state.sessions.inside() == 3
        for client in inside:
            await send(client, "input_audio_buffer.clear")
            await receive(client, "input_audio_buffer.cleared")
            await client.close()
        await nobody_is_left(served)
        await still_serves(served)


async def test_a_refused_client_is_told_why_before_it_is_closed(engine: ScriptedEngine) -> None:
    async with (
        serving(engine, max_sessions=1) as served,
        connect(served.ws),
        connect(served.ws) as second,
    ):
        error = await receive(second, "error")
        assert error["error"]["code"] == "server_full"
        assert await close_code(second) == 1013


async def test_a_key_has_no_more_than_its_share(engine: ScriptedEngine) -> None:
    async with (
        serving(engine, api_keys=["one", "two"], max_sessions_per_key=1) as served,
        connect(served.ws, additional_headers={"Authorization": "Bearer one"}) as first,
    ):
        await receive(first, "session.created")
        async with connect(served.ws, additional_headers={"Authorization": "Bearer one"}) as again:
            assert await close_code(again) == 1013
        async with connect(served.ws, additional_headers={"Authorization": "Bearer two"}) as other:
            await receive(other, "session.created")


async def test_a_reader_that_never_reads_is_closed_and_costs_no_more(
    engine: ScriptedEngine,
) -> None:
    engine.answer = lambda prompt: woven("x", 150)
    async with serving(engine, send_buffer_bytes=200_000) as served:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", served.port))
        async with connect(served.ws, sock=raw, compression=None) as client:
            client.transport.pause_reading()  # type: ignore[attr-defined]
            await send(client, "conversation.item.create", item=HELLO)
            await send(client, "response.create")
            await nobody_is_left(served)
            client.transport.abort()
        await until(lambda: not served.server.server_state.connections)


async def test_an_engine_that_dies_in_mid_answer_fails_that_answer_only(served: Served) -> None:
    served.engine.dies_after = 30
    async with connect(served.ws) as client:
        await at_speech(client)
        await send(client, "input_audio_buffer.append", audio=SILENCE)
        failed = await receive(client, "response.done")
        assert failed["response"]["status"] == "failed"
        assert failed["response"]["status_details"]["error"]["code"] == "engine_died"
        served.engine.dies_after = None
        served.engine.alive = True  # an engine comes back by itself
        await send(client, "response.create")
        done = await receive(client, "response.done")
        assert done["response"]["status"] == "completed"


async def test_a_session_ends_at_its_longest(engine: ScriptedEngine) -> None:
    async with serving(engine, session_seconds=0.2) as served, connect(served.ws) as client:
        error = await receive(client, "error")
        assert error["error"]["code"] == "session_expired"
        assert await close_code(client) == 1012


async def test_a_drain_lets_the_running_answer_end_and_then_closes_with_1012(
    served: Served,
) -> None:
    served.engine.seconds = 0.01
    async with connect(served.ws) as busy, connect(served.ws) as idle:
        await at_question(busy)
        await receive(idle, "session.created")
        served.server.stop(served.state)
        assert await close_code(idle) == 1012
        done = await receive(busy, "response.done")
        assert done["response"]["status"] == "completed"
        assert await close_code(busy) == 1012


async def test_a_drain_ends_by_its_deadline(engine: ScriptedEngine) -> None:
    engine.answer = lambda prompt: woven("x", 500)
    engine.seconds = 0.05
    async with serving(engine, drain_seconds=0.5) as served, connect(served.ws) as client:
        await at_question(client)
        served.server.stop(served.state)
        assert await close_code(client) == 1012


@pytest.mark.parametrize("format", ["audio/pcm", "audio/pcmu", "audio/pcma"])
async def test_a_client_that_stops_sending_in_mid_turn_is_answered(
    client: ClientConnection, format: str
) -> None:
    detection = {"type": "server_vad", "silence_duration_ms": 300}
    audio = {"input": {"format": {"type": format}, "turn_detection": detection}}
    await send(client, "session.update", session={"audio": audio})
    speech = SPEECH if format == "audio/pcm" else base64.b64encode(bytes(8000)).decode()
    await send(client, "input_audio_buffer.append", audio=speech)
    await receive(client, "input_audio_buffer.speech_started")
    done = await receive(client, "response.done")
    assert done["response"]["status"] == "completed"
