"""What `aqaa plan` says of hearing and speaking."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from aqaa.models.bundle import VocoderConfig, load_bundle, nano_path
from aqaa.models.errors import ConfigError
from aqaa.server.cli.plan import plan
from aqaa.server.compute.devices import MIN_FREE_BYTES
from aqaa.server.compute.plan import MEASURED, Costs, decoder_share, find_costs, plan_audio
from aqaa.vocoder.state import Grid, next_end

MIB = 2**20
CARD = Costs(
    device="NVIDIA H100 80GB HBM3",
    date="2026-12-01",
    flow_mib=402.0,
    hearing=0.003,
    speaking=0.005,
    first_chunk=0.008,
)


def said(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(plan)
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    if result.exception:
        raise result.exception
    return result.output


def test_costs_are_those_of_the_device_and_of_networks_of_that_size() -> None:
    nano, published = find_costs("cpu", 12 * MIB), find_costs("cpu", 400 * MIB)
    assert (nano, published) == MEASURED
    assert find_costs("cpu", 60 * MIB) is None
    assert find_costs("H100", 400 * MIB) is None
    assert find_costs("H100", 400 * MIB, [*MEASURED, CARD]) == CARD


def test_a_device_is_busy_for_seven_tenths_of_its_time() -> None:
    planned = plan_audio(CARD, 1, first_ids=15, ids_per_second=100)
    assert planned.sessions == 87
    assert planned.first_sound == pytest.approx(0.24 * 0.003 + 0.15 + 0.008)
    assert plan_audio(replace(CARD, speaking=0.007), 1, 15, 100).sessions == 70
    assert plan_audio(replace(CARD, hearing=0.005, speaking=0.005), 4, 15, 100).sessions == 280


def test_a_decoder_on_the_same_cores_takes_its_share_of_them() -> None:
    nano = MEASURED[0]
    assert plan_audio(nano, 2, first_ids=25, ids_per_second=610, spoken_ids=69.4).sessions == 3
    assert plan_audio(nano, 2, first_ids=25, ids_per_second=610).sessions == 5


@pytest.mark.parametrize(
    ("schedule", "lookahead", "least", "groups"),
    [((1, 1, 2), 8, 1, 1), ((2, 4), 21, 1, 6), ((2, 1), 16, 4, 2), ((2, 1), 16, 5, 3)],
)
def test_the_first_chunk_is_the_first_that_gives_enough_frames(
    schedule: tuple[int, ...], lookahead: int, least: int, groups: int
) -> None:
    config = VocoderConfig(
        path=Path(), chunk_groups=schedule, lookahead_frames=lookahead, min_frames=least
    )
    chunks = 1 if groups == schedule[0] else 2
    assert next_end(config, Grid(22_050, 256, 1.0)) == (groups, chunks)


def test_vllm_leaves_the_audio_models_their_memory() -> None:
    assert decoder_share(80e9, 0.9) == 0.9
    small = 24e9
    assert small * (1 - decoder_share(small, 0.9)) >= MIN_FREE_BYTES


def test_a_machine_without_a_gpu_is_planned_for_nano() -> None:
    out = said(str(nano_path()), "--gpus", "none")
    assert "engine embedded: 610 tokens/s" in out
    assert "sessions are served well" in out
    assert "first sound after the pause" in out


def test_a_card_that_was_not_measured_is_not_guessed() -> None:
    assert "not measured: run tests/gpu/gpu_check.py" in said(str(nano_path()), "--gpus", "1xH100")


def test_a_check_that_was_run_is_read(tmp_path: Path) -> None:
    def rows(**found: float) -> dict[str, dict[str, float]]:
        return {
            f"{model.replace('_', ' ')}, {sessions}": {"ms": 20.0 * sessions, "rtf": rtf / sessions}
            for model, rtf in found.items()
            for sessions in (1, 8)
        }

    found = {
        "hearing_times": rows(linguistic=0.02, semantic=0.04),
        "speaking_times": rows(vocoder_eager=0.01, vocoder_graphed=0.08),
    }
    file = tmp_path / "gpu.json"
    machine = {"card": CARD.device, "date": "2026-12-01"}
    file.write_text(json.dumps({"machine": machine, **found}), encoding="utf-8")
    costs = Costs.of_check(file)
    assert costs.hearing == pytest.approx(0.06 / 8)
    assert (costs.speaking, costs.first_chunk) == (pytest.approx(0.01), 0.02)


@pytest.mark.parametrize("text", ["", "[]", '{"machine": {"card": "x"}}'])
def test_another_file_is_refused_with_what_to_do(tmp_path: Path, text: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"gpu_check\.py saves"):
        Costs.of_check(file)


def test_a_folder_that_is_no_bundle_cannot_be_planned_without_gpus() -> None:
    decoder = load_bundle(nano_path()).decoder.path
    with pytest.raises(ConfigError, match="whole bundle"):
        said(str(decoder), "--gpus", "none")
