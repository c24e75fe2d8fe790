"""The recording in a request: the body itself, or the part `file` of a multipart form."""

from __future__ import annotations

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from aqaa.models.errors import InputError
from aqaa.server.gateway.json_input import off_the_loop

FIELD = b"file"
MAX_PARTS = 64


async def recording_of(request: Request) -> bytes:
    """The file that was sent.

    Raises:
        InputError: there is none, or the form cannot be read.
    """
    body = await request.body()
    content_type = request.headers.get("content-type", "")
    if content_type.lower().startswith("multipart/"):
        body = await off_the_loop(len(body), _part, body, content_type)
    if not body:
        raise InputError("the body is empty: send a recorded question, such as a wav file")
    return body


def _part(body: bytes, content_type: str) -> bytes:
    """The content of the form's field `file`, with or without a filename.

    Raises:
        InputError: there is no such field, or this is no form.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise InputError("the multipart form names no boundary")
    form = _Form()
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except MultipartParseError as error:
        raise InputError(f"the multipart form cannot be read: {error}") from None
    if form.file is None:
        names = ", ".join(sorted(form.names)[:8]) or "none"
        raise InputError(f"send the recording as the multipart field `file`; here are {names}")
    return bytes(form.file)


class _Form:
    """Keeps the first part that is called `file`."""

    def __init__(self) -> None:
        self.file: bytearray | None = None
        self.names: set[str] = set()
        self._parts = 0
        self._header = b""
        self._value = b""
        self._disposition = b""
        self._wanted = False

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._field,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._choose,
            "on_part_data": self._data,
        }

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise InputError(f"a form may have {MAX_PARTS} parts")
        self._disposition = b""

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _choose(self) -> None:
        name = parse_options_header(self._disposition)[1].get(b"name", b"")
        self.names.add(name.decode("utf-8", "replace")[:64])
        self._wanted = name == FIELD and self.file is None
        if self._wanted:
            self.file = bytearray()

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._wanted and self.file is not None:
            self.file += data[start:end]
