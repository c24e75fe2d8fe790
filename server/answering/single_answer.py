"""One question and one answer without a session: what the REST endpoints do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import numpy as np
from numpy.typing import NDArray

from aqaa.models.errors import CallError, EngineBusyError, EngineError, PromptError
from aqaa.server.answering.answer import Answer, AnswerRequest
from aqaa.server.answering.answer_events import AnswerEnd
from aqaa.server.answering.error_code import INVALID_CALL
from aqaa.server.compute.model import Work, work_of
from aqaa.server.dialogue.prompt import RenderedTurn, Turn
from aqaa.server.dialogue.tools import Calling
from aqaa.server.hearing.no_speech import check_speech
from aqaa.server.parts import ModelParts, output_of
from aqaa.server.protocol.ids import random_id
from aqaa.server.protocol.response import FAILURES
from aqaa.server.protocol.types import PcmFormat, bytes_per_second
from aqaa.server.urgency import Kind

REST_FORMAT = PcmFormat(rate=24000)  # what OpenAI's pcm16 is; files are encoded from it


async def tokenise_recording(parts: ModelParts, data: bytes) -> tuple[int, ...]:
    """The audio tokens of a recorded question, in any container that `audio.files` reads.

    Raises:
        AudioError: it is no such recording, or longer than a turn may be.
        NoSpeechError: nobody speaks in it.
    """
    samples = await parts.services.recordings.decode(data, parts.max_turn_seconds)
    return await parts.services.executor.run(_tokenise(parts, samples), Kind.BULK)


def _tokenise(parts: ModelParts, samples: NDArray[np.float32]) -> Work[tuple[int, ...]]:
    yield from check_speech(parts.vad.stream(), samples)
    encoded = yield from parts.tokenising.encode(samples)
    return tuple(encoded.ids)


async def render(parts: ModelParts, turns: Sequence[Turn | RenderedTurn]) -> list[RenderedTurn]:
    """The turns as ids, computed off the event loop.

    Raises:
        PromptError: audio is not whole groups of audio ids.
    """
    work = work_of(lambda: [parts.prompts.render(turn) for turn in turns])
    return await parts.services.executor.run(work, Kind.BULK)


def check_answered(end: AnswerEnd) -> None:
    """Turn a failed answer into the error that its asker is told.

    Raises:
        PromptError: the decoder cannot take so long a prompt; its own words.
        EngineBusyError: it takes no more for now.
        CallError: it began to call a function, and not as it is declared.
        EngineError: any other failure, by its code: the reason is the operator's, and in the log.
    """
    match end.code:
        case None:
            return
        case "context_length_exceeded":
            raise PromptError(end.reason)
        case "engine_busy":
            raise EngineBusyError("the decoder is busy: try again in a moment")
        case code if code == INVALID_CALL:
            raise CallError(FAILURES[code])
        case _:
            raise EngineError(f"the answer failed ({end.code}); try again")


@asynccontextmanager
async def single_answer(
    parts: ModelParts,
    turns: Sequence[Turn | RenderedTurn],
    *,
    voice: str,
    spoken: bool,
    speed: float = 1.0,
    max_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    calling: Calling | None = None,
) -> AsyncIterator[Answer]:
    """The answer to `turns`, for the length of a `with`; sound is pcm16 at 24 kHz.

    Raises:
        PromptError: the turns cannot be made a prompt.
        InputError: a sampling parameter outside its range.
    """
    asked = parts.prompts.finished(await render(parts, turns))
    prompt, usual = parts.asked(asked, max_tokens, calling)
    params = replace(
        usual,
        temperature=usual.temperature if temperature is None else temperature,
        top_p=usual.top_p if top_p is None else top_p,
        seed=seed,
    )
    request = AnswerRequest(prompt, params, voice, speed, spoken, calling)
    key = random_id("rest")
    answer = Answer(
        parts.services,
        key,
        request,
        parts.parser(calling),
        output_of(REST_FORMAT) if spoken else None,
        bytes_per_second=bytes_per_second(REST_FORMAT),
        paced=False,
    )
    try:
        yield answer
    finally:
        # Starlette cancels a response whose reader has left at each turn of the loop.
        with anyio.CancelScope(shield=True):
            await answer.stop()
            await parts.services.engine.release(key)
