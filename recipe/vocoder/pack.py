"""Writes the trained vocoder and its voices into the bundle, in the published layout."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from aqaa.models.bundle import nano_path
from aqaa.models.groups import GROUP_TOKENS
from aqaa.recipe.vocoder.corpus import Corpus
from aqaa.recipe.vocoder.settings import GROUP_FRAMES, layout
from aqaa.recipe.vocoder.train_flow import speaker_embedding
from aqaa.recipe.vocoder.voicing import VOICES
from aqaa.vocoder.voices import Voice, save_voice

PROMPT_GROUPS = 8  # 0.96 s; every window of a stream carries the prompt, so it is kept short


def pack(flow: nn.Module, hift: nn.Module, directory: Path | None = None) -> None:
    """Write `flow.pt` and `hift.pt`, plain tables of float16 tensors."""
    for name, model in (("flow", flow), ("hift", hift)):
        state = {key: value.half() for key, value in model.state_dict().items()}
        torch.save(state, (directory or layout()) / f"{name}.pt")


def pack_voices(corpus: Corpus, directory: Path | None = None) -> None:
    """Write every voice of `VOICES`: the end of the shortest long enough answer."""
    folder = directory or nano_path() / "voices"
    folder.mkdir(parents=True, exist_ok=True)
    long = PROMPT_GROUPS * GROUP_TOKENS
    sentence = min(
        (s for s in corpus.training if len(s.tokens) >= long), key=lambda s: len(s.tokens)
    )
    begin = int((len(sentence.tokens) - long) // GROUP_TOKENS * GROUP_FRAMES)
    for name, voicing in VOICES.items():
        mel = sentence.voices[name].mel[:, begin : begin + round(PROMPT_GROUPS * GROUP_FRAMES)]
        voice = Voice(
            name,
            sentence.tokens[-long:].clone(),
            mel.T.contiguous(),
            speaker_embedding(name),
            sentence.text,
            voicing.description,
        )
        save_voice(voice, folder)
