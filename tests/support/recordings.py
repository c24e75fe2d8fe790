"""Recorded questions that scripted models understand, and requests that carry them."""

from __future__ import annotations

import io

import numpy as np
import soundfile
from scripted import pcm

CHAT = {"model": "scripted", "stream": True, "messages": [{"role": "user", "content": "hi"}]}


def recording(seconds: float = 1.0, *, loud: bool = True) -> bytes:
    """A wav of speech, or of silence."""
    file = io.BytesIO()
    samples = np.frombuffer(pcm(seconds, loud=loud), "<i2")
    soundfile.write(file, samples, 24_000, format="WAV")
    return file.getvalue()
