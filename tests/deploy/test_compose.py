"""The Compose files: by schema, and against what the server wants of vLLM and of settings."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from decoder_flags import parse_flags, wanted, wanted_environment

from aqaa.server.config import Settings, load_settings
from aqaa.server.engine.settings import VllmSettings
from aqaa.server.engine.vllm.launch_flags import LOGITS_PROCESSORS

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
FILES = sorted(DEPLOY.glob("compose*.yaml"))


def composed(name: str) -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    return services


def schema_verdict(file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    return subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_file_follows_the_compose_specification(file: Path) -> None:
    verdict = schema_verdict(file)
    assert verdict.returncode == 0, verdict.stdout


def test_a_misspelt_key_is_refused(tmp_path: Path) -> None:
    wrong = (DEPLOY / "compose.yaml").read_text(encoding="utf-8").replace("ports:", "portz:")
    (tmp_path / "compose.yaml").write_text(wrong, encoding="utf-8")
    assert schema_verdict(tmp_path / "compose.yaml").returncode == 1


def test_the_decoder_is_launched_as_the_server_itself_would_launch_it() -> None:
    decoder = composed("compose.yaml")["services"]["decoder"]
    settings = VllmSettings(tensor_parallel_size=8, quantization="fp8", max_num_queued_reqs=16)
    assert parse_flags(decoder["command"]) == wanted(settings, "/models/Step-Audio-AQAA", 8192)
    assert wanted_environment(settings).items() <= decoder["environment"].items()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_images_are_built_from_stages_that_the_dockerfile_has(file: Path) -> None:
    stages = {
        line.split(" AS ")[1]
        for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
        if line.startswith("FROM ")
    }
    services = composed(file.name)["services"].values()
    assert {s["build"]["target"] for s in services if "build" in s} <= stages


def test_the_build_gets_what_it_copies_and_nothing_else() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = {
        source
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    }
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignore[1] == "*"
    assert {line.removeprefix("!") for line in ignore if line.startswith("!")} == copied
    assert [source for source in copied if not (ROOT / source).exists()] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_mounted_file_is_there(file: Path) -> None:
    sources = [
        volume.split(":")[0]
        for service in composed(file.name)["services"].values()
        for volume in service.get("volumes", [])
    ]
    assert [s for s in sources if s.startswith("./") and not (DEPLOY / s).exists()] == []


def test_the_gateways_settings_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    example = (DEPLOY / "gateway.env.example").read_text(encoding="utf-8").splitlines()
    gateway = composed("compose.yaml")["services"]["gateway"]
    values = dict(line.split("=", 1) for line in example if line and not line.startswith("#"))
    values |= gateway["environment"]
    known = set(Settings.model_fields)
    for name, value in values.items():
        assert name.removeprefix("AQAA_").split("__")[0].lower() in known, name
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.engine.engine == "vllm-http"
    assert settings.engine.vllm_http.url == "http://decoder:8000"


def test_running_answers_may_end_before_docker_kills_the_gateway() -> None:
    for name, service in (("compose.yaml", "gateway"), ("compose.nano.yaml", "aqaa")):
        grace = composed(name)["services"][service]["stop_grace_period"]
        assert float(grace.removesuffix("s")) >= Settings().drain_seconds + 10


def test_nothing_is_opened_beyond_this_machine() -> None:
    for file in FILES:
        for service in composed(file.name)["services"].values():
            assert [p for p in service.get("ports", []) if not p.startswith("127.0.0.1:")] == []


def imported(module: str, seen: set[str]) -> set[str]:
    """Top-level packages of others that `aqaa.MODULE` needs, itself or through ours."""
    file = ROOT.joinpath(*module.split("."))
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    if module in seen or not file.is_file():
        return set()
    seen.add(module)
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    ours = {name.removeprefix("aqaa.") for name in names if name.startswith("aqaa.")}
    others = {name.split(".")[0] for name in names} - {"aqaa"} - sys.stdlib_module_names
    return others.union(*(imported(name, seen) for name in sorted(ours)))


def test_the_decoders_image_has_what_our_plugin_and_processors_import() -> None:
    """The image is vLLM's own and our wheel without dependencies; vLLM itself needs these."""
    processors = [p.partition(":")[0].removeprefix("aqaa.") for p in LOGITS_PROCESSORS]
    entries = ["server.engine.vllm.plugin", *processors]
    needed = set[str]().union(*(imported(entry, set()) for entry in entries))
    assert "torch" in needed
    vllms = {"vllm", "torch", "numpy", "pydantic", "transformers", "psutil"}
    assert needed <= vllms | {"llguidance", "sentencepiece", "safetensors"}
