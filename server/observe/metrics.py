"""What `/metrics` tells, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from aqaa.server.engine.contract import EngineStats

# Seconds; dense around the 0.6 s that a heard answer may take.
BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 1.2, 2, 5)

# kept; the user went on; nobody asked for it after all; another answer was asked for; the machine
# was too busy to start it
SPECULATION_OUTCOMES = ("hit", "rolled_back", "abandoned", "mismatched", "failed", "no_slack")

# the judge's word of a silence that ended a turn (`hearing.end_of_turn.Word`)
END_WORDS = ("sure", "likely", "unsure", "unlikely", "plain")

# What speech into an answer is taken for; all but the first leave the answer as it is.
VERDICTS = ("interruption", "backchannel", "noise", "echo")

# Seconds until work was due when it was done; below 0: late.
SLACK_BUCKETS = (-2.0, -1.0, -0.5, -0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2, 0.5, 1, 2, 4, 8)
BATCH_BUCKETS = (1, 2, 3, 4, 6, 8, 16, 32, 64)
BATCH_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class ComputeMetrics:
    """How the models other than the decoder keep up (`compute.executor.Meter`)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._slack = Histogram(
            "aqaa_compute_slack_seconds",
            "Time left until work was due when it was done; its deadline is shifted by its kind",
            ["kind"],
            buckets=SLACK_BUCKETS,
            registry=registry,
        )
        self._met = Counter(
            "aqaa_compute_deadlines",
            "Work with a deadline, by whether it was met",
            ["kind", "met"],
            registry=registry,
        )
        self._size = Histogram(
            "aqaa_compute_batch_size",
            "Calls in one batch",
            ["model"],
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self._seconds = Histogram(
            "aqaa_compute_batch_seconds",
            "What a batch took",
            ["model"],
            buckets=BATCH_SECONDS,
            registry=registry,
        )

    def batch(self, model: str, size: int, seconds: float) -> None:
        """A batch of `size` calls of this model took `seconds`."""
        self._size.labels(model).observe(size)
        self._seconds.labels(model).observe(seconds)

    def done(self, kind: str, slack: float) -> None:
        """Work of this kind is done, `slack` seconds before it was due (negative: after)."""
        self._slack.labels(kind).observe(slack)
        self._met.labels(kind, "yes" if slack >= 0 else "no").inc()


class Metrics:
    """One server's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.compute = ComputeMetrics(r)
        self.heard = Histogram(
            "aqaa_heard_latency_seconds",
            "From the last sample of speech to the first sound of the answer",
            buckets=BUCKETS,
            registry=r,
        )
        self.stage = Histogram(
            "aqaa_latency_stage_seconds",
            "What the heard latency was made of",
            ["stage"],
            buckets=BUCKETS,
            registry=r,
        )
        self.underruns = Counter(
            "aqaa_underruns", "Sounds that came after the one before had been played", registry=r
        )
        self.gap = Counter(
            "aqaa_underrun_seconds", "Seconds for which a client had nothing to play", registry=r
        )
        self.sessions = Gauge("aqaa_active_sessions", "Open WebSocket sessions", registry=r)
        self.places = Gauge(
            "aqaa_places", "Sessions that may be open, by what their work takes now", registry=r
        )
        self.requests = Gauge("aqaa_active_requests", "REST answers in the making", registry=r)
        self.refused = Counter(
            "aqaa_refused_sessions", "Sessions and requests refused", ["reason"], registry=r
        )
        self.answers = Counter("aqaa_answers", "Answers by how they ended", ["status"], registry=r)
        self.speculations = Counter(
            "aqaa_speculations",
            "Answers started at a pause, by what became of them",
            ["outcome"],
            registry=r,
        )
        for outcome in SPECULATION_OUTCOMES:  # a rate needs its zeros, too
            self.speculations.labels(outcome)
        self.saved = Counter(
            "aqaa_speculation_saved_seconds",
            "Time by which answers that were kept had begun before the turn was over",
            registry=r,
        )
        self.interruptions = Counter(
            "aqaa_interruptions", "Answers that the user spoke into", registry=r
        )
        self.doubted_speech = Counter(
            "aqaa_doubted_speech",
            "Speech into an answer under semantic_vad, by what it was taken for",
            ["verdict"],
            registry=r,
        )
        for verdict in VERDICTS:
            self.doubted_speech.labels(verdict)
        self.regrets = Counter(
            "aqaa_regretted_interruptions",
            "Speech that cut an answer and turned out to be this, for sessions that ask",
            ["verdict"],
            registry=r,
        )
        for verdict in VERDICTS:
            if verdict != "interruption":
                self.regrets.labels(verdict)
        self.reopened_turns = Counter(
            "aqaa_reopened_turns", "Turns that had ended and went on", registry=r
        )
        self.ends = Counter(
            "aqaa_turn_ends",
            "Turns that silence ended, by the judge's word: how likely the end was",
            ["word"],
            registry=r,
        )
        for word in END_WORDS:
            self.ends.labels(word)
        self.endpoint_delay = Histogram(
            "aqaa_endpoint_delay_seconds",
            "From the last sample of speech to the end of the turn",
            buckets=BUCKETS,
            registry=r,
        )
        self.malformed = Counter(
            "aqaa_malformed_groups",
            "Runs of audio ids that were no group; never spoken",
            registry=r,
        )
        self.calls = Counter(
            "aqaa_tool_calls",
            "Functions that the model called: whole, or malformed and not carried out",
            ["outcome"],
            registry=r,
        )
        for outcome in ("whole", "malformed"):
            self.calls.labels(outcome)
        self.store_failures = Counter(
            "aqaa_store_failures", "Calls that the gateways' store did not answer", registry=r
        )
        self.spoken = Counter("aqaa_spoken_seconds", "Seconds of sound sent", registry=r)

    def watch(self, engine: Callable[[], EngineStats], waiting: Callable[[], int]) -> None:
        """Also tell what the engine and the executor's queue say when they are asked."""
        self.registry.register(_Live(engine, waiting))

    def turn_ended(self, word: str, silent_seconds: float, nothing: str | None) -> None:
        """A silence of `silent_seconds` ended a turn; `word` is one of `END_WORDS`.

        `nothing`: what it was, of `VERDICTS`, if it should not have interrupted an answer.
        """
        if nothing is not None:
            self.regrets.labels(nothing).inc()
        self.ends.labels(word).inc()
        self.endpoint_delay.observe(silent_seconds)

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self.registry)


class _Live(Collector):
    def __init__(self, engine: Callable[[], EngineStats], waiting: Callable[[], int]) -> None:
        self._engine = engine
        self._waiting = waiting

    def collect(self) -> list[Metric]:
        stats = self._engine()
        return [
            GaugeMetricFamily("aqaa_queue", "Jobs waiting for a thread", self._waiting()),
            GaugeMetricFamily(
                "aqaa_engine_tokens_per_second", "Ids generated lately", stats.tokens_per_second
            ),
            GaugeMetricFamily("aqaa_engine_running", "Generations in progress", stats.running),
            GaugeMetricFamily("aqaa_engine_sessions", "Sessions with a prefix", stats.sessions),
            GaugeMetricFamily(
                "aqaa_engine_cached_tokens", "Computed ids held", stats.cached_tokens or 0
            ),
            CounterMetricFamily(
                "aqaa_engine_generated_tokens", "Ids generated", stats.generated_tokens
            ),
            CounterMetricFamily(
                "aqaa_engine_computed_tokens", "Prompt ids computed", stats.computed_tokens
            ),
            CounterMetricFamily(
                "aqaa_engine_reused_tokens", "Prompt ids found computed", stats.reused_tokens
            ),
            CounterMetricFamily("aqaa_engine_evictions", "Prefixes dropped", stats.evictions),
        ]
