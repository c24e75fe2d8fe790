"""`aqaa.server.engine.pattern` as a vLLM logits processor.

It acts on requests with `extra_args={"answer_pattern": {...}}`, the fields of `AnswerPattern`, and
on no other. `"answered": n` says that the prompt's last n ids are the beginning of the answer.
`repetition` says how vLLM learns of it.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from aqaa.server.engine.pattern import AnswerPattern
from aqaa.server.engine.pattern_mask import PatternMask

ARGUMENT = "answer_pattern"
_FIELDS = TypeAdapter(AnswerPattern)


class _Answer:
    """One request: its output, to which vLLM appends, and how many of its ids the mask knows."""

    def __init__(self, pattern: AnswerPattern, before: list[int], output: list[int]) -> None:
        """`before`: the ids of the answer that are in the prompt."""
        self._mask = PatternMask(pattern, before)
        self._output = output
        self._seen = 0

    def apply(self, logits: torch.Tensor) -> None:
        self._mask.push(self._output[self._seen :])
        self._seen = len(self._output)
        self._mask.apply(logits)


class KeepsPattern(LogitsProcessor):  # type: ignore[misc]
    """Sets the logits of ids that break the answer's pattern to -inf."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._requests: dict[int, _Answer] = {}

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse what is not an `AnswerPattern`.

        Raises:
            ValueError: as vLLM asks of validators; a server answers 400 with it.
        """
        value = (sampling_params.extra_args or {}).get(ARGUMENT)
        if value is not None:
            _pattern(value)
            answered(sampling_params)

    def is_argmax_invariant(self) -> bool:
        """It changes greedy answers as well."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the batch's rows; vLLM keeps the output lists up to date itself."""

        def wanted(
            params: SamplingParams, prompt: list[int] | None, output: list[int]
        ) -> _Answer | None:
            value = (params.extra_args or {}).get(ARGUMENT)
            if value is None:
                return None
            ids = prompt or []
            before = ids[max(0, len(ids) - answered(params)) :]
            return _Answer(_pattern(value), before, output)

        process_dict_updates(self._requests, batch_update, wanted)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Mask in place; `logits` is [rows, vocabulary]."""
        for row, answer in self._requests.items():
            answer.apply(logits[row])
        return logits


def answered(params: SamplingParams) -> int:
    """How many ids at the prompt's end belong to the answer.

    Raises:
        ValueError: `extra_args.answered` is not a number of ids.
    """
    count = (params.extra_args or {}).get("answered", 0)
    if type(count) is not int or count < 0:
        raise ValueError(f"extra_args.answered is {count!r}: give a number of ids")
    return count


def _pattern(value: Any) -> AnswerPattern:
    try:
        return _FIELDS.validate_python(value)
    except ValidationError as error:
        raise ValueError(f"extra_args.{ARGUMENT} is no AnswerPattern: {error}") from error
