"""Which engine serves a bundle on this machine, and why."""

from __future__ import annotations

import importlib.util
import logging
from typing import Literal, NamedTuple

from aqaa.models.bundle import Bundle
from aqaa.server.engine.contract import Engine
from aqaa.server.engine.settings import EngineSettings

log = logging.getLogger(__name__)


class Choice(NamedTuple):
    """An engine's name and the reason for it, for the log and `aqaa inspect`."""

    name: Literal["embedded", "vllm", "vllm-http"]
    reason: str


def choose_engine(bundle: Bundle, settings: EngineSettings | None = None) -> Choice:
    """The operator's choice, else the bundle's, else vllm with CUDA and vLLM, else embedded."""
    asked = settings.engine if settings is not None else "auto"
    if asked != "auto":
        return Choice(asked, "the settings ask for it")
    if bundle.engine != "auto":
        return Choice(bundle.engine, f"the bundle {bundle.name!r} asks for it")
    import torch

    if not torch.cuda.is_available():
        return Choice("embedded", "no CUDA device is present")
    if importlib.util.find_spec("vllm") is None:
        return Choice("embedded", "CUDA is present, but vLLM is not installed (extra: vllm)")
    return Choice("vllm", "CUDA and vLLM are present")


def create_engine(bundle: Bundle, settings: EngineSettings) -> Engine:
    """Make the chosen engine without starting it; only its own packages are imported.

    Raises:
        BundleError: the decoder's config.json is missing or cannot be used.
    """
    choice = choose_engine(bundle, settings)
    log.info("engine %s: %s", choice.name, choice.reason)
    match choice.name:
        case "embedded":
            from aqaa.server.engine.embedded.engine import EmbeddedEngine

            decoder = bundle.decoder
            return EmbeddedEngine(decoder.path, settings.embedded, decoder.context)
        case "vllm":
            from aqaa.server.engine.vllm.inprocess import VllmEngine

            return VllmEngine(bundle, settings.vllm)
        case "vllm-http":
            from aqaa.server.engine.vllm.http import VllmHttpEngine

            return VllmHttpEngine(bundle, settings.vllm_http)
