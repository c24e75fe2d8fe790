"""`POST /v1/chat/completions`, in OpenAI's audio shape, whole or streamed."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from aqaa.models.errors import AqaaError, AudioError, InputError, PromptError
from aqaa.server.answering.answer import (
    Answer,
    AnswerCall,
    AnswerEnd,
    AnswerEvent,
    AnswerSound,
    AnswerText,
)
from aqaa.server.answering.single_answer import (
    check_answered,
    render,
    single_answer,
    tokenise_recording,
)
from aqaa.server.dialogue.prompt import AssistantTurn, RenderedTurn, SystemTurn, Turn, UserTurn
from aqaa.server.gateway.encode import RAW, check_container, encode
from aqaa.server.gateway.errors import answer_for
from aqaa.server.gateway.json_input import off_the_loop
from aqaa.server.gateway.schema import ChatMessage, ChatRequest, InputAudioPart, TextPart
from aqaa.server.parts import ModelParts
from aqaa.server.protocol.base64_data import decode_base64
from aqaa.server.protocol.ids import random_id
from aqaa.server.protocol.limits import Limits
from aqaa.server.protocol.types import Json

REMEMBER_SECONDS = 3600  # for which `audio.id` stands for an answer; OpenAI's is an hour too
REMEMBER_ANSWERS = 1000
MOST_RECORDINGS = 8  # of one request: older ones leave with their messages


class Remembered:
    """Answers that later requests may name by `audio.id`: bounded, and for an hour."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, tuple[int, tuple[int, ...]]] = OrderedDict()

    def keep(self, audio_id: str, ids: list[int]) -> int:
        """Remember an answer's ids; returns when it is forgotten (Unix seconds)."""
        expires = int(time.time()) + REMEMBER_SECONDS
        self._answers[audio_id] = (expires, tuple(ids))
        while len(self._answers) > REMEMBER_ANSWERS:
            self._answers.popitem(last=False)
        return expires

    def find(self, audio_id: str) -> tuple[int, ...]:
        """The ids of an answer.

        Raises:
            InputError: it was never given, or is forgotten.
        """
        expires, ids = self._answers.get(audio_id, (0, ()))
        if expires <= time.time():
            raise InputError(
                f"no answer {audio_id!r} is remembered here; send its transcript as `content`"
            )
        return ids


@dataclass(frozen=True)
class Wanted:
    """A request that was understood."""

    turns: list[RenderedTurn]
    spoken: bool
    voice: str
    container: str
    max_tokens: int | None


@dataclass
class Collected:
    """An answer so far."""

    text: str = ""
    pcm: list[bytes] = field(default_factory=list)
    text_tokens: int = 0
    audio_tokens: int = 0
    calls: list[AnswerCall] = field(default_factory=list)
    over: AnswerEnd | None = None

    def take(self, said: AnswerEvent) -> None:
        """Add what was said."""
        match said:
            case AnswerText():
                self.text += said.text
                self.text_tokens += said.tokens
            case AnswerSound():
                self.pcm.append(said.data)
                self.audio_tokens += said.tokens
            case AnswerCall():
                self.calls.append(said)
                self.text_tokens += said.tokens
            case AnswerEnd():
                self.over = said

    @property
    def finish_reason(self) -> str:
        """In OpenAI's words."""
        cut = self.over is not None and self.over.status == "max_output_tokens"
        return "length" if cut else "stop"


async def understand(parts: ModelParts, request: ChatRequest, remembered: Remembered) -> Wanted:
    """What a request asks for.

    Raises:
        InputError: something in it cannot be done; the message says what.
    """
    spoken = "audio" in (request.modalities or ["text"])
    audio = request.audio
    if spoken and audio is None:
        raise InputError('modalities has "audio": say how in `audio` ({"voice", "format"})')
    container = check_container(audio.format) if audio is not None else RAW
    if spoken and request.stream and container != RAW:
        raise InputError('a streamed answer has audio.format "pcm16"; files come whole')
    named = audio.voice if audio is not None else ""
    name = str(named.get("id", "")) if isinstance(named, dict) else named
    messages = _recent(request.messages, parts.limits())
    turns = [t for m in messages if (t := await _turn(parts, m, remembered)) is not None]
    if not any(isinstance(turn, UserTurn) for turn in turns):
        raise InputError("the messages hold no question: give a user's text or audio")
    if not any(isinstance(turn, SystemTurn) for turn in turns) and _default_system(parts):
        turns.insert(0, SystemTurn(_default_system(parts)))
    rendered = await render(parts, turns)
    parts.prompts.finished(rendered)  # what cannot be asked is refused before a stream begins
    return Wanted(
        turns=rendered,
        spoken=spoken,
        voice=parts.voices.find(name, "audio.voice"),
        container=container,
        max_tokens=request.max_completion_tokens or request.max_tokens,
    )


def _default_system(parts: ModelParts) -> str:
    return parts.bundle.decoder.system_prompt


async def _turn(parts: ModelParts, message: ChatMessage, remembered: Remembered) -> Turn | None:
    if message.role in ("tool", "function"):
        return None
    if message.role == "assistant" and message.audio is not None:
        return AssistantTurn(remembered.find(message.audio.id))
    contents: list[str | tuple[int, ...]] = []
    content = message.content or []
    for part in [content] if isinstance(content, str) else content:
        if isinstance(part, str):
            contents.append(part)
        elif isinstance(part, InputAudioPart):
            data = part.input_audio.data
            recording = await off_the_loop(len(data), _decode, data)
            contents.append(await tokenise_recording(parts, recording))
        else:
            contents.append(part.text if isinstance(part, TextPart) else part.refusal)
    contents = [part for part in contents if part]
    if not contents:
        return None
    if message.role == "user":
        return UserTurn(tuple(contents))
    written = "\n".join(part for part in contents if isinstance(part, str))
    if message.role == "assistant":
        return AssistantTurn(written)
    return SystemTurn(written)


def _decode(data: str) -> bytes:
    try:
        return decode_base64(data)
    except ValueError as error:
        raise AudioError(f"input_audio.data: {error}") from None


def _recent(messages: Sequence[ChatMessage], limits: Limits) -> list[ChatMessage]:
    """The system's messages, and of the others the newest that can be in a prompt.

    Raises:
        PromptError: the newest message, or the system's together, are too long for any prompt.
    """
    system = [m for m in messages if m.role in ("system", "developer")]
    others = [m for m in messages if m.role not in ("system", "developer")]
    kept: list[ChatMessage] = []
    size = sum(_characters(message) for message in system)
    recordings = 0
    for message in reversed(others):
        size += _characters(message)
        recordings += _recordings(message)
        if size > limits.conversation_text or recordings > MOST_RECORDINGS:
            break
        kept.append(message)
    if size > limits.conversation_text and len(kept) < min(1, len(others)):
        raise PromptError(
            f"the newest message and the instructions have {size} characters; a prompt holds at"
            f" most {limits.conversation_text}"
        )
    return [*system, *reversed(kept)]


def _characters(message: ChatMessage) -> int:
    content = message.content or ""
    if isinstance(content, str):
        return len(content)
    return sum(len(part.text) for part in content if isinstance(part, TextPart))


def _recordings(message: ChatMessage) -> int:
    parts = message.content if isinstance(message.content, list) else []
    return sum(isinstance(part, InputAudioPart) for part in parts)


class Completion:
    """One request's answer, in OpenAI's objects."""

    def __init__(self, parts: ModelParts, request: ChatRequest, wanted: Wanted) -> None:
        self._parts = parts
        self._request = request
        self._wanted = wanted
        self._id = random_id("chatcmpl")
        self._audio_id = random_id("audio")
        self._created = int(time.time())

    async def whole(self, remembered: Remembered) -> Json:
        """The `chat.completion`.

        Raises:
            EngineError: the answer failed.
            EngineBusyError: no room for now.
            PromptError: the messages do not fit the context.
        """
        async with self._asking() as answer:
            got = Collected()
            while got.over is None:
                got.take(await answer.next())
            check_answered(got.over)
            message: Json = {"role": "assistant", "content": got.text, "refusal": None}
            if self._wanted.spoken:
                pcm = b"".join(got.pcm)
                file = await asyncio.to_thread(encode, pcm, self._wanted.container)
                message["content"] = None
                message["audio"] = {
                    "id": self._audio_id,
                    "data": base64.b64encode(file).decode("ascii"),
                    "expires_at": remembered.keep(self._audio_id, answer.progress.ids),
                    "transcript": got.text,
                }
            choice = {
                "index": 0,
                "message": message,
                "finish_reason": got.finish_reason,
                "logprobs": None,
            }
            usage = self._usage(answer, got)
            return {**self._head("chat.completion"), "choices": [choice], "usage": usage}

    async def stream(self, remembered: Remembered) -> AsyncIterator[bytes]:
        """The server-sent events of `chat.completion.chunk`s, `[DONE]` last.

        A failure after the first of them is an event with an `error`, for the status is sent.
        """
        got = Collected()
        async with self._asking() as answer:
            yield self._event({"role": "assistant", "content": None if self._wanted.spoken else ""})
            while got.over is None:
                said = await answer.next()
                got.take(said)
                delta = self._delta(said)
                if delta is not None:
                    yield self._event(delta)
            try:
                check_answered(got.over)
            except AqaaError as error:
                yield b"data: " + bytes(answer_for(error).body) + b"\n\n"
                return
            if self._wanted.spoken:
                expires = remembered.keep(self._audio_id, answer.progress.ids)
                yield self._event({"audio": {"expires_at": expires}})
            yield self._event({}, got.finish_reason)
            options = self._request.stream_options
            if options is not None and options.include_usage:
                usage = self._usage(answer, got)
                yield _sse({**self._head("chat.completion.chunk"), "choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"

    def _asking(self) -> Any:
        request, wanted = self._request, self._wanted
        return single_answer(
            self._parts,
            wanted.turns,
            voice=wanted.voice,
            spoken=wanted.spoken,
            max_tokens=wanted.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
        )

    def _delta(self, said: AnswerEvent) -> Json | None:
        match said:
            case AnswerText() if self._wanted.spoken:
                return {"audio": {"id": self._audio_id, "transcript": said.text}}
            case AnswerText():
                return {"content": said.text}
            case AnswerSound() if said.data:
                data = base64.b64encode(said.data).decode("ascii")
                return {"audio": {"id": self._audio_id, "data": data}}
            case _:
                return None

    def _event(self, delta: Json, finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return _sse({**self._head("chat.completion.chunk"), "choices": [choice]})

    def _head(self, kind: str) -> Json:
        name = self._parts.bundle.name
        return {"id": self._id, "object": kind, "created": self._created, "model": name}

    def _usage(self, answer: Answer, got: Collected) -> Json:
        prompt = answer.request.prompt
        text_in, audio_in = self._parts.prompts.kinds(prompt)
        return {
            "prompt_tokens": len(prompt),
            "completion_tokens": got.text_tokens + got.audio_tokens,
            "total_tokens": len(prompt) + got.text_tokens + got.audio_tokens,
            "prompt_tokens_details": {
                "text_tokens": text_in,
                "audio_tokens": audio_in,
                "cached_tokens": answer.progress.reused,
            },
            "completion_tokens_details": {
                "text_tokens": got.text_tokens,
                "audio_tokens": got.audio_tokens,
                "reasoning_tokens": 0,
            },
        }


def _sse(body: Json) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"
