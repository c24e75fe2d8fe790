"""`POST /v1/chat/completions`, in OpenAI's audio shape, whole or streamed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aqaa.models.errors import AqaaError
from aqaa.server.answering.answer import Answer
from aqaa.server.answering.answer_events import (
    AnswerCall,
    AnswerEnd,
    AnswerEvent,
    AnswerSound,
    AnswerText,
)
from aqaa.server.answering.single_answer import check_answered, single_answer
from aqaa.server.gateway.chat_request import Wanted
from aqaa.server.gateway.encode import encode
from aqaa.server.gateway.errors import answer_for
from aqaa.server.gateway.schema import ChatRequest
from aqaa.server.gateway.store import Store
from aqaa.server.parts import ModelParts
from aqaa.server.protocol.base64_data import encode_base64
from aqaa.server.protocol.ids import random_id
from aqaa.server.protocol.types import Json


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
        if self.over is not None and self.over.status == "max_output_tokens":
            return "length"
        return "tool_calls" if self.calls else "stop"


class Completion:
    """One request's answer, in OpenAI's objects."""

    def __init__(self, parts: ModelParts, request: ChatRequest, wanted: Wanted) -> None:
        self._parts = parts
        self._request = request
        self._wanted = wanted
        self._id = random_id("chatcmpl")
        self._audio_id = random_id("audio")
        self._named = False  # whether the stream has told the sound's id
        self._created = int(time.time())

    async def whole(self, store: Store) -> Json:
        """The `chat.completion`.

        Raises:
            EngineError: the answer failed.
            CallError: it called a function, and not as it is declared.
            EngineBusyError: no room for now.
            PromptError: the messages do not fit the context.
        """
        async with self._asking() as answer:
            got = Collected()
            while got.over is None:
                got.take(await answer.next())
            check_answered(got.over)
            message: Json = {"role": "assistant", "content": got.text, "refusal": None}
            if got.calls:
                message["content"] = got.text or None
                message["tool_calls"] = [self._call(call) for call in got.calls]
            if self._wanted.spoken and (got.audio_tokens or not got.calls):
                pcm = b"".join(got.pcm)
                file = await asyncio.to_thread(encode, pcm, self._wanted.container)
                message["content"] = None
                message["audio"] = {
                    "id": self._audio_id,
                    "data": encode_base64(file),
                    "expires_at": await store.keep(self._audio_id, answer.progress.ids),
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

    async def stream(self, store: Store) -> AsyncIterator[bytes]:
        """The server-sent events of `chat.completion.chunk`s, `[DONE]` last.

        A failure after the first of them is an event with an `error`, for the status is sent.
        """
        got = Collected()
        async with self._asking() as answer:
            yield self._event({"role": "assistant", "content": None if self._wanted.spoken else ""})
            while got.over is None:
                said = await answer.next()
                got.take(said)
                delta = self._delta(said, got)
                if delta is not None:
                    yield self._event(delta)
            try:
                check_answered(got.over)
            except AqaaError as error:
                yield b"data: " + bytes(answer_for(error).body) + b"\n\n"
                return
            if self._wanted.spoken and (got.audio_tokens or not got.calls):
                expires = await store.keep(self._audio_id, answer.progress.ids)
                yield self._event({"audio": {**self._name_once(), "expires_at": expires}})
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
            calling=wanted.calling,
        )

    def _call(self, call: AnswerCall) -> Json:
        function = {"name": call.name, "arguments": call.arguments}
        return {"id": random_id("call"), "type": "function", "function": function}

    def _delta(self, said: AnswerEvent, got: Collected) -> Json | None:
        match said:
            case AnswerCall():
                return {"tool_calls": [{"index": len(got.calls) - 1, **self._call(said)}]}
            case AnswerText() if self._wanted.spoken:
                return {"audio": {**self._name_once(), "transcript": said.text}}
            case AnswerText():
                return {"content": said.text}
            case AnswerSound() if said.data:
                data = encode_base64(said.data)
                return {"audio": {**self._name_once(), "data": data}}
            case _:
                return None

    def _name_once(self) -> Json:
        """The sound's id, in the first delta that has any: clients join the strings of deltas."""
        named, self._named = self._named, True
        return {} if named else {"id": self._audio_id}

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
