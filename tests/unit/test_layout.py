"""The house keeps its shape: packages ship, imports point one way, nothing shadows `tokenizers`."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARENTS = ("models", "tokenizers", "vocoder", "server", "clients", "recipe")

# Who may import whom, most specific prefix first. A package may always import itself. Above all is
# the recipe; in the server the way is cli -> gateway -> session -> hearing, answering -> compute,
# engine, dialogue -> protocol.
MODELS = "aqaa.models"
DIALOGUE = {MODELS, "aqaa.tokenizers", "aqaa.server.dialogue"}
ENGINE = {MODELS, "aqaa.tokenizers", "aqaa.server.engine", "aqaa.server.urgency"}
SHARED = {
    MODELS,
    "aqaa.server.observe",
    "aqaa.server.clock",
    "aqaa.server.audio",
    "aqaa.server.compute",
    "aqaa.server.urgency",
}
WIRE = {"aqaa.server.protocol"}
HEARING = SHARED | WIRE | {"aqaa.tokenizers"}
PARTS = SHARED | DIALOGUE | ENGINE | WIRE | {"aqaa.server.hearing"}
ANSWERING = PARTS | {"aqaa.server.parts"}
SESSION = (
    ANSWERING | HEARING | {"aqaa.server.answering", "aqaa.server.hearing", "aqaa.server.parts"}
)
GATEWAY = SESSION | {"aqaa.server.session", "aqaa.server.config", "aqaa.server.runtime"}
ALLOWED = {
    "aqaa.models": set(),
    "aqaa.tokenizers": {MODELS},
    "aqaa.vocoder": {MODELS},
    "aqaa.server.protocol": set(),
    "aqaa.server.clock": set(),
    "aqaa.server.observe": {MODELS, "aqaa.server.engine.contract"},
    "aqaa.server.audio": {MODELS, "aqaa.tokenizers"},
    "aqaa.server.urgency": set(),
    "aqaa.server.compute": {MODELS, "aqaa.server.urgency"},
    "aqaa.server.engine": ENGINE,
    "aqaa.server.dialogue": DIALOGUE,
    "aqaa.server.hearing": HEARING,
    "aqaa.server.parts": PARTS,
    "aqaa.server.answering": ANSWERING,
    "aqaa.server.session": SESSION,
    "aqaa.server.config": {
        MODELS,
        "aqaa.server.engine",
        "aqaa.server.compute",
        "aqaa.server.observe.logs",
    },
    "aqaa.server.runtime": GATEWAY | {"aqaa.vocoder"},
    "aqaa.server.gateway": GATEWAY,
    "aqaa.server.cli": {MODELS, "aqaa.tokenizers", "aqaa.vocoder", "aqaa.server"},
    "aqaa.clients": {"aqaa.server.protocol", "aqaa.server.audio", "aqaa.models.errors"},
    "aqaa.recipe": {"aqaa"},
}


def modules() -> list[tuple[str, Path]]:
    found = []
    for parent in PARENTS:
        for file in sorted((ROOT / parent).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            name = ".".join(p for p in ("aqaa", *parts) if p != "__init__")
            found.append((name, file))
    return found


def all_imports_of(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports_of(file: Path) -> set[str]:
    return {name for name in all_imports_of(file) if name.startswith("aqaa.")}


def is_under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def violations(module: str, imported: set[str]) -> list[str]:
    home = next(prefix for prefix in ALLOWED if is_under(module, prefix))
    allowed = ALLOWED[home] | {home}

    def may(name: str) -> bool:
        # `from aqaa.x import y` also names the parent of what it takes
        taken = {other for other in imported if other != name and is_under(other, name)}
        return any(is_under(name, prefix) for prefix in allowed) or (
            bool(taken) and all(may(other) for other in taken)
        )

    return [name for name in imported if not may(name)]


@pytest.mark.parametrize(
    ("module", "file"), modules(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_imports_point_one_way(module: str, file: Path) -> None:
    assert violations(module, imports_of(file)) == []


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("aqaa.vocoder.flow", {"aqaa.server.audio.wire"}),
        ("aqaa.tokenizers.semantic", {"aqaa.server.config"}),
        ("aqaa.clients.ask", {"aqaa.server.gateway.rest"}),
        ("aqaa.models.bundle", {"aqaa.recipe.pack"}),
        ("aqaa.server.cli.serve", {"aqaa.recipe.pack"}),
        ("aqaa.server.cli.serve", {"aqaa.clients.cli"}),
        ("aqaa.server.protocol.server_events", {"aqaa.server.session.memory"}),
        ("aqaa.server.engine.contract", {"aqaa.server.session.memory"}),
        ("aqaa.server.answering.answer", {"aqaa.server.gateway.chat"}),
        ("aqaa.server.hearing.speech_input", {"aqaa.server.answering.answer"}),
    ],
)
def test_a_wrong_import_would_be_seen(module: str, imported: set[str]) -> None:
    assert violations(module, imported)


def test_pyproject_names_every_package() -> None:
    listed = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    )
    present = {f"aqaa.{parent}" for parent in PARENTS}
    for parent in PARENTS:
        present |= {
            ".".join(("aqaa", *init.parent.relative_to(ROOT).parts))
            for init in (ROOT / parent).rglob("__init__.py")
        }
    assert listed == present


# Modules whose distribution has another name, or is a part of one that is declared.
BROUGHT_BY = {
    "yaml": "pyyaml",
    "piper": "piper-tts",
    "starlette": "fastapi",
    "opentelemetry": "opentelemetry-sdk",
    "pydantic_core": "pydantic",
    "google": "onnx",
    "transformers": "vllm",
}


def test_every_import_is_declared() -> None:
    """`make nano` once failed on a fresh machine for want of a package that was here by chance."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    declared = {re.split(r"[\[<>=]", line)[0].lower() for line in lines}
    imported = {name.split(".")[0] for _, file in modules() for name in all_imports_of(file)}
    others = imported - sys.stdlib_module_names - {"aqaa"}
    assert "torch" in others
    wanted = {BROUGHT_BY.get(name, name).replace("_", "-") for name in others}
    assert wanted <= declared, f"not in pyproject.toml: {sorted(wanted - declared)}"


def test_every_folder_with_code_is_a_package() -> None:
    folders = {file.parent for _, file in modules()} - {ROOT / parent for parent in PARENTS}
    assert [f for f in sorted(folders) if not (f / "__init__.py").is_file()] == []


def test_no_folder_shadows_hugging_faces_tokenizers() -> None:
    assert [p for p in PARENTS if (ROOT / p / "__init__.py").exists()] == []
    assert not (ROOT / "tests" / "tokenizers").exists()
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_hugging_faces_tokenizers_imports_from_the_repository_root() -> None:
    pytest.importorskip(
        "tokenizers.implementations", reason="Hugging Face tokenizers not installed"
    )
    code = "import tokenizers; print(tokenizers.__version__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_contract_and_the_protocol_load_no_torch() -> None:
    """A session and a gateway are tested, and a client is run, without loading a decoder."""
    code = (
        "import sys, aqaa.server.engine.contract, aqaa.server.engine.plan;"
        "import aqaa.server.protocol.machine;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_no_module_grows_past_500_lines() -> None:
    files = [file for _, file in modules()] + sorted((ROOT / "tests").rglob("*.py"))
    assert [f.name for f in files if len(f.read_text(encoding="utf-8").splitlines()) > 500] == []


def test_no_module_prints_or_sets_up_logging_outside_the_command_line() -> None:
    offenders = []
    for name, file in modules():
        if (
            is_under(name, "aqaa.server.cli")
            or is_under(name, "aqaa.recipe")
            or name == "aqaa.clients.cli"
        ):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in ("print", "logging.basicConfig"):
                    offenders.append(f"{name}: {called}")
    assert offenders == []
