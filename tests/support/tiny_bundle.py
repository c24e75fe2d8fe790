"""A complete bundle in the published layouts: the fixtures' checkpoints and a random decoder."""

from __future__ import annotations

from pathlib import Path

from tiny_step1 import write_step1
from tiny_text import tiny_text
from tiny_vocoder import checkpoint, write_voices

from aqaa.models.groups import AUDIO_CODES


def tiny_bundle(directory: Path, fixtures: Path, *, transcriber: str = "") -> Path:
    """Write a bundle `tiny` that every part of the server can load; its answers mean nothing.

    `transcriber`: the kind of a transcriber, whose words mean nothing either.
    """
    text, tokens = tiny_text()
    decoder = write_step1(directory / "decoder", vocab_size=tokens.audio_offset + AUDIO_CODES)
    (decoder / "tokenizer.model").write_bytes(text._processor.serialized_model_proto())
    write_voices(directory / "voices", fixtures, "joe", "amy")
    (directory / "aqaa.toml").write_text(
        f"""\
name = "tiny"

[tokenizer]
path = "{fixtures / "checkpoints" / "Step-Audio-Tokenizer"}"

[tokens]
audio_offset = {tokens.audio_offset}
eot = {tokens.eot}
bot = {tokens.bot}
audio_start = {tokens.audio_start}
audio_end = {tokens.audio_end}

{f'[transcriber]{chr(10)}kind = "{transcriber}"' if transcriber else ""}

[decoder]
context = 4096

[sampling]
max_tokens = 200

[vocoder]
path = "{checkpoint(fixtures)}"
steps = 2

[voices]
default = "joe"
""",
        encoding="utf-8",
    )
    return directory
