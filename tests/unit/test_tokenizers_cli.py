"""`aqaa tokens` and `aqaa inspect` on a bundle of the reference fixtures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from bundles import fixture_bundle
from safetensors.torch import save_file
from tiny_bundle import tiny_bundle
from typer.testing import CliRunner

from aqaa.models.bundle import TurnConfig, load_bundle
from aqaa.models.errors import AudioError
from aqaa.server.cli.inspect import PartReport, examine
from aqaa.server.cli.tokens import tokens
from aqaa.server.hearing.turn_head import WEIGHTS, TurnHead
from aqaa.tokenizers.language_model import LanguageModel
from aqaa.tokenizers.linguistic import LinguisticTokenizer
from aqaa.tokenizers.transcriber_ctc import CtcHead


@pytest.fixture
def bundle(fixtures_dir: Path, tmp_path: Path) -> Path:
    return fixture_bundle(tmp_path / "bundle", fixtures_dir)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "question.wav"
    rng = np.random.default_rng(0)
    soundfile.write(path, rng.uniform(-0.3, 0.3, 24_000), 24_000)
    return path


def run(*arguments: object) -> str:
    app = typer.Typer()
    app.command()(tokens)
    done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_tokens_prints_both_streams_and_whole_groups(bundle: Path, recording: Path) -> None:
    heard = json.loads(run(recording, "--model", bundle, "--json"))
    assert heard["seconds"] == 1.0
    assert len(heard["linguistic"]) == 16
    assert len(heard["semantic"]) == 25
    assert len(heard["ids"]) == 8 * 5
    assert heard["ready_ms"] is None


def test_streamed_tokens_say_when_each_group_was_ready(bundle: Path, recording: Path) -> None:
    heard = json.loads(run(recording, "--model", bundle, "--json", "--stream"))
    assert len(heard["ids"]) == 8 * 5
    assert len(heard["ready_ms"]) == 8
    assert heard["ready_ms"] == sorted(heard["ready_ms"])
    assert all(t >= 120 * (group + 1) for group, t in enumerate(heard["ready_ms"]))
    assert heard["ready_ms"][-1] == 1000


def test_tokens_prints_a_table_for_people(bundle: Path, recording: Path) -> None:
    shown = run(recording, "--model", bundle)
    assert "1.00 s of audio: 16 linguistic and 25 semantic tokens" in shown


def test_tokens_names_a_recording_that_is_not_there(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"lost\.wav"):
        run(tmp_path / "lost.wav", "--model", bundle)


def test_inspection_finds_what_loads_and_names_what_does_not(bundle: Path) -> None:
    parts = {part.name: part for part in examine(load_bundle(bundle))}
    for name in ("linguistic tokenizer", "semantic tokenizer", "decoder", "vocoder"):
        assert parts[name].problem is None, parts[name].problem
        assert parts[name].memory_bytes >= 2 * parts[name].parameters > 0
    assert "tokenizer.model" in (parts["text tokenizer"].problem or "")
    assert "voices" in (parts["voices"].problem or "")


def test_inspection_names_the_transcriber(fixtures_dir: Path, tmp_path: Path) -> None:
    keys = '[transcriber]\nkind = "ctc"\n'
    bundle = load_bundle(fixture_bundle(tmp_path / "bundle", fixtures_dir, tokenizer=keys))
    encoder = LinguisticTokenizer.load(bundle.tokenizer).encoder
    head = CtcHead(encoder.frame_width, 8, 3, blocks=1, rows=2, pieces=3)
    words = tmp_path / "bundle" / "transcriber"
    words.mkdir()
    save_file(head.state_dict(), words / "model.safetensors")
    language = LanguageModel(3, width=4, hidden=4)
    save_file(language.state_dict(), words / "language.safetensors")
    (words / "pieces.json").write_text('["<blank>", "\u2581a", "b"]', encoding="utf-8")

    part = next(part for part in examine(bundle) if part.name == "transcriber")

    assert part.problem is None
    assert "3 pieces" in part.holds
    assert part.parameters == sum(
        p.numel() for network in (head, language) for p in network.parameters()
    )


def test_inspection_counts_the_turn_head_and_says_why_one_does_not_load(tmp_path: Path) -> None:
    levels = {"sure": 0.9, "likely": 0.5, "unlikely": 0.1}
    turn = TurnConfig.model_validate(
        {"path": tmp_path, "low": levels, "medium": levels, "high": levels}
    )
    bundle = load_bundle(fixture_bundle(tmp_path / "bundle", tmp_path))
    bundle = bundle.model_copy(update={"turn": turn})

    def found() -> PartReport:
        return next(part for part in examine(bundle) if part.name == "turn head")

    assert WEIGHTS in (found().problem or "")
    head = TurnHead()
    save_file(head.state_dict(), tmp_path / WEIGHTS)
    assert found().problem is None
    assert found().parameters == sum(p.numel() for p in head.parameters())


def test_inspection_names_a_marker_of_a_voice_that_is_not_there(
    fixtures_dir: Path, tmp_path: Path
) -> None:
    bundle = load_bundle(tiny_bundle(tmp_path, fixtures_dir))
    assert [part.problem for part in examine(bundle)] == [None] * 6
    tokens = bundle.tokens.model_copy(update={"voice_markers": {"amy": 5, "eve": 6}})
    marked = bundle.model_copy(update={"tokens": tokens})
    problem = next(part.problem for part in examine(marked) if part.name == "voices")
    assert problem == "tokens.voice_markers names eve, but the voices are: amy, joe"


def test_inspection_sees_a_decoder_cut_short(fixtures_dir: Path, tmp_path: Path) -> None:
    bundle = load_bundle(fixture_bundle(tmp_path / "bundle", fixtures_dir))
    copy = tmp_path / "step1"
    copy.mkdir()
    for name in ("config.json", "model.safetensors"):
        (copy / name).write_bytes((bundle.decoder.path / name).read_bytes())
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    decoder = bundle.decoder.model_copy(update={"path": copy})
    cut = bundle.model_copy(update={"decoder": decoder})
    problem = next(part.problem for part in examine(cut) if part.name == "decoder")
    assert problem is not None
    assert "model.safetensors" in problem
