"""What the documents say is there, is there: links, files, folders, commands, numbers."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import pytest
from published_step1 import OMNI
from typer import Context, Typer
from typer.core import TyperGroup
from typer.main import get_command

from aqaa.server.config import Settings
from aqaa.server.engine.plan import make_plan, parse_gpus

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    file
    for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md", "models/nano/README.md")
    for file in ROOT.glob(pattern)
)
# CHANGELOG.md tells of names that are gone.
PRESENT = [file for file in DOCUMENTS if file.name != "CHANGELOG.md"]
CODE = "models|tokenizers|vocoder|server|clients|recipe"
FOLDERS = CODE + "|tests|deploy|docs|\\.ci"
GONE = {"server/protocol/PROTOCOL.md"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COMMANDS: dict[str, str] = PROJECT["entry-points"]["aqaa.commands"]
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def code_blocks(file: Path) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", file.read_text(encoding="utf-8"), re.M | re.S)


def commands(file: Path) -> list[list[str]]:
    """Every command line of the shell blocks, as words."""
    lines = [
        line for block in code_blocks(file) for line in block.replace("\\\n", " ").splitlines()
    ]
    return [
        words
        for line in lines
        for part in line.split("&&")
        if (words := shlex.split(part, comments=True))
    ]


@pytest.mark.parametrize("file", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(file: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", file.read_text(encoding="utf-8"), flags=re.S)
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [link for link in links if link and "://" not in link]
    assert [link for link in local if not (file.parent / link).exists()] == []


@pytest.mark.parametrize("file", PRESENT, ids=name_of)
def test_files_and_folders_named_in_code_style_exist(file: Path) -> None:
    text = re.sub(r"```.*?```", "", file.read_text(encoding="utf-8"), flags=re.S)
    named = set(re.findall(rf"`((?:{FOLDERS})(?:/[\w.*-]+)*/?)`", text))
    assert [name for name in sorted(named - GONE) if not any(ROOT.glob(name.rstrip("/")))] == []


@pytest.mark.parametrize("file", PRESENT, ids=name_of)
def test_modules_named_in_code_style_exist(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    for name in set(re.findall(rf"\baqaa\.((?:{CODE})(?:\.[a-z_0-9]+)*)", text)):
        path = ROOT.joinpath(*name.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file(), f"aqaa.{name}"


def program() -> TyperGroup:
    """`aqaa`, with the commands that pyproject.toml names."""
    app = Typer()
    for name, target in COMMANDS.items():
        module, _, function = target.partition(":")
        app.command(name)(getattr(import_module(module), function))
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    return group


def parse(words: list[str]) -> None:
    """Raises what the command line would say of `aqaa WORDS`."""
    group = program()
    command = group.get_command(Context(group), words[0])
    assert command is not None, f"no such command: {words[0]}"
    command.make_context(words[0], words[1:])


def test_the_changelog_says_where_modules_are_now() -> None:
    rows = re.findall(r"^  \| .* \| (.*) \|$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    now = {name for row in rows for name in re.findall(r"`aqaa\.([a-z_0-9.]+[a-z_0-9])", row)}
    assert len(now) > 20
    paths = {name: ROOT.joinpath(*name.split(".")) for name in now}
    assert {
        n for n, p in paths.items() if not (p.is_dir() or p.with_suffix(".py").is_file())
    } == set()


@pytest.mark.parametrize("file", PRESENT, ids=name_of)
def test_commands_in_shell_blocks_parse(file: Path) -> None:
    """`aqaa` knows the sub-command and every option; `make` has the target."""
    for words in commands(file):
        while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
            words = words[1:]
        if words[:1] == ["make"]:
            assert set(words[1:]) <= TARGETS, words
        if words[:1] == ["aqaa"]:
            parse(words[1:])


def test_a_command_that_does_not_parse_would_be_seen() -> None:
    with pytest.raises(Exception, match="--loudly"):
        parse(["serve", "--loudly"])


def test_the_readme_names_every_command() -> None:
    """Each sub-command stands in the README or in another page that it leads to."""
    text = "\n".join(file.read_text(encoding="utf-8") for file in DOCUMENTS)
    assert [name for name in COMMANDS if f"aqaa {name}" not in text] == []


# Variables that are no settings of the server; AQAA_NAME stands for any that is.
OTHER_VARIABLES = {
    "AQAA_NAME",
    "AQAA_FIXTURES",
    "AQAA_NANO_WORK",
    "AQAA_URL",
    "AQAA_MODELS",
    "AQAA_BIND",
}


def is_setting(variable: str) -> bool:
    """Whether `Settings` reads it: AQAA_ENGINE__VLLM_HTTP__URL is engine.vllm_http.url."""
    model: Any = Settings
    for name in variable.removeprefix("AQAA_").lower().split("__"):
        if name not in getattr(model, "model_fields", {}):
            return False
        model = model.model_fields[name].annotation
    return True


@pytest.mark.parametrize("file", PRESENT, ids=name_of)
def test_variables_in_the_documents_are_settings(file: Path) -> None:
    named = set(re.findall(r"\bAQAA_[A-Z0-9_]+\b", file.read_text(encoding="utf-8")))
    assert {name for name in named - OTHER_VARIABLES if not is_setting(name)} == set()


def said_codes() -> set[str]:
    """Every error code that stands in a call which tells a client of an error."""
    place = {"ProtocolError": 0, "Goodbye": 1, "AnswerEnd": 1}
    calls = [
        (place[node.func.id], node.args)
        for file in (ROOT / "server").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in place
    ]
    constants = [args[n] for n, args in calls if len(args) > n]
    return {str(a.value) for a in constants if isinstance(a, ast.Constant)}


def test_the_protocol_page_names_every_error_code_and_no_other() -> None:
    page = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_]+)`", page.split("## Error codes")[1]))
    assert said_codes() - named == set(), "docs/protocol.md must name these"
    source = "\n".join(f.read_text(encoding="utf-8") for f in (ROOT / "server").rglob("*.py"))
    assert {code for code in named if f'"{code}"' not in source} == set()


def test_the_protocol_page_names_every_client_event() -> None:
    page = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    part = page.split("## From the client")[1].strip().split("\n\n")[0]
    named: set[str] = set()
    family = ""  # `.commit` after `input_audio_buffer.append` is of the same
    for written in re.findall(r"`([a-z_.]+)`", part):
        family = written if not written.startswith(".") else family.rpartition(".")[0] + written
        named.add(family)
    source = (ROOT / "server/protocol/client_events.py").read_text(encoding="utf-8")
    assert named == set(re.findall(r'type: Literal\["([a-z_.]+)"\]', source))


@pytest.mark.parametrize(
    ("gpus", "quant"), [(g, q) for g in ("H100", "H200") for q in ("fp8", "bf16")]
)
def test_the_planned_sizes_are_those_of_the_plan(gpus: str, quant: Literal["fp8", "bf16"]) -> None:
    plan = make_plan(OMNI, *parse_gpus(f"8x{gpus}"), quant, "bf16", 8192)
    fit, fast = plan.sessions_by_memory, plan.sessions_by_speed
    conversations = min(fit, int(fast / 0.4))
    machines = -(-1000 // conversations)
    line = f"| {gpus} | {quant} | {fit} | {fast} | {conversations} | {machines} |"
    assert line in (ROOT / "docs/scale.md").read_text(encoding="utf-8"), line


def test_the_readmes_waits_are_those_of_the_measured_table() -> None:
    table = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    section = table.split("<!-- bench: conversation -->")[1].split("<!-- bench:")[0]
    head, _, *rows = re.findall(r"^\| (.*) \|$|^\|-", section, re.M)
    place = head.split(" | ").index("heard")
    cells = {row.split(" | ")[0]: row.split(" | ")[place] for row in rows}
    one, one_p95, four, four_p95 = (
        float(cell) / 1000 for sessions in ("1", "4") for cell in cells[sessions].split(" / ")
    )
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for line in (
        f"| 1 | {one:.1f} s | {one_p95:.1f} s |",
        f"| 4 | {four:.1f} s | {four_p95:.1f} s |",
    ):
        assert line in readme, f"README.md must say {line!r}, as docs/performance.md does"
