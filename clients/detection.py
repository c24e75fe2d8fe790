"""Which turn detection our own clients ask the server for."""

from __future__ import annotations

from typing import Literal

TurnDetectionKind = Literal["semantic_vad", "server_vad"]
TURN_DETECTION: TurnDetectionKind = "semantic_vad"  # if nothing else is asked for
