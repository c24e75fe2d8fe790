"""Which engine serves a bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_step1 import write_step1, write_step1_bundle

from aqaa.models.bundle import Bundle, load_bundle
from aqaa.server.engine import select
from aqaa.server.engine.select import choose_engine, create_engine
from aqaa.server.engine.settings import EngineSettings


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return load_bundle(write_step1_bundle(tmp_path, write_step1(tmp_path / "decoder")))


@pytest.fixture
def gpu_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(select.importlib.util, "find_spec", lambda name: object())


def test_without_cuda_the_embedded_engine_serves(bundle: Bundle) -> None:
    choice = choose_engine(bundle)
    assert choice.name == "embedded"
    assert "CUDA" in choice.reason


@pytest.mark.usefixtures("gpu_machine")
def test_with_cuda_and_vllm_vllm_serves(bundle: Bundle) -> None:
    assert choose_engine(bundle).name == "vllm"


@pytest.mark.usefixtures("gpu_machine")
def test_with_cuda_but_no_vllm_the_reason_names_the_extra(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(select.importlib.util, "find_spec", lambda name: None)
    choice = choose_engine(bundle)
    assert choice.name == "embedded"
    assert "vllm" in choice.reason


@pytest.mark.usefixtures("gpu_machine")
def test_the_bundles_word_is_above_the_machines(bundle: Bundle) -> None:
    assert choose_engine(bundle.model_copy(update={"engine": "embedded"})).name == "embedded"


def test_the_operators_word_is_above_the_bundles(bundle: Bundle) -> None:
    asks = bundle.model_copy(update={"engine": "embedded"})
    assert choose_engine(asks, EngineSettings(engine="vllm-http")).name == "vllm-http"


@pytest.mark.parametrize("name", ["embedded", "vllm", "vllm-http"])
def test_every_engine_is_made_with_the_decoders_shape_and_not_started(
    bundle: Bundle, name: str
) -> None:
    engine = create_engine(bundle, EngineSettings.model_validate({"engine": name}))
    assert (engine.name, engine.vocab_size, engine.context) == (name, 1024, 4096)
    assert not engine.alive
