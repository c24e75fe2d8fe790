"""What a request brings: a recording as the body itself, or a multipart form with its fields.

A part is the recording if it is called `file`, with or without a filename.
"""

from __future__ import annotations

from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from aqaa.models.errors import InputError
from aqaa.server.gateway.json_input import off_the_loop

FIELD = "file"
MAX_PARTS = 64
MAX_FIELD_BYTES = 64 * 1024  # of any part but the recording


@dataclass
class Form:
    """A multipart form: the recording, if there is one, and the text of the other parts."""

    file: bytes | None
    fields: dict[str, list[str]]


async def recording_of(request: Request) -> bytes:
    """The recording that was sent, as a body or in a form.

    Raises:
        InputError: there is none, or the form cannot be read.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/"):
        recording = await request.body()
    else:
        form = await form_of(request)
        if form.file is None:
            names = ", ".join(sorted(form.fields)[:8]) or "none"
            raise InputError(f"send the recording as the multipart field `file`; here are {names}")
        recording = form.file
    if not recording:
        raise InputError("the body is empty: send a recorded question, such as a wav file")
    return recording


async def form_of(request: Request) -> Form:
    """The multipart form that was sent.

    Raises:
        InputError: it cannot be read, or a part is too large.
    """
    body = await request.body()
    content_type = request.headers.get("content-type", "")
    return await off_the_loop(len(body), _parsed, body, content_type)


def _parsed(body: bytes, content_type: str) -> Form:
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise InputError("send a multipart form; this names no boundary")
    parts = _Parts()
    try:
        parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InputError(f"the multipart form cannot be read: {error}") from None
    return parts.form()


class _Parts:
    """Collects the parts of a form as the parser finds them."""

    def __init__(self) -> None:
        self._parts: list[tuple[str, bytearray]] = []
        self._header = b""
        self._value = b""
        self._disposition = b""

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_header,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._name,
            "on_part_data": self._add_data,
        }

    def form(self) -> Form:
        """The recording is the first part of its name."""
        form = Form(None, {})
        for name, data in self._parts:
            if name == FIELD and form.file is None:
                form.file = bytes(data)
            else:
                form.fields.setdefault(name, []).append(data.decode("utf-8", "replace"))
        return form

    def _begin(self) -> None:
        if len(self._parts) >= MAX_PARTS:
            raise InputError(f"a form may have {MAX_PARTS} parts")
        self._disposition = b""

    def _add_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _name(self) -> None:
        name = parse_options_header(self._disposition)[1].get(b"name", b"")
        self._parts.append((name.decode("utf-8", "replace")[:64], bytearray()))

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        name, content = self._parts[-1]
        content += data[start:end]
        if name != FIELD and len(content) > MAX_FIELD_BYTES:
            raise InputError(
                f"the field {name!r} may have {MAX_FIELD_BYTES} bytes; the recording is the field"
                f" `{FIELD}`"
            )
