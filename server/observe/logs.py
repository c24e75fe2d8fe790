"""Logs: one line an event, each with the session and the response that it is about."""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

session_id: ContextVar[str] = ContextVar("aqaa_session", default="-")
response_id: ContextVar[str] = ContextVar("aqaa_response", default="-")

LogFormat = Literal["text", "json"]
TEXT = "%(asctime)s %(levelname).1s %(session)s %(response)s %(name)s: %(message)s"


class _WhoseLine(logging.Filter):
    """Tasks and threads inherit the context, so a line far below knows its conversation."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.session = session_id.get()
        record.response = response_id.get()
        return True


class _JsonLine(logging.Formatter):
    """One object a line; `exception` is there only with one, line breaks escaped."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "session": getattr(record, "session", "-"),
            "response": getattr(record, "response", "-"),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up(level: str, format: LogFormat = "text") -> None:
    """Log to stderr. Called once, by the command that serves."""
    handler = logging.StreamHandler()
    handler.addFilter(_WhoseLine())
    handler.setFormatter(_JsonLine() if format == "json" else logging.Formatter(TEXT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
