"""The ASGI application with scripted models: `uvicorn scripted_asgi:app`, 5 ms an id."""

from __future__ import annotations

from scripted import ScriptedEngine, scripted_parts, woven

from aqaa.server.config import Settings
from aqaa.server.gateway.asgi import Application
from aqaa.server.runtime import Runtime


async def _load(settings: Settings) -> Runtime:
    engine = ScriptedEngine(lambda prompt: woven("a rather long answer", 60), seconds=0.005)
    return Runtime(scripted_parts(engine), 0.0)


app = Application(_load)
