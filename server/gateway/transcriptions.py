"""`POST /v1/audio/transcriptions`: the words of a recording, by the bundle's own recogniser."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import ValidationError

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.models.errors import InputError, ModelNotFoundError
from aqaa.server.compute.model import work_of
from aqaa.server.gateway.disconnect import unless_left
from aqaa.server.gateway.rest import HeldStream, Server, Whoever
from aqaa.server.gateway.schema import TranscriptionForm
from aqaa.server.gateway.transcript_formats import (
    as_json,
    as_verbose_json,
    logprobs_of,
    segments_of,
    subtitles,
)
from aqaa.server.gateway.upload import form_of
from aqaa.server.parts import ModelParts
from aqaa.server.protocol.errors import invalid
from aqaa.server.protocol.types import Json
from aqaa.server.urgency import Kind
from aqaa.tokenizers.stream import Samples
from aqaa.tokenizers.transcriber import Piece, Transcriber, text_of, words_of

router = APIRouter()

MAX_SECONDS = 1500.0  # OpenAI's bound for its transcribers
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        **TranscriptionForm.model_json_schema()["properties"],
                    },
                }
            }
        },
    }
}


class Recording:
    """A recording that is being transcribed, a slice at a time."""

    def __init__(self, parts: ModelParts, samples: Samples) -> None:
        self._parts = parts
        self._samples = samples
        self.seconds = samples.size / TOKENIZER_RATE

    @classmethod
    async def read(cls, parts: ModelParts, data: bytes) -> Recording:
        """Decode a file.

        Raises:
            AudioError: it is no recording that can be read, or it is too long.
        """
        return cls(parts, await parts.services.recordings.decode(data, MAX_SECONDS))

    async def pieces(self) -> AsyncIterator[list[Piece]]:
        """New pieces of text, slice by slice."""
        services = self._parts.services
        slices = self._slices()
        while True:
            pieces = await services.executor.run(work_of(lambda: next(slices, None)), Kind.BULK)
            if pieces is None:
                return
            if pieces:
                yield pieces

    async def all_pieces(self) -> list[Piece]:
        """All that is said."""
        return [piece async for some in self.pieces() for piece in some]

    def _slices(self) -> Iterator[list[Piece]]:
        words = _transcriber(self._parts).stream()
        for windows in self._parts.tokenizer.windows_of(self._samples):
            yield [self._within(piece) for window in windows for piece in words.push(window)]

    def _within(self, piece: Piece) -> Piece:
        """Last pieces may come in the silence that a recogniser adds."""
        start, end = min(piece.start, self.seconds), min(piece.end, self.seconds)
        return replace(piece, start=start, end=end)


@router.post(
    "/v1/audio/transcriptions",
    summary="The words of a recording",
    openapi_extra=BODY,
    response_class=Response,
)
async def transcriptions(request: Request, server: Server, caller: Whoever) -> Response:
    """OpenAI's shapes; `stream` gives `transcript.text.delta`s as the recording is worked off."""
    parts = server.parts
    _transcriber(parts)
    data, asked = await _form(request)
    logprobs = "logprobs" in asked.include
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(server.place(caller))
        recording = await unless_left(request, Recording.read(parts, data))
        if asked.stream:
            return HeldStream(_events(recording, logprobs=logprobs), stack.pop_all())
        pieces = await unless_left(request, recording.all_pieces())
    seconds, wanted = recording.seconds, asked.timestamp_granularities
    match asked.response_format:
        case "json":
            return JSONResponse(as_json(pieces, seconds, logprobs=logprobs))
        case "text":
            return PlainTextResponse(text_of(pieces) + "\n")
        case "srt" | "vtt" as format:
            return PlainTextResponse(subtitles(segments_of(words_of(pieces)), format))
        case "verbose_json":
            body = as_verbose_json(
                pieces,
                seconds,
                language=asked.language,
                words="word" in wanted,
                segments="segment" in wanted,
            )
            return JSONResponse(body)


async def _form(request: Request) -> tuple[bytes, TranscriptionForm]:
    """The recording and what is asked of it.

    Raises:
        InputError: there is no recording.
        ProtocolError: a field has a value that it cannot have.
    """
    fields: dict[str, Any] = {}
    form = await form_of(request)
    if form.file is None:
        raise InputError("send the recording as the multipart field `file`")
    if not form.file:
        raise InputError("the field `file` is empty: send a recording, such as a wav file")
    for key, values in form.fields.items():
        if key.endswith("[]"):
            fields[key.removesuffix("[]")] = values
        else:
            fields[key] = values[-1]
    try:
        return form.file, TranscriptionForm.model_validate(fields)
    except ValidationError as error:
        raise invalid(error, fields) from None


async def _events(recording: Recording, *, logprobs: bool) -> AsyncIterator[bytes]:
    said: list[Piece] = []
    async for pieces in recording.pieces():
        said += pieces
        delta = "".join(piece.text for piece in pieces)
        yield _event({"type": "transcript.text.delta", "delta": delta}, pieces, logprobs=logprobs)
    yield _event({"type": "transcript.text.done", "text": text_of(said)}, said, logprobs=logprobs)
    yield b"data: [DONE]\n\n"


def _event(event: Json, pieces: list[Piece], *, logprobs: bool) -> bytes:
    if logprobs:
        event["logprobs"] = logprobs_of(pieces)
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


def _transcriber(parts: ModelParts) -> Transcriber:
    if parts.transcriber is None:
        raise ModelNotFoundError(
            f"{parts.bundle.name!r} has no transcriber: its bundle needs a [transcriber] section"
        )
    return parts.transcriber
