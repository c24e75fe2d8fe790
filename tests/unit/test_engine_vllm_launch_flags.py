"""The arguments and the environment that vLLM is started with."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from aqaa.models.bundle import TokensConfig
from aqaa.server.engine.contract import SamplingParams
from aqaa.server.engine.pattern import AnswerPattern
from aqaa.server.engine.settings import VllmSettings
from aqaa.server.engine.vllm.launch_flags import (
    CUDA_ATTENTION,
    engine_arguments,
    engine_environment,
    environment,
    sampling_arguments,
    serve_command,
    share_cpus,
)

MODEL = Path("decoder")


def value_of(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def test_cuda_always_gets_the_backend_that_has_sqrt_alibi():
    arguments = engine_arguments(MODEL, 8192, VllmSettings(), cuda=True)
    assert arguments["attention_backend"] == CUDA_ATTENTION


def test_the_served_command_says_what_the_in_process_engine_says():
    settings = VllmSettings(
        tensor_parallel_size=8, pipeline_parallel_size=2, quantization="fp8", max_num_queued_reqs=9
    )
    arguments = engine_arguments(MODEL, 4096, settings, cuda=True)
    command = serve_command(MODEL, 4096, settings, cuda=True, port=8001)
    assert command[:3] == ["vllm", "serve", "decoder"]
    assert value_of(command, "--port") == "8001"
    for name in ("tensor_parallel_size", "quantization", "max_model_len", "max_num_queued_reqs"):
        assert value_of(command, "--" + name.replace("_", "-")) == str(arguments[name])
    at = command.index("--logits-processors") + 1
    processors = arguments["logits_processors"]
    assert command[at : at + len(processors)] == processors
    assert {"--enable-scale-out", "--skip-tokenizer-init"} <= set(command)


def test_a_switch_that_is_off_is_not_on_the_command_line():
    command = serve_command(MODEL, 4096, VllmSettings(enforce_eager=False), cuda=True)
    assert "--enforce-eager" not in command
    assert "False" not in command


def test_each_rank_gets_an_equal_share_of_the_cpus():
    assert share_cpus([0, 1, 2, 3, 8], 2) == "0,1|2,3"
    assert share_cpus([5], 1) == "5"


def test_more_ranks_than_cpus_are_not_bound():
    assert share_cpus([0, 1], 3) == "nobind"


def test_the_operators_own_environment_wins_and_ours_is_taken_back(monkeypatch):
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "7")
    monkeypatch.delenv("VLLM_NO_USAGE_STATS", raising=False)
    with environment(engine_environment(VllmSettings(), cuda=False)):
        assert os.environ["VLLM_CPU_OMP_THREADS_BIND"] == "7"
        assert os.environ["VLLM_NO_USAGE_STATS"] == "1"
    assert os.environ["VLLM_CPU_OMP_THREADS_BIND"] == "7"
    assert "VLLM_NO_USAGE_STATS" not in os.environ


def test_engines_that_start_at_once_get_each_their_own_environment(monkeypatch):
    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND", raising=False)
    seen = []

    def start_the_second() -> None:
        with environment({"VLLM_CPU_OMP_THREADS_BIND": "0|1"}):
            seen.append(os.environ["VLLM_CPU_OMP_THREADS_BIND"])

    second = threading.Thread(target=start_the_second)
    with environment({"VLLM_CPU_OMP_THREADS_BIND": "1"}):
        second.start()
        second.join(timeout=0.2)
        assert os.environ["VLLM_CPU_OMP_THREADS_BIND"] == "1"
    second.join()
    assert seen == ["0|1"]
    assert "VLLM_CPU_OMP_THREADS_BIND" not in os.environ


def test_a_request_says_only_the_rules_that_it_asks_for():
    def extra(**asked: Any) -> Any:
        return sampling_arguments(SamplingParams(**asked))["extra_args"]

    assert extra() is None
    assert extra(answered=7) is None
    assert extra(repetition_aware=True) == {"repetition_aware": True}
    pattern = AnswerPattern.of(TokensConfig())
    said = extra(pattern=pattern, answered=7)
    assert said["answered"] == 7
    assert AnswerPattern(**said["answer_pattern"]) == pattern


def test_a_seeded_answer_leaves_the_draw_to_our_processor():
    seeded = sampling_arguments(SamplingParams(temperature=0.8, top_p=0.5, seed=3))
    assert (seeded["temperature"], seeded["top_p"]) == (0.0, 1.0)
    assert seeded["extra_args"]["seeded_draw"] == {"seed": 3, "temperature": 0.8, "top_p": 0.5}
    for plain in (SamplingParams(temperature=0.8), SamplingParams(temperature=0.0, seed=3)):
        assert sampling_arguments(plain)["temperature"] == plain.temperature
        assert sampling_arguments(plain)["extra_args"] is None
