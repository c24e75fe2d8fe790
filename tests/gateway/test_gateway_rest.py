"""The other REST routes: a recorded question by curl, models, voices, health, metrics, keys."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import unquote

import httpx
import pytest
import soundfile
from recordings import CHAT, recording
from scripted import ScriptedEngine, woven
from scripted_server import Served, serving
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from aqaa.server.audio.files import read_audio


@pytest.fixture
async def http(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=served.http, timeout=30) as client:
        yield client


@pytest.mark.parametrize("how", ["body", "multipart"])
async def test_a_recorded_question_is_answered_by_a_wav_and_its_transcript(
    http: httpx.AsyncClient, how: str
) -> None:
    given = {"files": {"file": recording()}} if how == "multipart" else {"content": recording()}
    response = await http.post("/v1/answer", **given)
    assert response.status_code == 200
    assert response.headers["content-type"] == "audio/wav"
    assert response.headers["x-transcript"] == "hello there"
    samples, rate = soundfile.read(io.BytesIO(response.content))
    assert (samples.size, rate) == (17_280, 24_000)


async def test_a_form_whose_part_has_no_filename_is_taken(http: httpx.AsyncClient) -> None:
    head = b'--edge\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
    form = {"content-type": "multipart/form-data; boundary=edge"}
    for file in (recording(), recording(15.0)):  # a field of more than a megabyte was refused too
        body = head + file + b"\r\n--edge--\r\n"
        assert (await http.post("/v1/answer", content=body, headers=form)).status_code == 200


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--edge\r\n"),
        ("multipart/form-data; boundary=edge", b"no form"),
        (f"multipart/form-data; boundary={'edge' * 99}", b"--edge\r\n"),
        (
            "multipart/form-data; boundary=edge",
            b'--edge\r\nContent-Disposition: form-data; name="other"\r\n\r\nx\r\n--edge--\r\n',
        ),
    ],
)
async def test_a_form_without_a_recording_says_what_is_wrong(
    http: httpx.AsyncClient, content_type: str, body: bytes
) -> None:
    reply = await http.post("/v1/answer", content=body, headers={"content-type": content_type})
    assert reply.status_code == 400
    assert "multipart" in reply.json()["error"]["message"]


async def test_a_recording_in_a_field_of_another_name_is_told_where_it_belongs(
    http: httpx.AsyncClient,
) -> None:
    reply = await http.post("/v1/answer", files={"audio": recording(5.0)})
    assert reply.status_code == 400
    assert "the recording is the field `file`" in reply.json()["error"]["message"]


async def test_the_transcripts_header_stays_small_enough_for_every_client(
    engine: ScriptedEngine,
) -> None:
    engine.answer = lambda prompt: woven("\u00e9" * 900, 2)
    async with (
        serving(engine) as served,
        httpx.AsyncClient(base_url=served.http, timeout=30) as http,
    ):
        reply = await http.post("/v1/answer", content=recording())
    assert 3900 < len(reply.headers["x-transcript"]) <= 4000


@pytest.mark.parametrize("text", [" said between spaces ", "a line\n", "\tmade\x7f of controls\r"])
async def test_no_text_of_an_answer_breaks_the_header(engine: ScriptedEngine, text: str) -> None:
    engine.answer = lambda prompt: woven(text, 2)
    async with (
        serving(engine) as served,
        httpx.AsyncClient(base_url=served.http, timeout=30) as http,
    ):
        reply = await http.post("/v1/answer", content=recording())
    assert reply.status_code == 200
    assert unquote(reply.headers["x-transcript"]).strip() == text.strip()


@pytest.mark.parametrize("format", ["wav", "flac", "mp3", "opus"])
async def test_an_answer_without_sound_is_a_file_all_the_same(
    engine: ScriptedEngine, format: str
) -> None:
    engine.answer = lambda prompt: woven("in words", 0)
    async with (
        serving(engine) as served,
        httpx.AsyncClient(base_url=served.http, timeout=30) as http,
    ):
        reply = await http.post(f"/v1/answer?format={format}", content=recording())
    assert reply.headers["x-transcript"] == "in words"
    assert read_audio(reply.content).size < 16_000


async def test_a_faster_answer_is_shorter(http: httpx.AsyncClient) -> None:
    slow = await http.post("/v1/answer", content=recording())
    fast = await http.post("/v1/answer?speed=1.5", content=recording())
    assert len(fast.content) < len(slow.content) * 0.7


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "invalid_value"),
        (b"no sound", "invalid_audio"),
        (recording(30.0), "invalid_audio"),
        (recording(0.05), "no_speech"),
        (recording(3.0, loud=False), "no_speech"),
    ],
    ids=["empty", "not audio", "too long", "too short", "silence"],
)
async def test_a_question_that_cannot_be_heard_is_refused_with_the_reason(
    http: httpx.AsyncClient, content: bytes, code: str
) -> None:
    response = await http.post("/v1/answer", content=content)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == code


async def test_an_unknown_voice_is_refused_with_those_that_there_are(
    http: httpx.AsyncClient,
) -> None:
    response = await http.post("/v1/answer?voice=nobody", content=recording())
    assert response.status_code == 400
    assert "joe, amy" in response.json()["error"]["message"]


async def test_a_body_over_the_limit_is_refused(engine: ScriptedEngine) -> None:
    async def drip() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield bytes(1000)

    async with (
        serving(engine, max_upload_bytes=10_000) as served,
        httpx.AsyncClient(base_url=served.http) as http,
    ):
        said = await http.post("/v1/answer", content=bytes(30_000))
        unsaid = await http.post("/v1/answer", content=drip())
    assert (said.status_code, unsaid.status_code) == (413, 413)
    assert said.json()["error"]["code"] == "body_too_large"


async def test_a_failed_answer_is_an_error_and_not_a_short_file(
    http: httpx.AsyncClient, served: Served
) -> None:
    served.engine.dies_after = 30
    response = await http.post("/v1/answer", content=recording())
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "engine_error"


async def test_models_and_voices_are_listed(http: httpx.AsyncClient) -> None:
    models = (await http.get("/v1/models")).json()
    voices = (await http.get("/v1/voices")).json()
    assert [model["id"] for model in models["data"]] == ["scripted"]
    assert {v["id"]: v["default"] for v in voices["data"]} == {"joe": True, "amy": False}


async def test_readiness_names_the_part_that_is_down(
    http: httpx.AsyncClient, served: Served
) -> None:
    assert (await http.get("/health/ready")).status_code == 200
    served.engine.alive = False
    response = await http.get("/health/ready")
    assert response.status_code == 503
    assert response.json()["parts"]["engine"] == "down"
    assert (await http.get("/health/live")).status_code == 200


async def test_metrics_count_what_was_done(http: httpx.AsyncClient) -> None:
    await http.post("/v1/answer", content=recording())
    text = (await http.get("/metrics")).text
    for name in (
        "aqaa_heard_latency_seconds",
        "aqaa_latency_stage_seconds",
        "aqaa_underruns_total",
        "aqaa_active_sessions",
        "aqaa_queue",
        "aqaa_malformed_groups_total",
        "aqaa_engine_tokens_per_second",
    ):
        assert name in text


async def test_the_page_is_served_at_the_root(http: httpx.AsyncClient) -> None:
    response = await http.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")


async def test_the_openapi_document_describes_the_recorded_question(
    http: httpx.AsyncClient,
) -> None:
    document = (await http.get("/openapi.json")).json()
    answer = document["paths"]["/v1/answer"]["post"]
    assert "multipart/form-data" in answer["requestBody"]["content"]
    assert "audio/wav" in answer["responses"]["200"]["content"]


@asynccontextmanager
async def one_place(engine: ScriptedEngine) -> AsyncIterator[tuple[Served, httpx.AsyncClient]]:
    async with (
        serving(engine, max_rest_requests=1) as served,
        httpx.AsyncClient(base_url=served.http, timeout=30) as http,
    ):
        yield served, http


async def test_more_questions_than_places_are_refused_at_once(engine: ScriptedEngine) -> None:
    engine.gate = asyncio.Event()  # the first answer lasts until the second is refused
    async with (
        one_place(engine) as (_, http),
        http.stream("POST", "/v1/chat/completions", json=CHAT) as first,
    ):
        lines = first.aiter_lines()
        await anext(lines)
        second = await http.post("/v1/answer", content=recording())
        engine.gate.set()
        rest = [line async for line in lines]
    assert second.status_code == 503
    assert second.headers["retry-after"]
    assert rest[-2] == "data: [DONE]"  # nor did the refusal harm the first


async def test_an_answer_that_has_ended_gives_its_place_to_the_next(engine: ScriptedEngine) -> None:
    async with one_place(engine) as (served, http):
        await http.post("/v1/chat/completions", json=CHAT)
        await served.state.requests.empty()
        assert (await http.post("/v1/answer", content=recording())).status_code == 200


async def test_a_stream_that_its_reader_left_gives_its_place_to_the_next(
    engine: ScriptedEngine,
) -> None:
    engine.gate = asyncio.Event()
    async with one_place(engine) as (served, http):
        async with http.stream("POST", "/v1/chat/completions", json=CHAT) as left:
            await anext(left.aiter_lines())
        async with asyncio.timeout(30):
            await served.state.requests.empty()  # though the engine still waits
            while not engine.released:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        engine.gate.set()
        assert (await http.post("/v1/answer", content=recording())).status_code == 200


@pytest.fixture
async def locked(engine: ScriptedEngine) -> AsyncIterator[Served]:
    async with serving(engine, api_keys=["right"]) as served:
        yield served


@pytest.mark.parametrize("key", [None, "wrong", "ek_made_up"])
async def test_without_a_known_key_nothing_is_answered(locked: Served, key: str | None) -> None:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(base_url=locked.http, headers=headers) as http:
        assert (await http.get("/v1/models")).status_code == 401
        assert (await http.get("/health/ready")).status_code == 200
    async with connect(locked.ws, additional_headers=headers) as client:
        await client.recv()
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1008


async def test_a_browser_connects_with_an_ephemeral_secret(locked: Served) -> None:
    headers = {"Authorization": "Bearer right"}
    async with httpx.AsyncClient(base_url=locked.http, headers=headers) as http:
        wanted = {"session": {"type": "realtime", "instructions": "be brief"}}
        secret = (await http.post("/v1/realtime/client_secrets", json=wanted)).json()
    assert secret["value"].startswith("ek_")
    offered = ["realtime", f"openai-insecure-api-key.{secret['value']}"]
    async with connect(locked.ws, subprotocols=offered) as client:
        assert client.subprotocol == "realtime"
        assert "be brief" in str(await client.recv())


@pytest.mark.parametrize(
    ("origin", "welcome"),
    [(None, True), ("http://evil.example", False), ("https://app.example", True)],
)
async def test_only_pages_of_allowed_origins_may_connect(
    engine: ScriptedEngine, origin: str | None, welcome: bool
) -> None:
    async with serving(engine, allowed_origins=["https://app.example"]) as served:
        async with connect(served.ws, origin=origin) as client:
            first = str(await client.recv())
        headers = {"Origin": origin} if origin else {}
        async with httpx.AsyncClient(base_url=served.http, headers=headers) as http:
            status = (await http.get("/v1/voices")).status_code
    assert ("session.created" in first) is welcome
    assert status == (200 if welcome else 403)


async def test_a_foreign_name_for_the_loopback_is_not_the_servers_own_page(
    served: Served,
) -> None:
    evil = f"http://rebound.example:{served.port}"
    headers = {"Origin": evil, "Host": f"rebound.example:{served.port}"}
    async with httpx.AsyncClient(base_url=served.http, headers=headers) as http:
        assert (await http.get("/v1/voices")).status_code == 403


async def test_the_servers_own_page_may_connect(served: Served) -> None:
    async with connect(served.ws, origin=served.http) as client:
        assert "session.created" in str(await client.recv())
