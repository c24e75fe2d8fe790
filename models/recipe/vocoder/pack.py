"""Writes the trained vocoder and its voices into the bundle, in the published layout."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from aqaa.models.bundle import GROUP_TOKENS, nano_path
from aqaa.models.recipe.vocoder.corpus import Recording
from aqaa.models.recipe.vocoder.settings import GROUP_FRAMES, layout
from aqaa.models.recipe.vocoder.train_flow import speaker_embedding
from aqaa.vocoder.voices import Voice, save_voice

PROMPT_GROUPS = 8  # 0.96 s; every window of a stream carries the prompt, so it is kept short
VOICES = {
    "joe": "Male, calm; taught by the piper voice en_US-joe-medium.",
    "alpha": "Female, bright; taught by Kokoro-82M's style jf_alpha speaking English.",
}


def pack(flow: nn.Module, hift: nn.Module, directory: Path | None = None) -> None:
    """Write `flow.pt` and `hift.pt`, plain tables of float16 tensors."""
    for name, model in (("flow", flow), ("hift", hift)):
        state = {key: value.half() for key, value in model.state_dict().items()}
        torch.save(state, (directory or layout()) / f"{name}.pt")


def pack_voices(
    recordings: list[Recording], tokens: list[list[int]], directory: Path | None = None
) -> None:
    """Write every voice of `VOICES`: the end of its shortest long enough utterance."""
    folder = directory or nano_path() / "voices"
    folder.mkdir(parents=True, exist_ok=True)
    for name, description in VOICES.items():
        fitting = [
            (len(ids), i)
            for i, (r, ids) in enumerate(zip(recordings, tokens, strict=True))
            if r.utterance.voice == name
            and (r.utterance.rate, r.mood) == (1.0, "plain")
            and len(ids) // GROUP_TOKENS >= PROMPT_GROUPS
        ]
        _, best = min(fitting)
        ids, recording = tokens[best], recordings[best]
        begin = int((len(ids) // GROUP_TOKENS - PROMPT_GROUPS) * GROUP_FRAMES)
        mel = recording.mel[:, begin : begin + round(PROMPT_GROUPS * GROUP_FRAMES)]
        voice = Voice(
            name,
            torch.tensor(ids[-PROMPT_GROUPS * GROUP_TOKENS :]),
            mel.T.contiguous(),
            speaker_embedding(name),
            recording.utterance.text,
            description,
        )
        save_voice(voice, folder)
