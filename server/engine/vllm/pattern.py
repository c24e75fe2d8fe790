"""The shape of answers and of the calls in them, as a vLLM logits processor.

It acts on requests with `extra_args={"answer_pattern": {...}}`, the fields of `AnswerPattern`, or
`{"calls": {...}}`, those of `CallShape`, and on no other. `"answered": n` says that the prompt's
last n ids are the beginning of the answer. `repetition` says how vLLM learns of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from aqaa.server.engine.call_mask import CallGrammars, CallMask
from aqaa.server.engine.call_shape import CallShape
from aqaa.server.engine.pattern import AnswerPattern
from aqaa.server.engine.pattern_mask import PatternMask

ARGUMENT = "answer_pattern"
CALLS = "calls"
_PATTERN = TypeAdapter(AnswerPattern)
_CALLS = TypeAdapter(CallShape)
_Shape = TypeVar("_Shape")


class _Answer:
    """One request: its output, to which vLLM appends, and how many of its ids the masks know."""

    def __init__(self, masks: list[PatternMask | CallMask], output: list[int]) -> None:
        self._masks = masks
        self._output = output
        self._seen = 0

    def apply(self, logits: torch.Tensor) -> None:
        for mask in self._masks:
            mask.push(self._output[self._seen :])
            mask.apply(logits)
        self._seen = len(self._output)


class KeepsPattern(LogitsProcessor):  # type: ignore[misc]
    """Sets the logits of ids that break the answer's pattern, or a call's schema, to -inf."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._requests: dict[int, _Answer] = {}
        self._grammars = CallGrammars.beside(Path(vllm_config.model_config.model))

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse what is neither an `AnswerPattern` nor a `CallShape`.

        Raises:
            ValueError: as vLLM asks of validators; a server answers 400 with it.
        """
        pattern, calls = _pattern(sampling_params), calls_of(sampling_params)
        if pattern is not None or calls is not None:
            answered(sampling_params)

    def is_argmax_invariant(self) -> bool:
        """It changes greedy answers as well."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the batch's rows; vLLM keeps the output lists up to date itself."""

        def wanted(
            params: SamplingParams, prompt: list[int] | None, output: list[int]
        ) -> _Answer | None:
            pattern, calls = _pattern(params), calls_of(params)
            before = beginning(params, prompt)
            masks: list[PatternMask | CallMask] = []
            if pattern is not None:
                masks.append(PatternMask(pattern, before))
            if calls is not None and self._grammars is not None:
                masks.append(CallMask(self._grammars, calls, before))
            return _Answer(masks, output) if masks else None

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


def beginning(params: SamplingParams, prompt: list[int] | None) -> list[int]:
    """The ids of the answer that are in its prompt."""
    ids = prompt or []
    return ids[max(0, len(ids) - answered(params)) :]


def calls_of(params: SamplingParams) -> CallShape | None:
    """What the request's calls must be; None: it says nothing of them.

    Raises:
        ValueError: it is no `CallShape`.
    """
    return _said(params, CALLS, _CALLS, "CallShape")


def _pattern(params: SamplingParams) -> AnswerPattern | None:
    return _said(params, ARGUMENT, _PATTERN, "AnswerPattern")


def _said(
    params: SamplingParams, argument: str, fields: TypeAdapter[_Shape], name: str
) -> _Shape | None:
    value = (params.extra_args or {}).get(argument)
    if value is None:
        return None
    try:
        return fields.validate_python(value)
    except ValidationError as error:
        raise ValueError(f"extra_args.{argument} is no {name}: {error}") from error
