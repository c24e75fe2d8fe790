"""`aqaa inspect`: what a model bundle holds, whether every part loads, and the memory it takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aqaa.models.errors import AqaaError, BundleError

if TYPE_CHECKING:
    from rich.table import Table

    from aqaa.models.bundle import Bundle

GIB = 2**30
MIB = 2**20
FLOAT32 = 4  # bytes; what every part but the decoder is computed in
BFLOAT16 = 2  # bytes; the cache of a published decoder


@dataclass(frozen=True)
class PartReport:
    """One part of a bundle. `problem` says why it does not load; None: it does."""

    name: str
    holds: str
    parameters: int
    memory_bytes: int
    problem: str | None = None


def inspect(
    directory: Annotated[Path, typer.Argument(help="A model bundle's directory.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a model bundle holds, whether every part loads, and the memory it will take."""
    from rich.console import Console

    from aqaa.models.bundle import load_bundle
    from aqaa.server.compute.devices import place, visible_gpus

    bundle = load_bundle(directory)
    placement = place("auto", visible_gpus())
    with Console(stderr=True).status(f"loading the parts of {bundle.name}"):
        parts = examine(bundle)
    engine, reason = _engine(bundle)
    judge, judge_reason = _judge(bundle)
    if as_json:
        report = {
            "name": bundle.name,
            "directory": str(bundle.root),
            "description": bundle.description,
            "license": bundle.license,
            "loads": not any(part.problem for part in parts),
            "memory_bytes": sum(part.memory_bytes for part in parts),
            "engine": engine,
            "engine_reason": reason,
            "device": placement.device,
            "device_reason": placement.reason,
            "end_of_turn": judge,
            "end_of_turn_reason": judge_reason,
            "parts": [asdict(part) for part in parts],
        }
        typer.echo(json.dumps(report, indent=2))
    else:
        console = Console()
        console.print(_table(bundle, parts))
        console.print(f"engine: {engine} ({reason})")
        console.print(f"hearing and speaking: {placement.device} ({placement.reason})")
        console.print(f"ends of turns (semantic_vad): {judge} ({judge_reason})")
        for part in parts:
            if part.problem:
                console.print(f"{part.name}: {part.problem}", style="red", markup=False)
    if any(part.problem for part in parts):
        raise typer.Exit(1)


def examine(bundle: Bundle) -> list[PartReport]:
    """Load every part of `bundle`, one after the other; a part that fails carries its reason."""
    looks: dict[str, Callable[[Bundle], tuple[str, int, int]]] = {
        "linguistic tokenizer": _linguistic,
        "semantic tokenizer": _semantic,
        "text tokenizer": _text,
        "decoder": _decoder,
        "vocoder": _vocoder,
        "voices": _voices,
    }
    if bundle.transcriber is not None:
        looks["transcriber"] = _transcriber
    if bundle.turn is not None:
        looks["turn head"] = _turn_head
    parts = []
    for name, look in looks.items():
        try:
            parts.append(PartReport(name, *look(bundle)))
        except AqaaError as error:
            parts.append(PartReport(name, "", 0, 0, str(error)))
    return parts


def _linguistic(bundle: Bundle) -> tuple[str, int, int]:
    from aqaa.tokenizers.linguistic import LinguisticTokenizer

    tokenizer = LinguisticTokenizer.load(bundle.tokenizer)
    count = tokenizer.encoder.parameters() + tokenizer.centres.numel()
    return f"Paraformer encoder, {len(tokenizer.centres)} centres", count, FLOAT32 * count


def _semantic(bundle: Bundle) -> tuple[str, int, int]:
    from aqaa.tokenizers.semantic import SemanticTokenizer

    tokenizer = SemanticTokenizer.load(bundle.tokenizer)
    streaming = tokenizer.streaming
    window = f"{streaming.left_ms} | {streaming.chunk_ms} | {streaming.right_ms} ms"
    kind = "exact" if streaming.exact else "approximate"
    count = tokenizer.network.weights
    return f"speech_tokenizer_v1, streams {window} ({kind})", count, FLOAT32 * count


def _transcriber(bundle: Bundle) -> tuple[str, int, int]:
    from aqaa.tokenizers.linguistic import LinguisticTokenizer
    from aqaa.tokenizers.transcriber_loading import load_transcriber

    transcriber = load_transcriber(bundle, LinguisticTokenizer.load(bundle.tokenizer))
    assert transcriber is not None
    count = transcriber.weights
    return transcriber.name, count, FLOAT32 * count


def _turn_head(bundle: Bundle) -> tuple[str, int, int]:
    from aqaa.server.hearing.turn_head import TurnHead

    assert bundle.turn is not None
    count = sum(p.numel() for p in TurnHead.load(bundle.turn.path).parameters())
    return "tells a turn's end from a pause", count, FLOAT32 * count


def _text(bundle: Bundle) -> tuple[str, int, int]:
    from aqaa.tokenizers.text import TextTokenizer

    tokenizer = TextTokenizer.of(bundle)
    size = (bundle.decoder.path / bundle.decoder.text_tokenizer).stat().st_size
    return f"sentencepiece, {tokenizer.vocabulary} pieces", 0, size


def _decoder(bundle: Bundle) -> tuple[str, int, int]:
    """Only headers are read: they say whether every file is whole, and 130 B may not fit here."""
    from aqaa.models.step1 import Step1Config, weight_files
    from aqaa.server.engine.select import choose_engine

    config = Step1Config.load(bundle.decoder.path)
    count = size = 0
    for file in weight_files(bundle.decoder.path):
        held, bytes_held = _safetensors_header(file)
        count, size = count + held, size + bytes_held
    if count < config.parameters:
        raise BundleError(
            f"{bundle.decoder.path} holds {count} of the {config.parameters} weights that its "
            "config.json describes: fetch the missing shards"
        )
    context = bundle.decoder.context
    embedded = choose_engine(bundle).name == "embedded"  # which computes in float32
    cache = (FLOAT32 if embedded else BFLOAT16) * config.kv_per_token * context
    return (
        f"Step-1, {config.num_hidden_layers} layers x {config.hidden_size}, "
        f"+{cache / MIB:.0f} MiB of cache for {context} ids",
        count,
        FLOAT32 * count if embedded else size,
    )


def _safetensors_header(file: Path) -> tuple[int, int]:
    """Weights in a safetensors file, and their bytes."""
    from math import prod

    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as tensors:
            shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BundleError(f"a shard of the decoder is damaged: {file}: {error}") from error
    return sum(prod(shape) for shape in shapes), file.stat().st_size


def _vocoder(bundle: Bundle) -> tuple[str, int, int]:
    from aqaa.vocoder.config import load_config
    from aqaa.vocoder.loading import load_flow, load_hift

    path = bundle.vocoder.path
    config = load_config(path / "cosyvoice.yaml")
    networks = (load_flow(path, config.flow), load_hift(path, config.hift))
    count = sum(p.numel() for network in networks for p in network.parameters())
    return f"flow ({bundle.vocoder.steps} steps) and HiFT", count, FLOAT32 * count


def _voices(bundle: Bundle) -> tuple[str, int, int]:
    from aqaa.vocoder.config import load_config
    from aqaa.vocoder.voices import check_markers, load_voices

    config = load_config(bundle.vocoder.path / "cosyvoice.yaml")
    voices = load_voices(bundle.voices.path, config)
    if bundle.voices.default not in voices:
        raise BundleError(
            f"voices.default is {bundle.voices.default!r}, but the voices are: {', '.join(voices)}"
        )
    check_markers(bundle, voices)
    return ", ".join(voices), 0, 0


def _engine(bundle: Bundle) -> tuple[str, str]:
    from aqaa.server.engine.select import choose_engine

    try:
        return choose_engine(bundle)
    except AqaaError as error:
        return "none", str(error)


def _judge(bundle: Bundle) -> tuple[str, str]:
    from aqaa.server.hearing.choose_judge import choose_judge

    try:
        judge, reason = choose_judge(bundle)
    except AqaaError as error:
        return "none", str(error)
    return "silence" if judge is None else judge.name, reason


def _table(bundle: Bundle, parts: list[PartReport]) -> Table:
    from rich.table import Table

    table = Table(
        title=f"{bundle.name}  ({bundle.root})", caption=bundle.description, show_footer=True
    )
    memory = sum(part.memory_bytes for part in parts)
    table.add_column("part", footer="all")
    table.add_column("holds")
    table.add_column("weights", justify="right")
    table.add_column("memory", justify="right", footer=_size(memory))
    table.add_column("loads")
    for part in parts:
        table.add_row(
            part.name,
            part.holds,
            f"{part.parameters:,}" if part.parameters else "",
            _size(part.memory_bytes) if part.memory_bytes else "",
            "no" if part.problem else "yes",
            style="red" if part.problem else None,
        )
    return table


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.1f} MiB"
