"""A logits processor for test servers: long answers come at a large model's pace.

The tests' decoder is so small that it ends thousands of ids while the client, which shares the
CPUs with it, has not yet read the first. Tests that break an answer off ask for a long one.
"""

from __future__ import annotations

import os
import time

import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

LONG = int(os.environ.get("SLOW_STEPS_FROM", "1000"))  # ids asked for, from which on it is slow
STEP = 0.02  # seconds


class SlowSteps(LogitsProcessor):
    """Changes no logit, only takes its time."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._long: dict[int, SamplingParams] = {}

    def is_argmax_invariant(self) -> bool:
        """No, or vLLM would leave it out of greedy answers."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the batch's rows."""

        def wanted(
            params: SamplingParams, prompt: list[int] | None, output: list[int]
        ) -> SamplingParams | None:
            return params if (params.max_tokens or 0) >= LONG else None

        process_dict_updates(self._long, batch_update, wanted)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Sleep, which leaves the CPU to others."""
        if self._long:
            time.sleep(STEP)
        return logits
