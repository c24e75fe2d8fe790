"""`aqaa plan`: what a checkpoint needs on a machine, before any GPU is rented."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from aqaa.server.engine.plan import Plan


class WeightFormat(StrEnum):
    """How the weights are stored."""

    bf16 = "bf16"
    fp8 = "fp8"
    int4 = "int4"


class CacheFormat(StrEnum):
    """How keys and values are stored."""

    bf16 = "bf16"
    fp8 = "fp8"


def plan(
    model: Annotated[
        Path, typer.Argument(help="A bundle, or a Step-1 directory; only config.json is read.")
    ],
    gpus: Annotated[
        str, typer.Option(help="How many of which, as 8xH100; none: this machine's CPU alone.")
    ] = "8xH100",
    quant: Annotated[WeightFormat, typer.Option(help="Of the weights.")] = WeightFormat.fp8,
    kv: Annotated[CacheFormat, typer.Option(help="Of keys and values.")] = CacheFormat.bf16,
    context: Annotated[
        int, typer.Option(min=1, help="Ids that a conversation holds; 8,192 are about 3 minutes.")
    ] = 8192,
    measured: Annotated[
        Path | None,
        typer.Option(help="What tests/gpu/gpu_check.py saved on such a GPU."),
    ] = None,
) -> None:
    """Print what decoder, hearing and speaking need of a machine, and how to launch it."""
    from rich.console import Console

    from aqaa.models.bundle import load_bundle
    from aqaa.models.errors import ConfigError
    from aqaa.models.step1 import Step1Config
    from aqaa.server.cli import plan_audio as audio
    from aqaa.server.engine import plan as planner
    from aqaa.server.engine.vllm.launch_flags import serve_command

    bundle = load_bundle(model) if (model / "aqaa.toml").is_file() else None
    directory = bundle.decoder.path if bundle else model
    config = Step1Config.load(directory)
    console = Console()
    if gpus == "none":
        if bundle is None:
            raise ConfigError("--gpus none plans a whole bundle: give a folder with aqaa.toml")
        console.print(_table(f"{directory}, no GPU", audio.on_cpu(bundle)))
        return
    count, gpu = planner.parse_gpus(gpus)
    share = planner.GPU_MEMORY_SHARE
    if bundle:
        share = audio.decoder_share(gpu.memory, share)
    made = planner.make_plan(config, count, gpu, quant.value, kv.value, context, share)
    expected = made.roofline * planner.ROOFLINE_SHARE
    rows = {
        "parameters": f"{config.parameters:,}",
        "split": f"tensor {made.tensor_parallel} x pipeline {made.pipeline_parallel}",
        "weights": f"{_gb(made.weight_bytes)}, {_gb(made.gpu_weight_bytes)} a GPU",
        "keys and values": f"{made.kv_bytes_per_token:,} bytes a token, "
        f"{made.gpu_kv_bytes_per_token:,.0f} a GPU",
        "left for them": f"{_gb(made.gpu_free_bytes)} a GPU",
        "roofline, one conversation": f"{made.roofline:,.0f} tokens/s; "
        f"{expected:,.0f} to be expected",
        "speech needs": f"{planner.SPEECH_IDS_PER_SECOND:.0f} tokens/s, "
        f"{planner.OPENING_IDS_PER_SECOND:.0f} at its opening",
        f"conversations of {context:,} ids": f"{made.sessions_by_memory} fit, "
        f"{made.sessions_by_speed} keep up with speech",
    }
    console.print(_table(f"{directory} on {gpus}, {quant.value} weights", rows))
    if bundle:
        rows = audio.beside_vllm(bundle, gpus.rpartition("x")[2], expected, measured)
        console.print(_table("hearing and speaking", rows))
    console.print(_verdict(made, quant.value), soft_wrap=True)
    if made.fits:
        settings = planner.vllm_settings(made, quant.value, kv.value)
        command = shlex.join(serve_command(directory, context, settings, cuda=True))
        console.print(
            "\nLaunch (the gateway then uses engine vllm-http), or engine vllm with these:"
        )
        console.print(command, soft_wrap=True, highlight=False, markup=False)


def _table(title: str, rows: Mapping[str, str]) -> Table:
    from rich.table import Table

    table = Table(title=title, show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _verdict(made: Plan, quant: str) -> str:
    from aqaa.server.engine import plan as planner

    if not made.fits:
        return "It does not fit: more GPUs, or fewer bits a weight."
    expected = made.roofline * planner.ROOFLINE_SHARE
    if expected < planner.SPEECH_IDS_PER_SECOND:
        return "It fits, but speech would stall: more GPUs, or fewer bits a weight."
    if expected < planner.OPENING_IDS_PER_SECOND:
        return "Real time, but the opening of an answer may stall: start playing a little later."
    caution = "" if quant == "bf16" else " Listen to the voice: quantised audio ids can suffer."
    return f"Real time, opening included.{caution}"


def _gb(count: float) -> str:
    return f"{count / 1e9:,.2f} GB"
