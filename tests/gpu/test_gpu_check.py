"""The check of a GPU: on a card it must pass; without one it is seen to work, on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checked_models import decibels
from decoder_shard import DecoderShard
from gpu_check import failures, main
from published_step1 import OMNI

from aqaa.models.step1 import Step1Config

no_card = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch sees no CUDA device: python tests/gpu/gpu_check.py"
)


@pytest.fixture(scope="module")
def dry(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the check finds on the CPU, as it saved it."""
    out = tmp_path_factory.mktemp("gpu") / "found.json"
    main(["--device", "cpu", "--tiny", "--out", str(out)])
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def test_every_part_of_the_check_runs_without_a_card(dry: dict[str, Any]) -> None:
    assert failures(dry) == {}
    assert dry["batched_is_alone"]["passed"]
    assert dry["nano_equals_cpu"]["ids"] >= 50
    rows = dry["hearing_times"] | dry["speaking_times"]
    for model in ("linguistic", "semantic", "vocoder graphed", "vocoder eager"):
        assert rows[f"{model}, 1"]["ms"] > 0
    for who in ("voices", "ears"):
        (share,) = dry[who]["deadlines_met"].values()
        assert 0 <= share <= 1
    assert dry["decoder_shard"]["bf16, 2"]["ms"] > 0


def test_a_part_that_raised_or_found_a_difference_is_a_failure() -> None:
    found = {"machine": {}, "a": {"passed": True}, "b": {"passed": False}, "c": {"failed": "why"}}
    assert failures(found) == {"b": "not equal", "c": "why"}


def test_a_wave_is_as_many_decibels_above_its_error() -> None:
    wave = torch.randn(4000, generator=torch.manual_seed(0)).numpy()
    assert decibels(wave, wave) == 200
    assert decibels(wave, wave * 0.99) == pytest.approx(40, abs=0.1)


def test_eight_shards_read_what_the_plan_says_that_a_step_reads() -> None:
    """Of the 130 B, on the `meta` device, which holds nothing; the embedding is not read whole."""
    shard = DecoderShard(OMNI, 8, "bf16", "meta")
    read = 8 * shard.weight_bytes
    edge = 2 * OMNI.vocab_size * OMNI.hidden_size
    assert read == pytest.approx(2 * OMNI.parameters - edge, rel=1e-4)


def test_a_shard_of_fewer_groups_than_gpus_keeps_one() -> None:
    config = Step1Config(
        hidden_size=64,
        intermediate_size=128,
        num_attention_heads=8,
        num_attention_groups=2,
        num_hidden_layers=1,
        vocab_size=64,
        max_seq_len=64,
        rms_norm_eps=1e-5,
    )
    assert DecoderShard(config, 4, "bf16", "cpu").groups == 1


@no_card
def test_a_card_computes_what_the_cpu_does_for_many_as_for_one(tmp_path: Path) -> None:
    found = main(["--device", "cuda:0", "--out", str(tmp_path / "found.json")])
    assert failures(found) == {}
