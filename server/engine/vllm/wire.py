"""What goes over the wire to `vllm serve` and comes back; no I/O.

Requests are `POST /inference/v1/generate` with token ids; answers are server-sent events, one JSON
object a `data:` line, `data: [DONE]` at the end.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from aqaa.models.errors import EngineError, InputError
from aqaa.server.engine.contract import SamplingParams
from aqaa.server.engine.vllm.launch_flags import sampling_arguments
from aqaa.server.engine.vllm.relay import TokenDelta

GENERATE = "/inference/v1/generate"
ABORT = "/inference/v1/abort_requests"
UPSTREAM_ID = "generate-tokens-{}"  # the name that vLLM gives to a request by token ids


class BusyError(Exception):
    """The server answers 503: it, or every server behind a proxy, takes no request now."""


class LostError(Exception):
    """No connection, or it broke, or the decoder behind it failed.

    Attributes:
        silent: the connection stands, but no id came in time.
        elsewhere: a proxy may have a worker that does better than the one that was asked.
    """

    def __init__(self, reason: str, *, silent: bool = False, elsewhere: bool = False) -> None:
        super().__init__(reason)
        self.silent = silent
        self.elsewhere = elsewhere or silent


def request_body(
    request_id: str, model: str | None, prompt: Sequence[int], params: SamplingParams
) -> dict[str, Any]:
    """The JSON body of one generate request."""
    return {
        "request_id": request_id,
        "model": model,
        "token_ids": prompt,
        "sampling_params": sampling_arguments(params),
        "stream": True,
        "stream_options": {"include_usage": True},
    }


class EventReader:
    """Turns the bytes of an answer into deltas, however they are cut.

    Attributes:
        finished: the answer has its end mark.
        done: the stream has ended as it should.
    """

    def __init__(self) -> None:
        self._rest = b""
        self.finished = False
        self.done = False

    def feed(self, data: bytes) -> list[TokenDelta]:
        """The deltas that `data` completes.

        Raises:
            BusyError, LostError: the server reports an error in the stream.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        deltas = []
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            payload = line.removeprefix(b"data:").strip()
            if payload == b"[DONE]":
                self.done = True
            else:
                deltas.append(_delta(json.loads(payload)))
                self.finished = self.finished or deltas[-1].finished
        return deltas


def _delta(event: dict[str, Any]) -> TokenDelta:
    """One event of the stream: new ids, the end, or the usage that comes last."""
    error = event.get("error")
    if error is not None:
        code = error.get("code") if isinstance(error, dict) else None
        raise BusyError if code == 503 else LostError(str(error), elsewhere=True)
    usage = event.get("usage")
    reused = None
    if usage is not None:  # without --enable-prompt-tokens-details nothing counts as reused
        reused = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    for choice in event.get("choices", []):
        reason = choice.get("finish_reason")
        if reason in ("abort", "error"):
            raise LostError(f"the server ended the request: {reason}", elsewhere=True)
        return TokenDelta(tuple(choice["token_ids"]), finished=reason is not None, reused=reused)
    return TokenDelta(reused=reused)


def fault_of(status: int, url: str, text: str) -> Exception:
    """The fault that an answer with an HTTP `status` of 400 or more stands for."""
    match status:
        case 503:
            return BusyError()
        case 500 | 502 | 504:
            return LostError(f"{status}: {text}", elsewhere=True)
        case 404:
            return EngineError(
                f"{url} does not exist: start the server with `vllm serve --enable-scale-out`"
            )
        case 401 | 403:
            return EngineError(f"{url} refuses the API key: set vllm_http.api_key")
        case _:
            return InputError(f"vLLM refuses the request ({status}): {text}")
