"""Traces: one span a turn with its stages, joined by the decoder's, and sent off the event loop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from live_talk import FakeClock, Talk, speak_and_pause
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from otlp_collector import collecting
from scripted import ScriptedEngine, scripted_parts, woven
from token_server import TokenServer, bundle_without_weights

from aqaa.models.errors import ConfigError
from aqaa.server.answering.answer import Answer, AnswerRequest
from aqaa.server.answering.answer_events import AnswerEnd
from aqaa.server.answering.single_answer import single_answer
from aqaa.server.dialogue.prompt import UserTurn
from aqaa.server.engine.contract import SamplingParams, traceparent
from aqaa.server.engine.settings import VllmHttpSettings
from aqaa.server.engine.vllm.http import VllmHttpEngine
from aqaa.server.observe import traces
from aqaa.server.observe.latency import STAGES, Timeline
from aqaa.server.observe.logs import session_id
from aqaa.server.observe.traces import TurnRecord, TurnTracer, tracer_of_environment
from aqaa.server.parts import ModelParts

KNOWN_STATES = {"completed", "cancelled", "failed", "max_output_tokens", "engine_died"}


@dataclass
class TracedEngine(ScriptedEngine):
    """Keeps the trace context that each of its requests has."""

    parents: list[str | None] = field(default_factory=list)

    async def generate(
        self, session: str, prompt: Sequence[int], params: SamplingParams
    ) -> AsyncGenerator[int, None]:
        self.parents.append(traceparent.get())
        async for token in super().generate(session, prompt, params):
            yield token


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def engine() -> TracedEngine:
    return TracedEngine()


def traced(parts: ModelParts, exporter: InMemorySpanExporter) -> ModelParts:
    tracer = TurnTracer(SimpleSpanProcessor(exporter))
    return replace(parts, services=replace(parts.services, tracer=tracer))


@pytest.fixture
async def talk(engine: TracedEngine, exporter: InMemorySpanExporter) -> AsyncIterator[Talk]:
    clock = FakeClock()
    session_id.set("sess_1")  # as the gateway does
    talk = Talk(traced(scripted_parts(engine, clock=clock), exporter), clock)
    yield talk
    await talk.close()


async def turns(talk: Talk, exporter: InMemorySpanExporter, count: int) -> list[ReadableSpan]:
    """The spans of turns, once there are so many."""

    def found() -> list[ReadableSpan]:
        return [span for span in exporter.get_finished_spans() if span.parent is None]

    await talk.becomes(lambda: len(found()) >= count)
    return found()


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def header(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-01"


async def test_a_spoken_turn_is_a_span_with_its_stages_end_to_end(
    talk: Talk, engine: TracedEngine, exporter: InMemorySpanExporter
) -> None:
    engine.reuses = 3
    await talk.send("session.update", session={"aqaa": {"extensions": ["latency"]}})
    await speak_and_pause(talk)
    await talk.until("response.done")
    (turn,) = await turns(talk, exporter, 1)
    assert turn.name == "turn"
    assert turn.kind is SpanKind.SERVER
    assert turn.status.status_code is StatusCode.UNSET
    assert turn.attributes is not None
    assert turn.attributes["session.id"] == "sess_1"
    assert str(turn.attributes["gen_ai.response.id"]).startswith("resp")
    assert turn.attributes["aqaa.status"] == "completed"
    assert turn.attributes["gen_ai.usage.input_tokens"] == len(engine.prompts[-1])
    assert turn.attributes["gen_ai.usage.output_tokens"] == len(woven("hello there", 6))
    assert turn.attributes["aqaa.reused_tokens"] == 3
    assert turn.attributes["aqaa.spoken_seconds"] == pytest.approx(6 * 0.12)

    stages = [span for span in exporter.get_finished_spans() if span.parent is not None]
    assert tuple(span.name for span in stages) == STAGES
    assert all(span.parent == turn.get_span_context() for span in stages)
    assert stages[0].start_time == turn.start_time
    ends = [span.end_time for span in stages]
    assert [span.start_time for span in stages[1:]] == ends[:-1]
    reported = next(x for x in talk.events if x.type == "aqaa.latency")
    for span in stages:
        assert seconds(span) * 1000 == pytest.approx(reported.stages[span.name], abs=0.001)
    total = reported.stages["total"] / 1000
    assert total > 0.4  # the silence that ends a turn
    assert seconds(turn) >= total - 1e-6


async def test_the_decoder_is_told_the_turn_as_its_parent(
    talk: Talk, engine: TracedEngine, exporter: InMemorySpanExporter
) -> None:
    await speak_and_pause(talk)
    await talk.until("response.done")
    await speak_and_pause(talk)
    await talk.until("response.done", 2)
    spans = await turns(talk, exporter, 2)
    assert [header(span) for span in spans] == engine.parents
    assert len(set(engine.parents)) == 2


async def test_a_speculation_is_a_turn_only_if_it_is_wanted(
    talk: Talk, engine: TracedEngine, exporter: InMemorySpanExporter
) -> None:
    await speak_and_pause(talk, silence=0.3)
    await talk.becomes(lambda: len(engine.prompts) == 1)
    await talk.say(0.5, loud=True)  # the user goes on
    await talk.say(0.3, loud=False)
    await talk.becomes(lambda: len(engine.prompts) == 2)
    await talk.say(0.3, loud=False)
    await talk.until("response.done")
    (turn,) = await turns(talk, exporter, 1)
    assert len(engine.parents) == 2
    assert header(turn) == engine.parents[1]
    assert turn.attributes is not None
    assert turn.attributes["aqaa.speculated"] is True


async def test_an_interrupted_turn_is_cancelled_and_a_failed_one_an_error(
    talk: Talk, engine: TracedEngine, exporter: InMemorySpanExporter
) -> None:
    engine.answer, engine.seconds = lambda prompt: woven("a long answer", 60), 0.002
    await speak_and_pause(talk)
    await talk.until("response.output_audio.delta")
    await talk.send("response.cancel")
    (cut,) = await turns(talk, exporter, 1)
    assert cut.attributes is not None
    assert cut.attributes["aqaa.status"] == "cancelled"
    assert cut.status.status_code is StatusCode.UNSET

    engine.seconds, engine.dies_after = 0.0, 20
    await speak_and_pause(talk)
    await talk.until("response.done", 2)
    failed = (await turns(talk, exporter, 2))[1]
    assert failed.attributes is not None
    assert failed.attributes["aqaa.status"] == "failed"
    assert failed.attributes["error.type"] == "engine_died"
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.status.description is None


async def test_spans_hold_ids_numbers_and_states_and_no_words(
    talk: Talk, engine: TracedEngine, exporter: InMemorySpanExporter
) -> None:
    content = [{"type": "input_text", "text": "my secret"}]
    message = {"type": "message", "role": "user", "content": content}
    await talk.send("session.update", session={"instructions": "be my secret keeper"})
    await talk.send("conversation.item.create", item=message)
    await talk.send("response.create", response={"metadata": {"who": "my secret"}})
    await talk.until("response.done")
    await turns(talk, exporter, 1)
    for span in exporter.get_finished_spans():
        assert span.name in {"turn", *STAGES}
        assert not span.events
        for value in dict(span.attributes or {}).values():
            named = str(value).startswith(("sess_", "resp_")) or value in KNOWN_STATES
            assert named or isinstance(value, int | float), value


async def test_a_rest_answer_is_a_turn_too(
    engine: TracedEngine, exporter: InMemorySpanExporter
) -> None:
    parts = traced(scripted_parts(engine), exporter)
    async with single_answer(parts, [UserTurn(("hi",))], voice="joe", spoken=True) as answer:
        while not isinstance(await answer.next(), AnswerEnd):
            pass
    parts.services.executor.close()
    names = [span.name for span in exporter.get_finished_spans()]
    assert names == ["first_token", "first_group", "first_sound", "turn"]
    attributes = exporter.get_finished_spans()[-1].attributes
    assert attributes is not None
    assert "session.id" not in attributes


async def test_vllm_gets_the_turn_in_its_generate_request(
    tmp_path: Path, exporter: InMemorySpanExporter
) -> None:
    parts = traced(scripted_parts(), exporter)
    async with TokenServer() as server:
        settings = VllmHttpSettings(url=server.url)
        vllm = VllmHttpEngine(bundle_without_weights(tmp_path), settings)
        await vllm.start()
        services = replace(parts.services, engine=vllm)
        params = SamplingParams(temperature=0, max_tokens=5)
        request = AnswerRequest((100,), params, "joe", 1.0, spoken=False)
        answer = Answer(services, "s", request, parts.parser(), None, paced=False)
        while not isinstance(await answer.next(), AnswerEnd):
            pass
        await answer.stop()
        await vllm.close()
    parts.services.executor.close()
    (generate,) = server.generates
    assert generate.headers["traceparent"] == header(exporter.get_finished_spans()[-1])


async def test_without_a_tracer_the_decoder_is_told_of_none(engine: TracedEngine) -> None:
    parts = scripted_parts(engine)
    async with single_answer(parts, [UserTurn(("hi",))], voice="joe", spoken=True) as answer:
        while not isinstance(await answer.next(), AnswerEnd):
            pass
    parts.services.executor.close()
    assert engine.parents == [None]


def some_turn(tracer: TurnTracer) -> TurnRecord:
    timeline = Timeline(speech_end=10.0, turn_end=10.2, tokenise=10.25, first_token=10.3)
    return TurnRecord(tracer.begin(), timeline, 10.1, {"aqaa.status": "failed"}, "engine_died")


def test_what_is_not_sampled_is_not_recorded_and_the_decoder_is_told_so(
    monkeypatch: pytest.MonkeyPatch, exporter: InMemorySpanExporter
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    tracer = TurnTracer(SimpleSpanProcessor(exporter))
    turn = some_turn(tracer)
    tracer.record(turn, 11.0)
    assert traces.traceparent_of(turn.context).endswith("-00")
    assert exporter.get_finished_spans() == ()


def test_nothing_is_traced_without_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.setenv(name, "")
    assert tracer_of_environment() is None


def test_a_protocol_that_is_not_spoken_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ConfigError, match="4318"):
        tracer_of_environment()


@pytest.mark.parametrize(("given", "name"), [(None, "aqaa"), ("voice-eu", "voice-eu")])
def test_a_collector_gets_the_spans_by_otlp(
    monkeypatch: pytest.MonkeyPatch, given: str | None, name: str
) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        if given is not None:
            monkeypatch.setenv("OTEL_SERVICE_NAME", given)
        tracer = tracer_of_environment()
        assert tracer is not None
        turn = some_turn(tracer)
        tracer.record(turn, 11.0)
        tracer.close()
    assert collector.paths == {"/v1/traces"}
    assert collector.services == {name}
    lasted = {
        s.name: (s.end_time_unix_nano - s.start_time_unix_nano) / 1e9 for s in collector.spans
    }
    assert lasted == pytest.approx(
        {"turn_end": 0.2, "tokenise": 0.05, "first_token": 0.05, "turn": 1.0}, abs=1e-6
    )
    whole = next(span for span in collector.spans if span.name == "turn")
    assert whole.trace_id == turn.context.trace_id.to_bytes(16, "big")
    assert whole.span_id == turn.context.span_id.to_bytes(8, "big")
    assert {s.parent_span_id for s in collector.spans if s is not whole} == {whole.span_id}


def test_a_collector_that_hangs_costs_spans_and_no_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    monkeypatch.setattr(traces, "CLOSE_SECONDS", 0.2)
    caplog.set_level(logging.WARNING)
    with collecting() as collector:
        collector.open.clear()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        tracer = tracer_of_environment()
        assert tracer is not None
        for _ in range(2):  # eight spans: a batch
            tracer.record(some_turn(tracer), 11.0)
        assert collector.asked.wait(10)
        began = time.monotonic()
        for _ in range(100):
            tracer.record(some_turn(tracer), 11.0)
        assert time.monotonic() - began < 2.0  # one answer of this collector never comes
        tracer.close()
        assert time.monotonic() - began < 4.0
        collector.open.set()
        for thread in threading.enumerate():
            if thread.name == "OtelBatchSpanRecordProcessor":
                thread.join(10)
    assert "Queue full" in caplog.text
    assert len(collector.spans) == 8 + 16  # the first batch, and what the queue held
