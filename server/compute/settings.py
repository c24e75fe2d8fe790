"""What an operator may choose of the place where models compute."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ComputeSettings(BaseModel):
    """Of all models but the decoder: VAD, tokenizers, vocoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="None: one a core of the process's share, at least 3, at most 8"
    )
