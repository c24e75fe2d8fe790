"""The `vllm-http` engine: a remote `vllm serve --enable-scale-out`, or a router before several.

Tokens go in and out through vLLM's `POST /inference/v1/generate`, streamed as server-sent events.
A broken connection is taken up again where it broke: the ids that arrived join the prompt, so none
comes twice. A server that says 503 is asked again with growing, jittered pauses, but not for long.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from aqaa.models.bundle import Bundle
from aqaa.models.errors import EngineBusyError, EngineDiedError, EngineError, InputError
from aqaa.models.step1 import Step1Config
from aqaa.server.engine.contract import SamplingParams
from aqaa.server.engine.settings import VllmHttpSettings
from aqaa.server.engine.vllm.launch_flags import extra_arguments
from aqaa.server.engine.vllm.relay import RelayEngine, TokenDelta

GENERATE = "/inference/v1/generate"
ABORT = "/inference/v1/abort_requests"
# vLLM names requests that come in by token ids so; its abort wants that name
UPSTREAM_ID = "generate-tokens-{}"
FIRST_PAUSE_SECONDS = 0.05  # seconds before the second try; doubled for each further one
MAX_PAUSE_SECONDS = 0.5
PROBE_TIMEOUT_SECONDS = (
    0.5  # seconds that /health may take: with `probe_after` a dead host shows in 2 s
)

log = logging.getLogger(__name__)
T = TypeVar("T")


class _BusyError(Exception):
    """The server answered 503."""


class _LostError(Exception):
    """No connection, or it broke, or the server's decoder is gone."""


class _Contact:
    """When a request last had a sign of life from its server; its beginning counts as one."""

    def __init__(self) -> None:
        self.heard()

    def heard(self) -> None:
        self._last = time.monotonic()

    @property
    def silence(self) -> float:
        """Seconds since then."""
        return time.monotonic() - self._last


class VllmHttpEngine(RelayEngine):
    """A client of a vLLM server that runs Step-1."""

    name = "vllm-http"

    def __init__(self, bundle: Bundle, settings: VllmHttpSettings) -> None:
        """Read the decoder's configuration, which the gateway needs without its weights.

        Raises:
            BundleError: the decoder's config.json is missing or wrong.
        """
        config = Step1Config.load(bundle.decoder.path)
        context = min(bundle.decoder.context, config.max_seq_len)
        super().__init__(config.vocab_size, context, settings.block_size)
        self._settings = settings
        self._model = settings.model
        self._client: httpx.AsyncClient | None = None
        self._reachable = False
        self._aborts: set[asyncio.Task[None]] = set()
        self._recovery: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """Whether the server answered when it was last asked."""
        return self._client is not None and self._reachable

    async def start(self) -> None:
        """Ask the server for its health, its model and its context.

        Raises:
            EngineError: it does not answer, or refuses the key.
        """
        fresh = self._client is None
        if self._client is None:
            key = self._settings.api_key
            self._client = httpx.AsyncClient(
                base_url=self._settings.url,
                headers={"Authorization": f"Bearer {key}"} if key else {},
                timeout=httpx.Timeout(None, connect=self._settings.connect_timeout),
                limits=httpx.Limits(max_connections=None),  # admission is the gateway's
            )
        try:
            await self._check_server(self._client)
        except EngineError:
            if fresh:  # others may be at work on an older one
                await self.close()
            raise
        self._reachable = True

    async def _check_server(self, client: httpx.AsyncClient) -> None:
        try:
            answer = await client.get("/v1/models", timeout=self._settings.connect_timeout)
        except httpx.HTTPError as error:
            raise EngineError(
                f"no vLLM server answers at {self._settings.url} ({type(error).__name__}): "
                "start `vllm serve --enable-scale-out` or correct the url"
            ) from error
        if answer.status_code in (401, 403):
            raise EngineError(f"{self._settings.url} refuses the API key: set vllm_http.api_key")
        if answer.is_success:  # a server with --tokens-only has no such route
            self._take_served_context(answer.json().get("data", []))

    def _take_served_context(self, models: list[dict[str, Any]]) -> None:
        """Take over the served context when it is the shorter one."""
        for model in models:
            if self._model in (None, model.get("id")) and model.get("max_model_len"):
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
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _ensure_running(self) -> None:
        if self._client is None:
            raise EngineDiedError("the vllm-http engine is not running: start it first")

    async def _request(
        self, session: str, prompt: Sequence[int], params: SamplingParams
    ) -> AsyncGenerator[TokenDelta, None]:
        """One answer, over as many connections as it takes."""
        received: list[int] = []
        contact = _Contact()
        busy_until: float | None = None
        pause = FIRST_PAUSE_SECONDS
        while True:
            whole = [*prompt, *received]
            rest = replace(params, max_tokens=params.max_tokens - len(received))
            try:
                async with aclosing(self._stream(session, whole, rest, contact)) as deltas:
                    async for delta in deltas:
                        self._reachable = True
                        busy_until, pause = None, FIRST_PAUSE_SECONDS
                        received.extend(delta.tokens)
                        if delta.reused is not None:  # of a resumed answer: no more than asked
                            delta = replace(delta, reused=min(delta.reused, len(prompt)))
                        yield delta
                return
            except _BusyError as error:
                contact.heard()
                busy_until = busy_until or time.monotonic() + self._settings.busy_for
                if time.monotonic() + pause > busy_until:
                    raise EngineBusyError(
                        f"{self._settings.url} is full (503): try again later"
                    ) from error
            except _LostError as error:
                if contact.silence + pause > self._settings.give_up_after:
                    self._mark_down()
                    raise EngineDiedError(
                        f"the vLLM server at {self._settings.url} is gone ({error}): "
                        "try again when it is back"
                    ) from error
                log.warning("lost %s (%s): trying again", self._settings.url, error)
            if len(received) >= params.max_tokens:
                return  # only the end mark was lost
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, MAX_PAUSE_SECONDS)

    async def _stream(
        self, session: str, prompt: list[int], params: SamplingParams, contact: _Contact
    ) -> AsyncGenerator[TokenDelta, None]:
        """One connection. Closing it early aborts the request on the server.

        Raises:
            _BusyError, _LostError: see there.
            InputError, EngineError: trying again would not help.
        """
        client = self._client
        if client is None:
            raise EngineDiedError("the engine was closed")
        request_id = uuid.uuid4().hex
        body = {
            "request_id": request_id,
            "model": self._model,
            "token_ids": prompt,
            "sampling_params": _sampling(params),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        headers = {"X-Session-ID": quote(session)}
        ended = False
        try:
            request = client.build_request("POST", GENERATE, json=body, headers=headers)
            answer = await self._patiently(client.send(request, stream=True), contact)
            async with aclosing(answer):
                await _raise_for(answer)
                async with aclosing(self._events(answer, contact)) as events:
                    async for event in events:
                        contact.heard()
                        delta = _delta(event)
                        ended = ended or delta.finished
                        yield delta
            if not ended:
                raise _LostError("the stream ended without its end mark")
        except httpx.TransportError as error:
            if ended:  # the answer is whole, only its statistics are lost
                return
            raise _LostError(type(error).__name__) from error
        except (GeneratorExit, asyncio.CancelledError):
            if not ended:
                self._abort_on_server(request_id)
            raise

    async def _events(
        self, answer: httpx.Response, contact: _Contact
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The answer's server-sent events."""
        lines = answer.aiter_lines()
        while True:
            text = await self._patiently(_next_line(lines), contact)
            if text == _END or text == "data: [DONE]":
                return
            if text.startswith("data: "):
                yield json.loads(text.removeprefix("data: "))

    async def _patiently(self, coming: Coroutine[Any, Any, T], contact: _Contact) -> T:
        """What `coming` gives; asks for the server's health whenever nothing comes."""
        task = asyncio.create_task(coming)
        try:
            while not (await asyncio.wait([task], timeout=self._settings.probe_after))[0]:
                await self._probe()
                contact.heard()
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    async def _probe(self) -> None:
        """A silent server may be computing a long prompt, or be gone."""
        client = self._client
        if client is None:
            raise EngineDiedError("the engine was closed")
        try:
            answer = await client.get("/health", timeout=PROBE_TIMEOUT_SECONDS)
        except httpx.TransportError as error:
            raise _LostError(f"silent, and no /health: {type(error).__name__}") from error
        if answer.status_code >= 500:
            raise _LostError(f"/health says {answer.status_code}")

    def _mark_down(self) -> None:
        """The server is gone; look out for it, for an engine that is not ready gets no requests."""
        self._reachable = False
        if self._recovery is None or self._recovery.done():
            self._recovery = asyncio.create_task(self._probe_until_up())

    async def _probe_until_up(self) -> None:
        while not self._reachable and self._client is not None:
            await asyncio.sleep(self._settings.probe_after)
            with suppress(_LostError, EngineDiedError):
                await self._probe()
                self._reachable = True

    def _abort_on_server(self, request_id: str) -> None:
        """Tell the server as well: a router between may keep the request when we hang up."""
        task = asyncio.create_task(self._send_abort(request_id))
        self._aborts.add(task)
        task.add_done_callback(self._aborts.discard)

    async def _send_abort(self, request_id: str) -> None:
        if self._client is None:
            return
        try:
            await self._client.post(
                ABORT,
                json={"request_ids": [UPSTREAM_ID.format(request_id)]},
                timeout=self._settings.connect_timeout,
            )
        except httpx.HTTPError as error:
            log.debug("abort of %s was not heard: %s", request_id, error)


_END = "\0"  # what `_next_line` gives after the last line; no event holds it


async def _next_line(lines: AsyncIterator[str]) -> str:
    return await anext(lines, _END)


def _sampling(params: SamplingParams) -> dict[str, Any]:
    """Ours as the JSON of vLLM's; the only ids that end an answer are ours."""
    sampling: dict[str, Any] = {
        "temperature": params.temperature,
        "top_p": params.top_p,
        "max_tokens": params.max_tokens,
        "seed": params.seed,
        "stop_token_ids": list(params.stop_ids),
        "ignore_eos": True,
        "detokenize": False,
    }
    if extra := extra_arguments(params):
        sampling["extra_args"] = extra
    return sampling


async def _raise_for(answer: httpx.Response) -> None:
    """Sort an answer that is not 200."""
    if answer.is_success:
        return
    status = answer.status_code
    if status == 503:
        raise _BusyError
    text = (await answer.aread()).decode(errors="replace")[:500]
    if status in (502, 504) or status == 500:
        raise _LostError(f"{status}: {text}")
    if status == 404:
        raise EngineError(
            f"{answer.url} does not exist: start the server with `vllm serve --enable-scale-out`"
        )
    if status in (401, 403):
        raise EngineError(f"{answer.url} refuses the API key: set vllm_http.api_key")
    raise InputError(f"vLLM refuses the request ({status}): {text}")


def _delta(event: dict[str, Any]) -> TokenDelta:
    """One event of the stream: new ids, the end, or the usage that comes last.

    Raises:
        _LostError: the server reports that its decoder failed.
    """
    if "error" in event:
        raise _LostError(str(event["error"]))
    usage = event.get("usage")
    reused = None
    if usage is not None:  # without --enable-prompt-tokens-details nothing counts as reused
        reused = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    for choice in event.get("choices", []):
        reason = choice.get("finish_reason")
        if reason in ("abort", "error"):
            raise _LostError(f"the server ended the request: {reason}")
        return TokenDelta(tuple(choice["token_ids"]), finished=reason is not None, reused=reused)
    return TokenDelta(reused=reused)
