"""`aqaa tokens`: the tokens of a recording, by both tokenizers."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.models.groups import GROUP_TOKENS

if TYPE_CHECKING:
    from rich.table import Table

    from aqaa.tokenizers.dual import DualTokenizer
    from aqaa.tokenizers.stream import Samples

GROUP_MS = 120
PUSH_MS = 20  # of audio in one push of a stream, as clients send it


@dataclass(frozen=True)
class TokenisedRecording:
    """Tokens of a recording. `ready_ms` [groups]: when the audio that a stream needed was there."""

    file: str
    seconds: float
    linguistic: list[int]
    semantic: list[int]
    ids: list[int]
    compute_ms: float
    ready_ms: list[int] | None = None


def tokens(
    recording: Annotated[Path, typer.Argument(help="A recording (wav, flac, mp3, ogg).")],
    model: Annotated[
        Path | None,
        typer.Option(help="A model bundle's directory; the built-in nano if not given."),
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Tokenize as a stream, 20 ms at a time.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print both token streams of a recording and the interleaved ids, with times."""
    from rich.console import Console

    from aqaa.models.bundle import load_bundle, nano_path
    from aqaa.server.audio.files import read_audio
    from aqaa.tokenizers.dual import DualTokenizer

    with Console(stderr=True).status(f"tokenizing {recording}"):
        samples = read_audio(recording)
        dual = DualTokenizer.load(load_bundle(model or nano_path()))
        heard = (_streamed if stream else _whole)(dual, samples, str(recording))
    if as_json:
        typer.echo(json.dumps(asdict(heard)))
        return
    console = Console()
    console.print(_table(heard))
    console.print(
        f"{heard.seconds:.2f} s of audio: {len(heard.linguistic)} linguistic and "
        f"{len(heard.semantic)} semantic tokens, {len(heard.ids)} ids in "
        f"{len(heard.ids) // GROUP_TOKENS} groups, computed in {heard.compute_ms:.0f} ms "
        f"({heard.compute_ms / heard.seconds / 1000:.3f} of real time)"
    )


def _whole(dual: DualTokenizer, samples: Samples, file: str) -> TokenisedRecording:
    start = time.perf_counter()
    encoded = dual.encode_fully(samples)
    return TokenisedRecording(
        file,
        samples.size / TOKENIZER_RATE,
        encoded.linguistic.tolist(),
        encoded.semantic.tolist(),
        encoded.ids,
        1000 * (time.perf_counter() - start),
    )


def _streamed(dual: DualTokenizer, samples: Samples, file: str) -> TokenisedRecording:
    from aqaa.tokenizers.interleave import deinterleave

    step = PUSH_MS * 16
    stream = dual.stream()
    ids: list[int] = []
    ready: list[int] = []
    start = time.perf_counter()
    for begin in range(0, samples.size, step):
        new = stream.push(samples[begin : begin + step])
        ids += new
        ready += [min(begin + step, samples.size) // 16] * (len(new) // GROUP_TOKENS)
    last = stream.flush()
    ids += last
    ready += [samples.size // 16] * (len(last) // GROUP_TOKENS)
    compute_ms = 1000 * (time.perf_counter() - start)
    linguistic, semantic = deinterleave(ids, dual.audio_offset)
    return TokenisedRecording(
        file, samples.size / TOKENIZER_RATE, linguistic, semantic, ids, compute_ms, ready
    )


def _table(recording: TokenisedRecording) -> Table:
    from rich.table import Table

    table = Table(title=recording.file)
    table.add_column("audio (ms)", justify="right")
    for name in ("linguistic", "semantic", "ids"):
        table.add_column(name)
    if recording.ready_ms is not None:
        table.add_column("there at (ms)", justify="right")
    for group in range(len(recording.ids) // GROUP_TOKENS):
        row = [
            f"{GROUP_MS * group}-{GROUP_MS * (group + 1)}",
            " ".join(map(str, recording.linguistic[2 * group : 2 * group + 2])),
            " ".join(map(str, recording.semantic[3 * group : 3 * group + 3])),
            " ".join(map(str, recording.ids[GROUP_TOKENS * group : GROUP_TOKENS * (group + 1)])),
        ]
        if recording.ready_ms is not None:
            row.append(str(recording.ready_ms[group]))
        table.add_row(*row)
    return table
