"""Seeded sampling as a vLLM logits processor, with the random numbers of the embedded engine.

It acts on requests with `extra_args={"seeded_draw": {"seed", "temperature", "top_p"}}` and on no
other, and must be the last processor that changes logits. Such a request asks vLLM for the
likeliest id: this processor draws the id and leaves no other. The random number depends on the
seed and on the id's position in the answer, so a cut answer goes on as the uncut one.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from aqaa.server.engine.embedded.sampling import draw, random_share
from aqaa.server.engine.vllm.pattern import answered

ARGUMENT = "seeded_draw"


class _Draw(BaseModel):
    """How the ids of one request are drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    seed: int
    temperature: float = Field(gt=0)
    top_p: float = Field(gt=0, le=1)


class SeededDraw(LogitsProcessor):  # type: ignore[misc]
    """Draws the id of each such row and sets all other logits of the row to -inf."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._requests: dict[int, tuple[_Draw, int, list[int]]] = {}

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse anything but the three numbers.

        Raises:
            ValueError: as vLLM asks of validators; a server answers 400 with it.
        """
        value = (sampling_params.extra_args or {}).get(ARGUMENT)
        if value is not None:
            _parse(value)
            answered(sampling_params)

    def is_argmax_invariant(self) -> bool:
        """It decides which id is the likeliest."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the batch's rows; vLLM keeps the output lists up to date itself."""

        def wanted(
            params: SamplingParams, prompt: list[int] | None, output: list[int]
        ) -> tuple[_Draw, int, list[int]] | None:
            value = (params.extra_args or {}).get(ARGUMENT)
            return None if value is None else (_parse(value), answered(params), output)

        process_dict_updates(self._requests, batch_update, wanted)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Draw in place; `logits` is [rows, vocabulary]."""
        for row, (how, before, output) in self._requests.items():
            share = random_share(how.seed, before + len(output))
            scores = logits[row].to("cpu", torch.float32, copy=True).numpy()
            token = draw(scores, how.temperature, how.top_p, share)
            logits[row] = -torch.inf
            logits[row, token] = 0.0
        return logits


def _parse(value: Any) -> _Draw:
    try:
        return _Draw.model_validate(value)
    except ValidationError as error:
        raise ValueError(f"extra_args.{ARGUMENT} is not usable: {error}") from error
