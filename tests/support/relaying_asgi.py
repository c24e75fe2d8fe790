"""The ASGI application with scripted ears and voice, and the `vllm-http` engine as brain.

`uvicorn relaying_asgi:app`, with `AQAA_ENGINE__VLLM_HTTP__URL`.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from scripted import AUDIO, scripted_parts
from token_server import bundle_without_weights

from aqaa.server.config import Settings
from aqaa.server.engine.vllm.http import VllmHttpEngine
from aqaa.server.gateway.asgi import Application
from aqaa.server.runtime import Runtime


async def _load(settings: Settings) -> Runtime:
    parts = scripted_parts(keep_pattern=True)
    likeliest = parts.bundle.sampling.model_copy(update={"temperature": 0.0})
    parts = replace(parts, bundle=parts.bundle.model_copy(update={"sampling": likeliest}))
    with tempfile.TemporaryDirectory() as folder:
        bundle = bundle_without_weights(Path(folder), AUDIO + 5120)
        tokens = bundle.model_copy(update={"tokens": parts.bundle.tokens})
        engine = VllmHttpEngine(tokens, settings.engine.vllm_http)
    await engine.start()
    return Runtime(replace(parts, services=replace(parts.services, engine=engine)), 0.0)


app = Application(_load)
