"""From a bundle's directory to parts that answer: load all at once, then warm them up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from aqaa.models.bundle import TOKENIZER_RATE, Bundle, load_bundle
from aqaa.models.errors import EngineError
from aqaa.models.groups import GROUP_SECONDS, GROUP_TOKENS
from aqaa.server.answering.answer_events import AnswerEnd
from aqaa.server.answering.single_answer import single_answer
from aqaa.server.audio.recordings import RecordingDecoder
from aqaa.server.clock import MonotonicClock
from aqaa.server.compute.chunk_delays import ChunkDelays
from aqaa.server.compute.cores import available_cores
from aqaa.server.compute.devices import flow_dtype, keep_float32, place, visible_gpus
from aqaa.server.compute.executor import Executor
from aqaa.server.compute.model import Work
from aqaa.server.compute.places import IdPace, Need, Places, Punctuality
from aqaa.server.compute.plan import PUSH_SECONDS
from aqaa.server.compute.torch_threads import set_torch_threads
from aqaa.server.config import Settings
from aqaa.server.dialogue.answer_ids import ids_before_groups, spoken_ids
from aqaa.server.dialogue.prompt import PromptBuilder, SystemTurn, Turn, UserTurn
from aqaa.server.engine.contract import Engine
from aqaa.server.hearing.choose_judge import choose_judge
from aqaa.server.hearing.tokenising import GPU_BATCH, Tokenising
from aqaa.server.hearing.vad import CALL_SAMPLES, FRAME_SAMPLES, VadModel
from aqaa.server.observe.metrics import Metrics
from aqaa.server.observe.traces import tracer_of_environment
from aqaa.server.parts import ModelParts, Services, synthesis_of, voices_of
from aqaa.server.urgency import Kind
from aqaa.tokenizers.dual import DualTokenizer
from aqaa.tokenizers.text import TextTokenizer
from aqaa.tokenizers.transcriber import Transcriber
from aqaa.tokenizers.transcriber_loading import load_transcriber
from aqaa.vocoder.vocoder import Vocoder
from aqaa.vocoder.voices import check_markers

log = logging.getLogger(__name__)

T = TypeVar("T")

WARM_SECONDS = 1.0  # of noise that is tokenised
WARM_TOKENS = 100  # ids of the answer to it: several groups, so that the vocoder's chunks grow
WARM_GROUPS = 12
MAX_DEFAULT_THREADS = 8  # beyond, more cores serve one call better than more calls
HEADER_TOKENS = 64  # of a prompt beside its speech, generously; instructions come on top


@dataclass(frozen=True)
class Runtime:
    """Loaded parts that must be closed again."""

    parts: ModelParts
    loaded_seconds: float

    @classmethod
    async def load(
        cls, settings: Settings, loaded: Callable[[str], None] = lambda part: None
    ) -> Runtime:
        """Load the bundle's parts side by side, start the engine, and go once all the way.

        `loaded` is told of each part by name: tokenizer, vocoder, vad, engine.

        Raises:
            AqaaError: the bundle cannot be used, or the engine does not come up; says why.
        """
        began = time.monotonic()
        tracer = tracer_of_environment()
        bundle = load_bundle(settings.model)
        compute, gpus = settings.compute, visible_gpus()
        keep_float32()
        hearing = place(compute.hearing_device, gpus)
        speaking = place(compute.speaking_device, gpus)
        log.info("hearing on %s (%s)", hearing.device, hearing.reason)
        log.info("speaking on %s (%s)", speaking.device, speaking.reason)
        dtype = flow_dtype(compute.speaking_dtype, speaking.device)
        load_vocoder = partial(Vocoder.load, bundle.vocoder, bundle.voices, speaking.device, dtype)

        async def part(name: str, loading: Awaitable[T]) -> T:
            result = await loading
            loaded(name)
            return result

        (tokenizer, transcriber), vocoder, text, vad, judging, engine = await asyncio.gather(
            part("tokenizer", asyncio.to_thread(_load_ears, bundle, hearing.device)),
            part("vocoder", asyncio.to_thread(load_vocoder)),
            asyncio.to_thread(TextTokenizer.of, bundle),
            part("vad", asyncio.to_thread(VadModel.load)),
            asyncio.to_thread(choose_judge, bundle),
            part("engine", _start_engine(bundle, settings)),
        )
        check_markers(bundle, vocoder.voices)
        judge, why = judging
        log.info("ends of turns by %s (%s)", "silence" if judge is None else judge.name, why)
        recordings = RecordingDecoder()
        recordings.start()
        metrics = Metrics()
        clock = MonotonicClock()
        punctuality, pace = Punctuality(clock), IdPace(spoken_ids(bundle.tokens))
        threads = compute.threads or _default_threads()
        executor = Executor(
            threads,
            clock=clock,
            meters=[metrics.compute, punctuality],
            on_thread_start=partial(set_torch_threads, max(1, available_cores() // threads)),
        )
        metrics.watch(engine.stats, executor.waiting)
        if hearing.device != "cpu":
            await asyncio.to_thread(tokenizer.warm, GPU_BATCH)
        tokenising = Tokenising(tokenizer, hearing.device)
        synthesis = synthesis_of(vocoder)
        needs = [
            Need(
                cost=partial(executor.seconds, vad.model),
                each_second=TOKENIZER_RATE / FRAME_SAMPLES,
                before_sound=1,
                device="cpu",
            ),
            Need(
                cost=partial(executor.seconds, tokenising.model),
                each_second=_tokenizer_calls(bundle),
                before_sound=_tokenizer_calls(bundle) * PUSH_SECONDS,
                device=hearing.device,
            ),
            Need(
                cost=lambda: engine.stats().seconds_per_id,
                each_second=spoken_ids(bundle.tokens),
                before_sound=ids_before_groups(bundle.tokens, vocoder.first_groups),
                device="cpu",
            ),
            Need(
                cost=partial(executor.seconds, synthesis),
                each_second=_vocoder_calls(bundle),
                before_sound=1,
                device=speaking.device,
            ),
        ]
        places = Places(available_cores(), needs, punctuality, pace)
        parts = ModelParts(
            bundle=bundle,
            tokenizer=tokenizer,
            tokenising=tokenising,
            transcriber=transcriber,
            vad=vad,
            judge=judge,
            text=text,
            prompts=PromptBuilder.of(bundle, text),
            voices=voices_of(tuple(vocoder.voices), bundle.voices.default),
            services=Services(
                engine=engine,
                vocoder=vocoder,
                synthesis=synthesis,
                executor=executor,
                recordings=recordings,
                pace=pace,
                chunk_delays=ChunkDelays(clock),
                metrics=metrics,
                clock=clock,
                ahead_seconds=settings.ahead_seconds,
                tracer=tracer,
            ),
            max_turn_seconds=min(settings.max_turn_seconds, _longest_turn(bundle)),
            speculation=settings.speculation,
            places=places,
        )
        runtime = cls(parts, time.monotonic() - began)
        await runtime._warm_up(vocoder)
        return runtime

    async def close(self) -> None:
        """Give everything back."""
        await self.parts.services.engine.close()
        await asyncio.to_thread(self.parts.services.executor.close)
        await asyncio.to_thread(self.parts.services.recordings.close)
        if self.parts.services.tracer is not None:
            await asyncio.to_thread(self.parts.services.tracer.close)

    async def _warm_up(self, vocoder: Vocoder) -> None:
        """A whole turn, so that no user pays for first calls: kernels, buffers, thread pools."""
        began = time.monotonic()
        parts = self.parts
        noise = np.random.default_rng(0).normal(0, 0.05, round(TOKENIZER_RATE * WARM_SECONDS))
        hearing = _hear(parts, noise.astype(np.float32))
        tokens = await parts.services.executor.run(hearing, Kind.BULK)
        system = parts.bundle.decoder.system_prompt
        turns: list[Turn] = [SystemTurn(system)] if system else []
        turns.append(UserTurn((tuple(tokens),)))
        voice = parts.voices.default
        answer = single_answer(parts, turns, voice=voice, spoken=True, max_tokens=WARM_TOKENS)
        async with answer as said:
            while not isinstance(over := await said.next(), AnswerEnd):
                pass
        if over.status == "failed":
            raise EngineError(f"the first answer failed ({over.code}): see the log above")
        await asyncio.to_thread(vocoder.warm, parts.voices.default, WARM_GROUPS)
        log.info(
            "parts loaded in %.1f s, warmed up in %.1f s",
            self.loaded_seconds,
            time.monotonic() - began,
        )


def _tokenizer_calls(bundle: Bundle) -> float:
    """Calls of both tokenizers' networks for a second of speech."""
    return 1 / PUSH_SECONDS + 1000 / bundle.tokenizer.streaming.chunk_ms


def _vocoder_calls(bundle: Bundle) -> float:
    """Chunks in a second of an answer that has been going on for a while."""
    return 1 / (bundle.vocoder.chunk_groups[-1] * GROUP_SECONDS)


def _longest_turn(bundle: Bundle) -> float:
    """Seconds of speech that leave room in the context for an answer and the turn's headers."""
    context = bundle.decoder.context
    room = context - min(bundle.sampling.max_tokens, context // 2) - HEADER_TOKENS
    return room // GROUP_TOKENS * GROUP_SECONDS


def _hear(parts: ModelParts, samples: NDArray[np.float32]) -> Work[list[int]]:
    yield from parts.vad.stream().push(samples[:CALL_SAMPLES])
    tokenising = parts.tokenising
    stream = tokenising.stream()
    ids = yield from tokenising.push(stream, samples[: samples.size // 2])
    if parts.judge is not None:
        listener = parts.judge.listen()
        listener.hear(samples[: samples.size // 2], ids)
        yield from listener.chance_of_end(())
    ids += yield from tokenising.push(stream, samples[samples.size // 2 :])
    end = stream.fork()
    ids += yield from tokenising.flush(end)
    if parts.transcriber is not None:
        words = parts.transcriber.stream()
        for window in end.take_windows():
            words.push(window)
    return ids


def _load_ears(bundle: Bundle, device: str) -> tuple[DualTokenizer, Transcriber | None]:
    tokenizer = DualTokenizer.load(bundle, device)
    return tokenizer, load_transcriber(bundle, tokenizer.linguistic, device)


async def _start_engine(bundle: Bundle, settings: Settings) -> Engine:
    from aqaa.server.engine.select import create_engine  # an engine's packages load when chosen

    engine = await asyncio.to_thread(create_engine, bundle, settings.engine)
    await engine.start()
    return engine


def _default_threads() -> int:
    """Three at least, so that a vocoder's chunk and a download leave one to the microphones."""
    return min(MAX_DEFAULT_THREADS, max(3, available_cores()))
