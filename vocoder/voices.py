"""Voices: prompts that the flow continues, their files, and how one is made from a recording.

A voice is one `<name>.safetensors` in the bundle's voices directory:

    token      int64 [N]       audio tokens of the prompt, whole groups
    mel        float32 [F, M]  its log-mel; the flow stretches the tokens over it
    embedding  float32 [192]   its x-vector
    metadata   text (what the prompt says), description, license: strings, all optional
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torchaudio.transforms import Resample

from aqaa.models.bundle import TOKENIZER_RATE, Bundle
from aqaa.models.errors import AudioError, BundleError, TokenError, UnknownVoiceError
from aqaa.models.groups import check_groups
from aqaa.models.weights import require_file
from aqaa.vocoder.config import CosyVoiceConfig
from aqaa.vocoder.mel import log_mel, speaker_embedding

SUFFIX = ".safetensors"


@dataclass(frozen=True, eq=False)
class Voice:
    """A prompt: speech that the flow continues in the same voice."""

    name: str
    tokens: Tensor  # int64 [N]
    mel: Tensor  # float32 [F, M]
    embedding: Tensor  # float32 [E]
    text: str = ""
    description: str = ""
    license: str = ""


def load_voices(directory: Path, config: CosyVoiceConfig) -> dict[str, Voice]:
    """Every voice in `directory`, by name, in alphabetical order.

    Raises:
        BundleError: no such directory, no voice in it, or one that is damaged or does not fit.
    """
    if not directory.is_dir():
        raise BundleError(f"the voices directory is missing: {directory}")
    voices = {f.stem: load_voice(f, config) for f in sorted(directory.glob(f"*{SUFFIX}"))}
    if not voices:
        raise BundleError(f"no voice (*{SUFFIX}) in {directory}: make one from a recording first")
    return voices


def check_markers(bundle: Bundle, voices: Collection[str]) -> None:
    """Every voice that the decoder may change to is there.

    Raises:
        BundleError: one is not; else the answer that changes to it would fail.
    """
    unknown = sorted(set(bundle.tokens.voice_markers) - set(voices))
    if unknown:
        known = ", ".join(voices)
        raise BundleError(
            f"tokens.voice_markers names {', '.join(unknown)}, but the voices are: {known}"
        )


def find_voice(voices: Mapping[str, Voice], name: str) -> Voice:
    """The voice called `name`.

    Raises:
        UnknownVoiceError: there is none; the message lists those that there are.
    """
    try:
        return voices[name]
    except KeyError:
        known = ", ".join(sorted(voices))
        raise UnknownVoiceError(f"unknown voice {name!r}; this model speaks as: {known}") from None


def load_voice(path: Path, config: CosyVoiceConfig) -> Voice:
    """The voice in one file, named by the file's stem.

    Raises:
        BundleError: missing, damaged, or of other dimensions than `config`'s networks take.
    """
    require_file(path, "a voice")
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tokens, mel, embedding = (file.get_tensor(key) for key in ("token", "mel", "embedding"))
    except (SafetensorError, OSError) as error:
        raise BundleError(f"the voice {path} cannot be read: {error}") from error
    voice = Voice(
        path.stem,
        tokens.long(),
        mel.float(),
        embedding.float(),
        about.get("text", ""),
        about.get("description", ""),
        about.get("license", ""),
    )
    _check(voice, config, path)
    return voice


def save_voice(voice: Voice, directory: Path) -> Path:
    """Write `voice` as `directory/<name>.safetensors`; the path."""
    path = directory / f"{voice.name}{SUFFIX}"
    tensors = {"token": voice.tokens, "mel": voice.mel.contiguous(), "embedding": voice.embedding}
    about = {"text": voice.text, "description": voice.description, "license": voice.license}
    save_file(tensors, path, {key: value for key, value in about.items() if value})
    return path


def make_voice(
    name: str,
    wave: NDArray[np.float32],
    rate: int,
    tokenise: Callable[[NDArray[np.float32]], Sequence[int]],
    config: CosyVoiceConfig,
    campplus: Path,
    *,
    text: str = "",
    description: str = "",
    license: str = "",
) -> Voice:
    """A voice from a recording, as the published text-to-speech path makes its prompts.

    Args:
        name: what the voice will be called.
        wave: the recording, mono float32 in [-1, 1], not trimmed and not scaled.
        rate: its sampling rate in Hz.
        tokenise: audio tokens (0 to 5119) in whole groups of the recording at 16 kHz. The
            published path trims and scales it for them, but for nothing else.
        config: the vocoder that will speak.
        campplus: the speaker encoder, `campplus.onnx`.
        text: what is said in it.
        description: for whoever chooses a voice.
        license: of the recording.

    Raises:
        AudioError: the recording is too short or is not mono.
        TokenError: the tokens are out of range or out of phase.
        BundleError: the speaker encoder is missing or unreadable.
    """
    if wave.ndim != 1:
        raise AudioError(f"a voice is made from mono audio, not from shape {wave.shape}")
    features, sound = config.feat_extractor, torch.from_numpy(wave)
    # The transform, as the published path: its kernel is computed in float64, the function's not.
    heard = Resample(rate, TOKENIZER_RATE)(sound).numpy()
    return Voice(
        name,
        torch.from_numpy(check_groups(tokenise(heard))),
        log_mel(Resample(rate, features.sampling_rate)(sound), features).T.contiguous(),
        torch.from_numpy(speaker_embedding(heard, campplus)),
        text,
        description,
        license,
    )


def _check(voice: Voice, config: CosyVoiceConfig, path: Path) -> None:
    mels, size = config.flow.output_size, config.flow.spk_embed_dim
    problems = []
    if voice.tokens.ndim != 1 or not len(voice.tokens):
        problems.append("token must be a list of one group or more")
    else:
        try:
            check_groups(voice.tokens.tolist())
        except TokenError as error:
            problems.append(f"token: {error}")
    if voice.mel.ndim != 2 or voice.mel.shape[1] != mels or not len(voice.mel):
        problems.append(f"mel must be [frames, {mels}], is {list(voice.mel.shape)}")
    if voice.embedding.shape != (size,):
        problems.append(f"embedding must be [{size}], is {list(voice.embedding.shape)}")
    if not (voice.mel.isfinite().all() and voice.embedding.isfinite().all()):
        problems.append("mel and embedding must be finite")
    if problems:
        raise BundleError(f"the voice {path} does not fit this vocoder: {'; '.join(problems)}")
