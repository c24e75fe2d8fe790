"""OpenTelemetry traces: one span a turn, with the stages of its heard latency as children.

A turn's ids are drawn when its answer begins, so that the decoder's own span can join by
`traceparent`; its spans are made when it is over, since only then it is known that it was a turn
and no speculation in vain. Their attributes are ids, counts and states: no words, no keys.

Spans go by OTLP over HTTP, from a thread of the SDK's with a bounded queue, to where the standard
variables say (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, `OTEL_BSP_*`, ...).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from opentelemetry.context import Context
from opentelemetry.sdk.environment_variables import (
    OTEL_EXPORTER_OTLP_ENDPOINT,
    OTEL_EXPORTER_OTLP_PROTOCOL,
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL,
)
from opentelemetry.sdk.resources import (
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)

from aqaa.models.errors import ConfigError
from aqaa.server.observe.latency import Timeline

log = logging.getLogger(__name__)

PROTOCOL = "http/protobuf"
CLOSE_SECONDS = 5.0  # for what is not yet sent: a collector that hangs must not hold the end up


@dataclass(frozen=True)
class TurnRecord:
    """A turn that is over; times in seconds of its session's clock."""

    context: SpanContext  # from `TurnTracer.begin`
    timeline: Timeline
    started: float  # work on the answer: before the turn's end, where it was a speculation
    attributes: Mapping[str, str | int | float | bool]
    error: str | None = None  # the code of what made it fail

    @property
    def begin(self) -> float:
        """When its heard latency begins; without speech, when it was asked for."""
        known = (self.timeline.speech_end, self.timeline.turn_end, self.started)
        return next(moment for moment in known if moment is not None)


class _ChosenIds(RandomIdGenerator):
    """Random ids, except that the next span may be given the ids that a turn has already."""

    def __init__(self) -> None:
        self._trace_id: int | None = None
        self._span_id: int | None = None

    def choose(self, context: SpanContext) -> None:
        self._trace_id, self._span_id = context.trace_id, context.span_id

    def generate_trace_id(self) -> int:
        chosen, self._trace_id = self._trace_id, None
        return super().generate_trace_id() if chosen is None else chosen

    def generate_span_id(self) -> int:
        chosen, self._span_id = self._span_id, None
        return super().generate_span_id() if chosen is None else chosen


class TurnTracer:
    """Makes the spans of turns. For one thread: the event loop's."""

    def __init__(self, processor: SpanProcessor) -> None:
        """Spans go to `processor`, which must not block."""
        self._ids = _ChosenIds()
        ours = Resource.create({SERVICE_NAME: "aqaa", SERVICE_VERSION: version("aqaa")})
        self._provider = TracerProvider(
            resource=ours.merge(OTELResourceDetector().detect()),  # the operator's names win
            shutdown_on_exit=False,  # `close` does it, within a bound
            id_generator=self._ids,
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("aqaa", version("aqaa"))

    def begin(self) -> SpanContext:
        """The ids of a turn whose answer begins, and whether it is sampled."""
        trace_id = self._ids.generate_trace_id()
        decision = self._provider.sampler.should_sample(None, trace_id, "turn").decision
        sampled = decision is Decision.RECORD_AND_SAMPLE
        flags = TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT
        span_id = self._ids.generate_span_id()
        return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(flags))

    def record(self, turn: TurnRecord, now: float) -> None:
        """Make the spans of a turn that is over now."""
        wall = time.time_ns()

        def at(moment: float) -> int:
            return wall - round((now - moment) * 1e9)

        begin = turn.begin
        self._ids.choose(turn.context)
        span = self._tracer.start_span(
            "turn", Context(), SpanKind.SERVER, dict(turn.attributes), start_time=at(begin)
        )
        within = set_span_in_context(span, Context())
        for name, since, until in turn.timeline.intervals(begin):
            stage = self._tracer.start_span(name, within, start_time=at(since))
            stage.end(at(until))
        if turn.error is not None:
            span.set_attribute("error.type", turn.error)
            span.set_status(Status(StatusCode.ERROR))
        span.end(wall)

    def close(self) -> None:
        """Send what is left, for a bounded time. Blocks."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


def traceparent_of(context: SpanContext) -> str:
    """The W3C header that makes another program's span a child of this one."""
    trace_id, span_id = format_trace_id(context.trace_id), format_span_id(context.span_id)
    return f"00-{trace_id}-{span_id}-{context.trace_flags:02x}"


def tracer_of_environment() -> TurnTracer | None:
    """A tracer that sends to the OTLP endpoint of the environment; None where there is none.

    Raises:
        ConfigError: the environment asks for another protocol than OTLP over HTTP.
    """
    endpoints = (OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT)
    if not any(os.environ.get(name) for name in endpoints):
        return None
    for name in (OTEL_EXPORTER_OTLP_TRACES_PROTOCOL, OTEL_EXPORTER_OTLP_PROTOCOL):
        protocol = os.environ.get(name) or PROTOCOL
        if protocol != PROTOCOL:
            raise ConfigError(
                f"{name} is {protocol!r}: traces are sent as {PROTOCOL} only; unset it and give "
                "the collector's HTTP port (4318)"
            )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    log.info("turns are traced")
    return TurnTracer(BatchSpanProcessor(OTLPSpanExporter()))
