"""`aqaa vocode` and `aqaa resynth`: audio tokens, or a recording's, spoken by the vocoder."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aqaa.models.bundle import Bundle, load_bundle, nano_path
from aqaa.models.errors import AudioError, InputError, TokenError
from aqaa.models.groups import GROUP_TOKENS

if TYPE_CHECKING:
    from aqaa.vocoder.vocoder import Vocoder

BundlePath = Annotated[Path, typer.Option("--bundle", help="Directory that holds aqaa.toml.")]
VoiceName = Annotated[
    str, typer.Option("--voice", help="Who speaks; the bundle's default if not given.")
]
Speed = Annotated[float, typer.Option("--speed", help="0.5 to 2; the pitch stays.")]
Plot = Annotated[bool, typer.Option("--plot", help="Write a spectrogram (.png) too, joins marked.")]


def vocode(
    tokens: Annotated[Path, typer.Argument(help="JSON: a list of audio tokens or of decoder ids.")],
    out: Annotated[Path, typer.Argument(help="The .wav to write.")],
    bundle: BundlePath = nano_path(),  # noqa: B008
    voice: VoiceName = "",
    speed: Speed = 1.0,
    plot: Plot = False,
) -> None:
    """Speak audio tokens, chunk by chunk as a session would."""
    model = load_bundle(bundle)
    _speak(model, read_tokens(tokens, model.tokens.audio_offset), out, voice, speed, plot)


def resynth(
    recording: Annotated[Path, typer.Argument(help="Any sound file with speech.")],
    out: Annotated[Path, typer.Argument(help="The .wav to write.")],
    bundle: BundlePath = nano_path(),  # noqa: B008
    voice: VoiceName = "",
    speed: Speed = 1.0,
    plot: Plot = False,
) -> None:
    """Tokenise a recording and speak its tokens: what the model can hear, in a voice it has."""
    from aqaa.server.audio.files import read_audio
    from aqaa.tokenizers.dual import DualTokenizer

    model = load_bundle(bundle)
    ids = DualTokenizer.load(model).encode(read_audio(recording))
    _speak(model, [i - model.tokens.audio_offset for i in ids], out, voice, speed, plot)


def read_tokens(path: Path, audio_offset: int) -> list[int]:
    """Audio tokens of a JSON file: a list of them, or of decoder ids, or an object that has `ids`.

    The two kinds are told apart by the places in a group, which only one of them fits.

    Raises:
        InputError: the file cannot be read or is not such a list.
        TokenError: the list is neither kind, or its groups are incomplete.
    """
    from aqaa.models.groups import check_groups

    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from error
    if isinstance(data, dict):
        data = data.get("ids")
    if not isinstance(data, list) or not all(type(item) is int for item in data):
        raise InputError(f"{path} must hold a list of whole numbers: audio tokens or decoder ids")
    try:
        return [int(token) for token in check_groups([item - audio_offset for item in data])]
    except TokenError:
        return [int(token) for token in check_groups(data)]


def _speak(
    model: Bundle, tokens: Sequence[int], out: Path, voice: str, speed: float, plot: bool
) -> None:
    import numpy as np
    import soundfile

    from aqaa.vocoder.picture import spectrogram
    from aqaa.vocoder.vocoder import Vocoder

    vocoder: Vocoder = Vocoder.load(model.vocoder, model.voices)
    began = time.perf_counter()
    first = 0.0
    stream = vocoder.stream(voice or model.voices.default, speed)
    pieces = []
    for at in range(0, len(tokens), GROUP_TOKENS):
        pieces.append(stream.push(tokens[at : at + GROUP_TOKENS]))
        if len(pieces[-1]) and not first:
            first = time.perf_counter() - began
    pieces.append(stream.flush())
    spent = time.perf_counter() - began
    sound = np.concatenate(pieces)
    if not len(sound):
        raise AudioError("there is no whole group of audio tokens, so there is nothing to say")
    soundfile.write(out, sound, vocoder.rate, subtype="PCM_16")
    seconds = len(sound) / vocoder.rate
    typer.echo(
        f"{out}: {seconds:.2f} s in {spent:.2f} s (real-time factor {spent / seconds:.2f}), "
        f"first sound after {first * 1000:.0f} ms of computing"
    )
    if plot:
        joins = np.unique(np.cumsum([len(piece) for piece in pieces])[:-1])
        picture = out.with_suffix(".png")
        inner = [int(join) for join in joins if 0 < join < len(sound)]
        spectrogram(sound, vocoder.rate, inner).savefig(picture)
        typer.echo(f"{picture}: {len(joins)} joins")
