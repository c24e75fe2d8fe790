"""Logs: one line an event, each with the session and the response that it is about."""

from __future__ import annotations

import logging
from contextvars import ContextVar

session_id: ContextVar[str] = ContextVar("aqaa_session", default="-")
response_id: ContextVar[str] = ContextVar("aqaa_response", default="-")

FORMAT = "%(asctime)s %(levelname).1s %(session)s %(response)s %(name)s: %(message)s"


class _WhoseLine(logging.Filter):
    """Tasks and threads inherit the context, so a line far below knows its conversation."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.session = session_id.get()
        record.response = response_id.get()
        return True


def set_up(level: str) -> None:
    """Log to stderr. Called once, by the command that serves."""
    handler = logging.StreamHandler()
    handler.addFilter(_WhoseLine())
    handler.setFormatter(logging.Formatter(FORMAT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
