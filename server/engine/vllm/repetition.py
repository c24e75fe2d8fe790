"""The published repetition-aware rule as a vLLM logits processor.

Give it to vLLM by its name (`launch_flags.LOGITS_PROCESSORS`): in-process as `logits_processors`,
on the command line as `vllm serve --logits-processors`. It acts on requests that say
`extra_args={"repetition_aware": true}` and on no other, and not on the ids of a call.

It is written for vLLM's V1 model runner (`VLLM_USE_V2_MODEL_RUNNER=0`), where it must be named
explicitly: only then does vLLM fill in the output ids before the rule looks at them.
"""

from __future__ import annotations

import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from aqaa.server.engine.call_shape import CallPlace
from aqaa.server.engine.contract import REPETITION_WINDOW
from aqaa.server.engine.embedded.sampling import repeated_id
from aqaa.server.engine.vllm.pattern import beginning, calls_of

ARGUMENT = "repetition_aware"


class _Answer:
    """One request: its prompt, and its output, to which vLLM appends."""

    def __init__(self, prompt: list[int], output: list[int], call: CallPlace | None) -> None:
        """`call`: where the answer stood at the prompt's end; None: it may not call."""
        self._prompt = prompt
        self._output = output
        self._call = call
        self._seen = 0

    def banned(self) -> int | None:
        """The id that may not come next."""
        if self._call is not None:
            for token in self._output[self._seen :]:
                self._call.push(token)
            self._seen = len(self._output)
            if self._call.inside:
                return None
        return repeated_id(_tail(self._prompt, self._output))


class RepetitionAware(LogitsProcessor):  # type: ignore[misc]
    """Sets the logit of a repeated last id to -inf, before temperature and top-p."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._requests: dict[int, _Answer] = {}

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse anything but a boolean.

        Raises:
            ValueError: as vLLM asks of validators; a server answers 400 with it.
        """
        value = (sampling_params.extra_args or {}).get(ARGUMENT, False)
        if not isinstance(value, bool):
            raise ValueError(f"extra_args.{ARGUMENT} is {value!r}: give true or false")

    def is_argmax_invariant(self) -> bool:
        """It changes greedy answers as well."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the batch's rows; vLLM keeps the output lists up to date itself."""

        def wanted(
            params: SamplingParams, prompt: list[int] | None, output: list[int]
        ) -> _Answer | None:
            if not (params.extra_args or {}).get(ARGUMENT):
                return None
            calls = calls_of(params)
            call = None if calls is None else CallPlace(calls, beginning(params, prompt))
            return _Answer(prompt or [], output, call)

        process_dict_updates(self._requests, batch_update, wanted)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Ban in place, one write for the whole batch; `logits` is [rows, vocabulary]."""
        banned = {
            row: token
            for row, answer in self._requests.items()
            if (token := answer.banned()) is not None
        }
        if banned:
            rows = torch.tensor(list(banned), device=logits.device)
            tokens = torch.tensor(list(banned.values()), device=logits.device)
            logits[rows, tokens] = -torch.inf
        return logits


def _tail(prompt: list[int], output: list[int]) -> list[int]:
    """The ids that the rule looks at; both lists may be long."""
    return [*prompt[-REPETITION_WINDOW:], *output[-REPETITION_WINDOW:]][-REPETITION_WINDOW:]
