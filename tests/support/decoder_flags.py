"""What `vllm serve` must be launched with, and what a manifest launches it with, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aqaa.server.engine.settings import VllmSettings
from aqaa.server.engine.vllm.launch_flags import engine_environment, serve_command

Flags = dict[str, tuple[str, ...]]


def parse_flags(arguments: Sequence[str]) -> tuple[list[str], Flags]:
    """Positional arguments, and each flag with its values; `--a=b` is `--a b`."""
    positional: list[str] = []
    flags: Flags = {}
    name = ""
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument.partition("=")
            assert name not in flags, f"{name} is given twice"
            flags[name] = (value,) if equals else ()
        elif name:
            flags[name] = (*flags[name], argument)
        else:
            positional.append(argument)
    return positional, flags


def wanted(settings: VllmSettings, model: str, context: int) -> tuple[list[str], Flags]:
    """What the server itself would launch on CUDA."""
    command = serve_command(Path(model), context, settings, cuda=True)
    assert command[:2] == ["vllm", "serve"]
    return parse_flags(command[2:])


def wanted_environment(settings: VllmSettings) -> dict[str, str]:
    """Variables that vLLM's processes need for it."""
    return engine_environment(settings, cuda=True)
