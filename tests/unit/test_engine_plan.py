"""The arithmetic of `aqaa plan`, against the numbers of SPEC 6 and of the roofline notes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from published_step1 import OMNI
from tiny_step1 import write_step1
from typer.testing import CliRunner

from aqaa.models.errors import ConfigError
from aqaa.models.step1 import Step1Config
from aqaa.server.cli.plan import plan
from aqaa.server.engine.plan import (
    OPENING_IDS_PER_SECOND,
    Plan,
    Quant,
    make_plan,
    parse_gpus,
    vllm_settings,
)

TTS = Step1Config(
    hidden_size=3072,
    intermediate_size=8192,
    num_attention_heads=48,
    num_attention_groups=4,
    num_hidden_layers=32,
    vocab_size=74752,
    max_seq_len=32768,
    rms_norm_eps=1e-5,
)


def planned(
    gpus: str, quant: Quant, *, config: Step1Config = OMNI, kv: str = "bf16", context: int = 8192
) -> Plan:
    return make_plan(config, *parse_gpus(gpus), quant, kv, context)


def test_parameters_are_the_published_ones() -> None:
    assert OMNI.parameters == 131_946_590_208
    assert TTS.parameters == 3_529_706_496


@pytest.mark.parametrize(
    ("gpus", "kv", "whole", "each"),
    [("4xH100", "bf16", 360_448, 90_112), ("8xH100", "fp8", 180_224, 22_528)],
)
def test_keys_and_values_a_token(gpus: str, kv: str, whole: int, each: int) -> None:
    made = planned(gpus, "bf16", kv=kv)
    assert (made.kv_bytes_per_token, made.gpu_kv_bytes_per_token) == (whole, each)


def test_groups_that_are_fewer_than_gpus_are_replicated() -> None:
    four, eight = (planned(gpus, "bf16", config=TTS) for gpus in ("4xH100", "8xH100"))
    assert four.gpu_kv_bytes_per_token == eight.gpu_kv_bytes_per_token == 8192


@pytest.mark.parametrize(("gpus", "expected"), [("4xH100", 66.0e9), ("8xH100", 33.0e9)])
def test_bf16_weights_a_gpu(gpus: str, expected: float) -> None:
    assert planned(gpus, "bf16").gpu_weight_bytes == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("gpus", "quant", "expected"),
    [
        ("4xH100", "bf16", 50),
        ("8xH100", "bf16", 101),
        ("4xH200", "bf16", 72),
        ("8xH200", "bf16", 145),
        ("4xH100", "fp8", 101),
        ("8xH100", "fp8", 201),
        ("2xH100", "int4", 96),
        ("4xH100", "int4", 191),
    ],
)
def test_the_roofline_is_that_of_the_notes(gpus: str, quant: Quant, expected: float) -> None:
    assert planned(gpus, quant).roofline == pytest.approx(expected, rel=0.05)


def test_8_gpus_with_fp8_keep_ahead_of_an_answers_opening_and_4_with_bf16_do_not() -> None:
    assert planned("8xH100", "fp8").roofline * 0.6 > OPENING_IDS_PER_SECOND
    assert planned("4xH100", "bf16").sessions == 0


def test_a_checkpoint_that_is_too_large_does_not_fit() -> None:
    assert not planned("2xH100", "bf16").fits


def test_more_than_a_node_is_a_pipeline_of_nodes() -> None:
    made = planned("16xH100", "bf16")
    assert (made.tensor_parallel, made.pipeline_parallel) == (8, 2)
    # a token passes all weights, one node after the other
    assert made.roofline == pytest.approx(planned("8xH100", "bf16").roofline)


def test_smaller_contexts_leave_room_for_more_conversations() -> None:
    small, large = (planned("8xH100", "fp8", context=n) for n in (2048, 8192))
    assert small.sessions_by_memory >= 4 * large.sessions_by_memory
    assert small.sessions_by_speed >= 4 * large.sessions_by_speed


@pytest.mark.parametrize("gpus", ["", "8", "0xH100", "8xH1000", "12xH100", "5xH100"])
def test_machines_that_cannot_be_are_refused(gpus: str) -> None:
    with pytest.raises(ConfigError):
        planned(gpus, "fp8")


def test_the_settings_carry_the_plan_out() -> None:
    made = planned("8xH100", "fp8")
    settings = vllm_settings(made, "fp8", "fp8")
    assert settings.tensor_parallel_size == 8
    assert settings.quantization == settings.kv_cache_dtype == "fp8"
    assert settings.max_num_seqs == made.sessions


def test_the_command_prints_fit_speed_and_launch_command(tmp_path: Path) -> None:
    directory = write_step1(tmp_path)
    config = json.loads((directory / "config.json").read_text())
    config |= {key: getattr(OMNI, key) for key in OMNI.__annotations__}
    (directory / "config.json").write_text(json.dumps(config))
    app = typer.Typer()
    app.command()(plan)
    arguments = [str(directory), "--gpus", "8xH100", "--quant", "fp8"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for part in ("131,946,590,208", "360,448", "vllm serve", "TRITON_ATTN", "--enable-scale-out"):
        assert part in result.output
