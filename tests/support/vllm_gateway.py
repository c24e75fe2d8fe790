"""`python vllm_gateway.py BUNDLE`: a process with the engine `vllm`, as a gateway is.

It gives one answer to a traced turn (vLLM's tracer is one for the whole process), says so, and
stays.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from vllm_engines import greedy, read, vllm_settings

from aqaa.models.bundle import load_bundle
from aqaa.server.engine.contract import traceparent
from aqaa.server.engine.vllm.inprocess import VllmEngine

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"


async def main(bundle: Path) -> None:
    engine = VllmEngine(load_bundle(bundle), vllm_settings())
    await engine.start()
    traceparent.set(f"00-{TRACE_ID}-{SPAN_ID}-01")
    await read(engine.generate("session", [5, 6, 7], greedy(4)))
    sys.stdout.write("answered\n")
    sys.stdout.flush()
    await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
