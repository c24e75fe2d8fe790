"""WebSocket close codes that this server ends a session with.

Clients of the OpenAI SDK try again after 1011, 1012 and 1013, and not after the others. The page
has the same numbers in `clients/web/realtime.js`.
"""

from __future__ import annotations

from typing import Final

REFUSED: Final = 1008  # the key or the web origin is not allowed, or the client does not read
TOO_LARGE: Final = 1009  # a message over the limit
FAULT: Final = 1011  # a fault of the server
RESTART: Final = 1012  # the server stops, or the session is at its maximum age: connect again
TRY_LATER: Final = 1013  # all places are taken, or the models are still loading
