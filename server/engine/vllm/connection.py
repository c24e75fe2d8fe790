"""One request to a vLLM server over HTTP: one reader, under one watchdog."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Self, TypeVar

import httpx

from aqaa.server.engine.vllm.answer_clock import AnswerClock
from aqaa.server.engine.vllm.interruptible import GRACE_SECONDS, InterruptibleReads
from aqaa.server.engine.vllm.relay import TokenDelta
from aqaa.server.engine.vllm.wire import GENERATE, EventReader, LostError, fault_of

T = TypeVar("T")


class Connection:
    """A generate request and its streamed answer. `async with` closes it."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        clock: AnswerClock,
        is_healthy: Callable[[], Awaitable[bool]],
    ) -> None:
        """`is_healthy` is asked whenever the server is silent."""
        self._client = client
        self._clock = clock
        self._is_healthy = is_healthy
        self._events = EventReader()
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._reads = InterruptibleReads()
        self._watchdog: asyncio.Task[None] | None = None

    @property
    def finished(self) -> bool:
        """Whether the answer has its end mark."""
        return self._events.finished

    async def __aenter__(self) -> Self:
        self._watchdog = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._response is not None:
            await self._response.aclose()

    async def send(self, body: dict[str, Any], headers: dict[str, str]) -> None:
        """Send the request and read the head of the response.

        Raises:
            BusyError, LostError: trying again may help.
            InputError, EngineError: it would not.
        """
        self._clock.connect(len(body["token_ids"]))
        request = self._client.build_request("POST", GENERATE, json=body, headers=headers)
        response = await self._watched(self._client.send(request, stream=True))
        self._response = response
        if response.is_error:
            text = await self._watched(response.aread())
            raise fault_of(
                response.status_code, str(response.url), text[:500].decode(errors="replace")
            )
        self._clock.responded()
        self._chunks = response.aiter_bytes()

    async def read(self) -> list[TokenDelta]:
        """The deltas that came together; none at the end of the answer.

        Raises:
            BusyError, LostError: the answer broke off.
        """
        assert self._chunks is not None
        while not self._events.done:
            try:
                data = await self._watched(_next(self._chunks))
            except LostError:
                if self.finished:  # only its statistics are lost
                    return []
                raise
            if not data:
                if self.finished:
                    return []
                raise LostError("the stream ended without its end mark")
            if deltas := self._events.feed(data):
                for delta in deltas:
                    if delta.tokens:
                        self._clock.ids()
                return deltas
        return []

    async def _watched(self, coming: Coroutine[Any, Any, T]) -> T:
        """Await `coming`, unless the watchdog finds the connection lost first."""
        try:
            return await self._reads.wait(coming)
        except httpx.TransportError as error:
            raise LostError(type(error).__name__) from error

    async def _watch(self) -> None:
        """End the read in progress when the stream or the server is silent for too long."""
        lost: LostError | None = None
        while lost is None:
            await asyncio.sleep(self._clock.next_check)
            await asyncio.sleep(GRACE_SECONDS)
            if self._clock.stream_is_silent:
                lost = LostError("no id came in time", silent=True)
            elif self._clock.server_is_silent:
                if await self._is_healthy():
                    self._clock.life()
                elif self._clock.server_is_silent:  # it was not only slow to answer
                    lost = LostError("silent, and its health route fails")
        self._reads.interrupt(lost)


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    return await anext(chunks, b"")
