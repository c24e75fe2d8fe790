"""`aqaa voice`: a voice from a recording, made as the published prompts are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aqaa.models.bundle import Bundle, load_bundle
from aqaa.models.errors import InputError

if TYPE_CHECKING:
    from aqaa.tokenizers.stream import Samples

PROMPT_SECONDS = 30.0  # every window of the vocoder begins with the prompt: a long one costs time


def voice(
    recording: Annotated[Path, typer.Argument(help="Clean speech of one person, 3 to 10 seconds.")],
    name: Annotated[str, typer.Argument(help="What the voice will be called.")],
    bundle: Annotated[
        Path, typer.Option("--bundle", help="Directory that holds aqaa.toml and will have it.")
    ],
    text: Annotated[str, typer.Option(help="What is said in the recording.")] = "",
    description: Annotated[str, typer.Option(help="For whoever chooses a voice.")] = "",
    license: Annotated[str, typer.Option(help="Of the recording.")] = "",
) -> None:
    """Add the voice of a recording to a bundle's voices.

    The bundle's vocoder folder must hold the published speaker encoder, campplus.onnx. nano has
    none: its voices were trained into it.
    """
    from aqaa.server.audio.files import decode_audio
    from aqaa.vocoder.config import load_config
    from aqaa.vocoder.voices import make_voice, save_voice

    model = load_bundle(bundle)
    if not name or name != Path(name).name or name.startswith("."):
        raise InputError(f"{name!r} cannot be a voice's name: it becomes the name of its file")
    wave, rate = decode_audio(recording, max_seconds=PROMPT_SECONDS)
    made = make_voice(
        name,
        wave,
        rate,
        lambda heard: _prompt_tokens(model, heard),
        load_config(model.vocoder.path / "cosyvoice.yaml"),
        model.vocoder.path / "campplus.onnx",
        text=text,
        description=description,
        license=license,
    )
    model.voices.path.mkdir(parents=True, exist_ok=True)
    typer.echo(
        f"{save_voice(made, model.voices.path)}: {len(made.tokens)} tokens, {len(made.mel)} frames"
    )


def _prompt_tokens(model: Bundle, heard: Samples) -> list[int]:
    """Audio tokens of 16 kHz speech, its silent ends cut off."""
    from aqaa.tokenizers.dual import DualTokenizer
    from aqaa.tokenizers.normalise import trim_silence

    ids = DualTokenizer.load(model).encode(trim_silence(heard))
    return [token - model.tokens.audio_offset for token in ids]
