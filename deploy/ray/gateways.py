"""Gateways as a deployment of Ray Serve; gateways.yaml beside it has its numbers and says why.

One replica is one gateway: the application of `aqaa.server.gateway.asgi`, unchanged. Settings are
`AQAA_*` variables. `aqaa` must be installed in the environment that Ray's workers run in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ray import serve

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def gateway() -> ASGIApp:
    """The application, imported in the replica; it loads its models when its lifespan begins."""
    from aqaa.server.gateway.asgi import app

    return app


app = serve.deployment(serve.ingress(gateway)(), name="Gateway").bind()
