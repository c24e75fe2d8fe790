"""A small server of vLLM's token-in/token-out route, for faults that a real one shows rarely.

It continues a prompt by counting up from its last id, so any cut answer has one right continuation.
A test sets how it behaves; all that it is asked is in `requests`. In a process of its own, with the
pace of ids in seconds: `python token_server.py HOST PORT PACE`. With a JSON list of IDS behind it,
it says these whatever it is asked.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aqaa.models.bundle import Bundle, load_bundle

VOCABULARY = 74752


@dataclass
class Request:
    """One request: what the test may look at."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any] = field(default_factory=dict)


class TokenServer:
    """Listens on a port of its own, in the loop of whoever starts it."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.pace = 0.0  # seconds before each id
        self.health = 200  # its status; 0: it says nothing
        self.busy_in_stream = 0  # how many of the next answers are 200 and an error of code 503
        self.full = False  # generate answers 503
        self.gone_for: list[str] = []  # sessions whose worker is gone, as a proxy says it: 500
        self.fail_after: list[int] = []  # ids after which each of the next answers tells an error
        self.break_after: list[int] = []  # ids after which each of the next answers breaks off
        self.hang_after: list[int] = []  # ids after which each of the next answers falls silent
        self.says: list[int] | None = None
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def generates(self) -> list[Request]:
        """The requests for ids."""
        return [r for r in self.requests if r.path.endswith("/generate")]

    async def __aenter__(self) -> TokenServer:
        await self.listen("127.0.0.1", 0)
        return self

    async def listen(self, host: str, port: int) -> None:
        """Take requests there; port 0 is a free one."""
        self._server = await asyncio.start_server(self._serve, host, port)
        self.url = f"http://{host}:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        await self.die()

    async def die(self) -> None:
        """All its connections break, and nobody listens any more."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._answer(await _read(reader), writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.requests.append(request)
        match request.path:
            case "/v1/models":
                await _reply(writer, 200, {"data": [{"id": "m", "max_model_len": 4096}]})
            case "/inference/v1/generate" if self.full:
                await _reply(writer, 503, {})
            case "/inference/v1/generate" if request.headers["x-session-id"] in self.gone_for:
                await _reply(writer, 500, {})
            case "/inference/v1/generate":
                await self._generate(request.body, writer)
            case "/inference/v1/abort_requests":
                await _reply(writer, 200, {})
            case _ if self.health:
                await _reply(writer, self.health, {})
            case _:
                await asyncio.sleep(3600)

    def answer(self, body: dict[str, Any]) -> tuple[list[int], str]:
        """The ids for a request, and why they end."""
        params = body["sampling_params"]
        last, count = body["token_ids"][-1], params["max_tokens"]
        if self.says is not None:
            given = (params["extra_args"] or {}).get("answered", 0)  # of an answer that was cut off
            rest = self.says[given:][:count]
            return rest, "length" if given + len(rest) < len(self.says) else "stop"
        return [(last + n) % VOCABULARY for n in range(1, count + 1)], "length"

    async def _generate(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n"
        )
        await writer.drain()
        if self.busy_in_stream > 0:
            self.busy_in_stream -= 1
            await _event(writer, {"error": {"message": "queue is full", "code": 503}})
            return
        breaks = self.break_after.pop(0) if self.break_after else None
        hangs = self.hang_after.pop(0) if self.hang_after else None
        fails = self.fail_after.pop(0) if self.fail_after else None
        ids, reason = self.answer(body)
        for n, token in enumerate(ids):
            if n == breaks:
                writer.transport.abort()
                return
            if n == hangs:
                await asyncio.sleep(3600)
            if n == fails:
                await _event(writer, {"error": {"message": "EngineCore died", "code": 400}})
                return
            await asyncio.sleep(self.pace)
            ends = reason if n == len(ids) - 1 else None
            await _event(writer, {"choices": [{"token_ids": [token], "finish_reason": ends}]})
        await _event(writer, {"choices": [], "usage": {"prompt_tokens_details": None}})
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(head[0].split()[1], headers, json.loads(body or b"{}"))


async def _reply(writer: asyncio.StreamWriter, status: int, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    await writer.drain()


async def _event(writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
    writer.write(f"data: {json.dumps(event)}\n\n".encode())
    await writer.drain()


def bundle_without_weights(directory: Path, vocabulary: int = VOCABULARY) -> Bundle:
    """What the HTTP engine needs of a bundle: the decoder's config.json."""
    from tiny_step1 import CONFIG, write_step1_bundle  # and torch, which the program does without

    decoder = directory / "decoder"
    decoder.mkdir()
    (decoder / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": vocabulary}))
    return load_bundle(write_step1_bundle(directory, decoder))


async def _serve_for_ever(host: str, port: str, pace: str, ids: str = "null") -> None:
    server = TokenServer()
    server.pace = float(pace)
    server.says = json.loads(ids)
    await server.listen(host, int(port))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve_for_ever(*sys.argv[1:]))
