"""nano's vocoder as its `cosyvoice.yaml` describes it: the one place for its dimensions."""

from __future__ import annotations

import functools
from pathlib import Path

from aqaa.models.bundle import VOCODER_RATE, nano_path
from aqaa.models.groups import GROUP_SECONDS, GROUP_TOKENS
from aqaa.vocoder.config import CosyVoiceConfig, load_config

HOP = 256  # samples a mel frame
GROUP_FRAMES = GROUP_SECONDS * VOCODER_RATE / HOP  # 10.3359375 mel frames a group
TOKENS_PER_FRAME = GROUP_TOKENS / GROUP_FRAMES


def layout() -> Path:
    """Where the finished vocoder goes, and where its `cosyvoice.yaml` is read from."""
    return nano_path() / "CosyVoice-300M-25Hz"


@functools.cache
def settings() -> CosyVoiceConfig:
    """The dimensions that are trained."""
    return load_config(layout() / "cosyvoice.yaml")
