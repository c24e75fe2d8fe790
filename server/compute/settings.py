"""What an operator may choose of the place where models compute."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]


class ComputeSettings(BaseModel):
    """Of all models but the decoder: VAD, tokenizers, vocoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="None: one a core of the process's share, at least 3, at most 8"
    )
    hearing_device: Device = Field(
        default="auto",
        description="of tokenizers and transcriber: cpu, cuda or cuda:N; auto takes the GPU with "
        "the most free memory, 6 GiB at least, else the CPU. The VAD is always on the CPU",
    )
    speaking_device: Device = Field(default="auto", description="of the vocoder")
    speaking_dtype: Literal["auto", "float32", "float16"] = Field(
        default="auto",
        description="of the flow; auto: float16 on a GPU, where it takes a third to a half of the "
        "time and moves nano's mel by 0.007 (on an H100), else float32",
    )
