"""The `vllm-http` engine: a remote `vllm serve --enable-scale-out`, or a proxy before several.

A broken connection is taken up again where it broke: the ids that arrived join the prompt, so none
comes twice. A server that answers 503 is asked again with growing, jittered pauses, but not for
long. Which worker a proxy chooses follows the header `X-Session-ID`, so that a session's prefix is
found in that worker's cache. When a worker falls silent or is gone the session takes another value
of it, one that leads to a worker that decodes: no router says who answers, so small requests find
that out.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import httpx

from aqaa.models.bundle import Bundle
from aqaa.models.errors import AqaaError, EngineBusyError, EngineDiedError, EngineError
from aqaa.models.step1 import Step1Config
from aqaa.server.engine.contract import SamplingParams, traceparent
from aqaa.server.engine.settings import VllmHttpSettings
from aqaa.server.engine.vllm.answer_clock import AnswerClock, SoundInHand
from aqaa.server.engine.vllm.connection import Connection
from aqaa.server.engine.vllm.relay import PREFILL_ONLY, RelayEngine, TokenDelta
from aqaa.server.engine.vllm.wire import ABORT, UPSTREAM_ID, BusyError, LostError, request_body

FIRST_PAUSE_SECONDS = 0.05  # before the second try; doubled for each further one
MAX_PAUSE_SECONDS = 0.5
PROBE_SECONDS = 0.5  # that the health route may take
SMALL_REQUEST_SECONDS = 2.0  # that the list of models and an abort may take
WORD_SECONDS = 1.8  # of silence: who waits must have a word within two
SCOUTING_SECONDS = 0.6  # after a death, or where a long prompt has taken all of them
SCOUT_EVERY_SECONDS = 0.05  # so that a dozen names are tried: half may lead to the same worker
SCOUTS_AT_ONCE = 64  # of all sessions: where every worker hangs, they must not hold the gateway up
CANARY = "recovery"  # the session of the request that tells whether the decoder is back

log = logging.getLogger(__name__)


class VllmHttpEngine(RelayEngine):
    """A client of a vLLM server that runs Step-1."""

    name = "vllm-http"

    def __init__(self, bundle: Bundle, settings: VllmHttpSettings) -> None:
        """Read the decoder's configuration, which the gateway needs without its weights.

        Raises:
            BundleError: the decoder's config.json is missing or wrong.
            EngineError: the server's URL is none.
        """
        config = Step1Config.load(bundle.decoder.path)
        context = min(bundle.decoder.context, config.max_seq_len)
        offset = bundle.tokens.audio_offset
        super().__init__(config.vocab_size, context, settings.block_size, offset)
        self._settings = settings
        try:
            given = httpx.URL(settings.url)
        except httpx.InvalidURL as error:
            raise EngineError(f"vllm_http.url is none: {error}") from error
        self._url = given.copy_with(userinfo=b"")  # what logs and errors tell
        self._login = (given.username, given.password) if given.userinfo else None
        self._client: httpx.AsyncClient | None = None
        self._fresh_client: httpx.AsyncClient | None = None  # opens a connection for each request
        self._reachable = False
        self._moves: dict[str, int] = {}  # which of its names a session goes by
        self._scouts = asyncio.Semaphore(SCOUTS_AT_ONCE)
        self._aborts: set[asyncio.Task[None]] = set()
        self._recovery: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """Whether the server answered when it was last asked."""
        return self._client is not None and self._reachable

    async def start(self) -> None:
        """Ask the server for its model and its context.

        Raises:
            EngineError: it does not answer, or refuses the key.
        """
        client = self._client or self._make_client(keep_alive=True)
        try:
            await self._check_server(client)
        except EngineError:
            if self._client is None:
                await client.aclose()
            raise
        if self._client is None:
            self._client = client
            self._fresh_client = self._make_client(keep_alive=False)
        self._reachable = True

    def _make_client(self, *, keep_alive: bool) -> httpx.AsyncClient:
        key = self._settings.api_key
        return httpx.AsyncClient(
            base_url=self._url,
            auth=self._login,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            trust_env=not _is_here(self._url.host),  # no proxy of the environment leads there
            timeout=httpx.Timeout(None, connect=self._settings.connect_timeout),
            limits=httpx.Limits(  # admission is the gateway's
                max_connections=None, max_keepalive_connections=None if keep_alive else 0
            ),
        )

    async def _check_server(self, client: httpx.AsyncClient) -> None:
        try:
            answer = await client.get("/v1/models", timeout=SMALL_REQUEST_SECONDS)
        except httpx.HTTPError as error:
            raise EngineError(
                f"no vLLM server answers at {self._url} ({type(error).__name__}): "
                "start `vllm serve --enable-scale-out` or correct the url"
            ) from error
        if answer.status_code in (401, 403):
            raise EngineError(f"{self._url} refuses the API key: set vllm_http.api_key")
        if answer.is_success:  # a server with --tokens-only has no such route
            self._take_served_context(answer.json().get("data", []))

    def _take_served_context(self, models: list[dict[str, Any]]) -> None:
        """Use the served context if it is shorter than the bundle's."""
        for model in models:
            if self._settings.model in (None, model.get("id")) and model.get("max_model_len"):
                self._context = min(self._context, int(model["max_model_len"]))
                return

    async def close(self) -> None:
        """End all work and all connections; running streams raise `EngineDiedError`."""
        self._reachable = False
        await self._stop_all(EngineDiedError("the engine was closed"))
        if self._recovery is not None:
            self._recovery.cancel()
        if self._aborts:
            await asyncio.wait(self._aborts)
        clients = (self._client, self._fresh_client)
        self._client = self._fresh_client = None
        for client in clients:
            if client is not None:
                await client.aclose()

    async def release(self, session: str) -> None:
        """Forget the session; see the contract."""
        self._moves.pop(session, None)
        await super().release(session)

    async def _ensure_running(self) -> None:
        if self._client is None:
            raise EngineDiedError("the vllm-http engine is not running: start it first")

    async def _request(
        self, session: str, prompt: Sequence[int], params: SamplingParams, sound: SoundInHand
    ) -> AsyncGenerator[TokenDelta, None]:
        """One request, over as many connections as it takes."""
        received: list[int] = []
        clock = AnswerClock(self._settings, sound)
        client = self._client
        busy_until: float | None = None
        pause = FIRST_PAUSE_SECONDS
        while True:
            if client is None or self._client is None:
                raise EngineDiedError("the engine was closed")
            request_id = uuid.uuid4().hex
            moved = False
            rest = params.after(len(received))
            body = request_body(request_id, self._settings.model, [*prompt, *received], rest)
            connection = Connection(client, clock, lambda: self._is_healthy(self._name(session)))
            try:
                async with connection:
                    await connection.send(body, self._headers(self._name(session), request_id))
                    while deltas := await connection.read():
                        self._reachable = True
                        busy_until, pause = None, FIRST_PAUSE_SECONDS
                        for delta in deltas:
                            received.extend(delta.tokens)
                            if delta.reused is not None:  # of a resumed answer: no more than asked
                                reused = min(delta.reused, len(prompt))
                                delta = replace(delta, reused=reused)
                            yield delta
                return
            except BusyError as error:
                clock.life()
                busy_until = busy_until or time.monotonic() + self._settings.busy_for
                if time.monotonic() + pause > busy_until:
                    raise await self._refusal(session) from error
            except LostError as error:
                clock.lost(silent=error.silent)
                if error.elsewhere:
                    self._abort(session, request_id)
                    left = WORD_SECONDS - clock.unheard if error.silent else SCOUTING_SECONDS
                    moved = await self._move(session, left)
                    if moved:
                        clock.life()
                    else:
                        clock.lost(silent=True)
                if clock.is_hopeless(pause):
                    self._mark_down()
                    raise EngineDiedError(
                        f"the vLLM server at {self._url} is gone ({error}): "
                        "try again when it is back"
                    ) from error
                log.warning("lost %s (%s): trying again", self._url, error)
            except (GeneratorExit, asyncio.CancelledError):
                if not connection.finished:
                    self._abort(session, request_id)
                raise
            if len(received) >= params.max_tokens or set(received[-1:]) & set(params.stop_ids):
                return  # only the end mark was lost
            if not moved or pause > FIRST_PAUSE_SECONDS:  # else that worker has just given an id
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, MAX_PAUSE_SECONDS)
            client = self._fresh_client

    async def _move(self, session: str, seconds: float) -> bool:
        """Leave the worker that does not answer; whether one that does is found in so many seconds.

        Names are tried one after the other: the next at once where one fails, and soon where one is
        silent. The first that leads to a worker which gives an id becomes the session's.
        """
        first = self._moves.get(session, 0) + 1

        async def scout(number: int) -> int | None:
            async with self._scouts:
                return number if await self._decodes(_nth_name(session, number)) else None

        numbers = iter(range(first, first + math.ceil(SCOUTING_SECONDS / SCOUT_EVERY_SECONDS)))
        out: set[asyncio.Task[int | None]] = set()
        try:
            async with asyncio.timeout(max(seconds, SCOUTING_SECONDS)):
                while True:
                    if (number := next(numbers, None)) is not None:
                        out.add(asyncio.create_task(scout(number)))
                    elif not out:
                        return False
                    returned, out = await asyncio.wait(
                        out, timeout=SCOUT_EVERY_SECONDS, return_when=asyncio.FIRST_COMPLETED
                    )
                    for each in returned:
                        if (found := each.result()) is not None:
                            self._moves[session] = found
                            return True
        except TimeoutError:
            return False
        finally:
            for each in out:
                each.cancel()
            await asyncio.gather(*out, return_exceptions=True)

    def _name(self, session: str) -> str:
        return _nth_name(session, self._moves.get(session, 0))

    def _headers(self, name: str, request_id: str | None = None) -> dict[str, str]:
        """What lets proxies, vLLM and traces know the request.

        `X-Request-Id` is our own, because some proxies make one, and vLLM would name the request by
        it: an abort would not find it then.
        """
        headers = {"X-Session-ID": name}
        if request_id is not None:
            headers["X-Request-Id"] = request_id
        if (parent := traceparent.get()) is not None:
            headers["traceparent"] = parent
        return headers

    async def _is_healthy(self, name: str) -> bool:
        """Whether the server's health route answers, and not with a fault of the server."""
        if self._client is None:
            return False
        try:
            answer = await self._client.get(
                self._settings.health_path, headers=self._headers(name), timeout=PROBE_SECONDS
            )
        except httpx.TransportError:
            return False
        return answer.status_code < 500

    async def _refusal(self, session: str) -> EngineError:
        """Why the server answers 503 for so long: it is full, or none is left behind a proxy."""
        if await self._is_healthy(self._name(session)):
            return EngineBusyError(f"{self._url} is full (503): try again later")
        self._mark_down()
        return EngineDiedError(
            f"no vLLM server is left at {self._url} (503, and so does its health route): "
            "try again when one is back"
        )

    def _mark_down(self) -> None:
        """The server is gone; find out when it is back, for who is not ready gets no requests."""
        self._reachable = False
        if self._recovery is None or self._recovery.done():
            self._recovery = asyncio.create_task(self._probe_until_up())

    async def _probe_until_up(self) -> None:
        while not self._reachable and self._client is not None:
            await asyncio.sleep(self._settings.probe_after)
            if await self._is_healthy(CANARY) and await self._decodes(CANARY):
                self._reachable = True

    async def _decodes(self, name: str) -> bool:
        """Whether an id comes: a decoder can hang behind a server that says it is healthy."""
        if self._fresh_client is None:
            return False
        clock = AnswerClock(self._settings, SoundInHand(self._audio_offset))
        request_id = uuid.uuid4().hex
        body = request_body(request_id, self._settings.model, [0], PREFILL_ONLY)
        connection = Connection(self._fresh_client, clock, lambda: self._is_healthy(name))
        try:
            async with connection:
                await connection.send(body, self._headers(name, request_id))
                return bool(await connection.read())
        except BusyError:
            return True  # it is full, which only a decoder that works can be
        except (LostError, AqaaError):
            return False

    def _abort(self, session: str, request_id: str) -> None:
        """Tell the server as well: a proxy between may keep the request when we hang up."""
        headers = self._headers(self._name(session))
        task = asyncio.create_task(self._send_abort(headers, request_id))
        self._aborts.add(task)
        task.add_done_callback(self._aborts.discard)

    async def _send_abort(self, headers: dict[str, str], request_id: str) -> None:
        if self._client is None:
            return
        try:
            await self._client.post(
                ABORT,
                json={"request_ids": [UPSTREAM_ID.format(request_id)]},
                headers=headers,
                timeout=SMALL_REQUEST_SECONDS,
            )
        except httpx.HTTPError as error:
            log.debug("abort of %s was not heard: %s", request_id, error)


def _is_here(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _nth_name(session: str, moves: int) -> str:
    """What a session is called after so many moves; proxies choose its worker by it."""
    return quote(session) + (f"~{moves}" if moves else "")
