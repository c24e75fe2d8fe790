"""`aqaa.toml`: what it says, and what is refused with the file and the key named."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles import fixture_bundle
from pydantic import ValidationError

from aqaa.models.bundle import Bundle, load_bundle
from aqaa.models.errors import BundleError


def edited(tmp_path: Path, old: str, new: str) -> Path:
    directory = fixture_bundle(tmp_path / "bundle", tmp_path)
    file = directory / "aqaa.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    return directory


def test_a_bundle_points_at_published_directories(tmp_path: Path) -> None:
    bundle = load_bundle(fixture_bundle(tmp_path / "bundle", tmp_path))
    assert bundle.tokenizer.path == tmp_path / "checkpoints" / "Step-Audio-Tokenizer"
    assert bundle.voices.path == tmp_path / "bundle" / "voices"
    assert bundle.root == tmp_path / "bundle"


def test_relative_paths_begin_at_the_bundle(tmp_path: Path) -> None:
    old = f'path = "{tmp_path / "checkpoints" / "step1"}"'
    bundle = load_bundle(edited(tmp_path, old, 'path = "../weights"'))
    assert bundle.decoder.path.resolve() == tmp_path / "weights"


def test_a_bundle_may_have_a_transcriber(tmp_path: Path) -> None:
    assert load_bundle(fixture_bundle(tmp_path / "bundle", tmp_path)).transcriber is None
    given = '[transcriber]\nkind = "ctc"\npath = "../words"\n[decoder]'
    transcriber = load_bundle(edited(tmp_path, "[decoder]", given)).transcriber
    assert transcriber is not None
    assert transcriber.kind == "ctc"
    assert transcriber.path.resolve() == tmp_path / "words"


def test_a_bundle_may_call_functions(tmp_path: Path) -> None:
    assert load_bundle(fixture_bundle(tmp_path / "bundle", tmp_path)).tools is None
    given = '[tools]\ncall_start = 13\ncall_end = 14\nshow = "signatures"\n[decoder]'
    tools = load_bundle(edited(tmp_path, "[decoder]", given)).tools
    assert tools is not None
    assert (tools.call_start, tools.call_end, tools.show) == (13, 14, "signatures")
    assert (tools.role, tools.heading) == ("tool", "tools:")


def test_a_bundle_is_frozen(tmp_path: Path) -> None:
    bundle: Bundle = load_bundle(fixture_bundle(tmp_path / "bundle", tmp_path))
    with pytest.raises(ValidationError, match="frozen"):
        bundle.name = "other"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "fixture"', 'nome = "fixture"', r"(?s)name: Field required.*nome: Extra inputs"),
        ('default = "none"', "default = 3", r"voices\.default"),
        ("[voices]", "[voices", "not valid TOML"),
        ("[decoder]", "[decoder]\ncontext = 0", r"decoder\.context"),
        ("[decoder]", '[transcriber]\nkind = "ears"\n[decoder]', r"transcriber\.kind"),
        ("[decoder]", "[tools]\ncall_start = 9\n[decoder]", r"tools\.call_end"),
        ("[decoder]", "[tools]\ncall_start = 9\ncall_end = 9\n[decoder]", "two different text"),
        ("[vocoder]", "[vocoder]\nfirst_groups = 0", r"vocoder\.first_groups"),
        ("[voices]", "[tokens]\naudio_block = 14\n[voices]", "whole groups"),
        ("[decoder]", "[tokenizer.streaming]\nleft_ms = 30\n[decoder]", "multiple of 40"),
        ("[decoder]", "[tokenizer.streaming]\nexact = true\n[decoder]", "right_ms = 0"),
        (
            "[decoder]",
            "[tokenizer.streaming]\nexact = true\nright_ms = 0\nleft_ms = 240\n[decoder]",
            "normalise = false and stream_peak = 0",
        ),
    ],
)
def test_a_wrong_bundle_names_its_file_and_key(tmp_path: Path, old, new, message) -> None:
    directory = edited(tmp_path, old, new)
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(directory)
    assert str(directory / "aqaa.toml") in str(caught.value)


def test_a_directory_without_a_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no aqaa\.toml in .*empty"):
        load_bundle(tmp_path / "empty")
