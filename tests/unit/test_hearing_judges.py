"""The judges of turns: a bundle's own head, and Smart Turn where its wheel is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import fixture_bundle
from safetensors.torch import save_file

from aqaa.models.bundle import (
    TOKENIZER_RATE,
    TurnConfig,
    TurnThresholds,
    load_bundle,
    nano_path,
)
from aqaa.models.errors import BundleError
from aqaa.models.groups import AUDIO_CODES, GROUP_TOKENS
from aqaa.server.audio.files import read_audio
from aqaa.server.compute.model import compute_alone
from aqaa.server.hearing import choose_judge as choosing
from aqaa.server.hearing.choose_judge import choose_judge
from aqaa.server.hearing.smart_turn import WINDOW_SAMPLES, SmartTurn, features_of
from aqaa.server.hearing.turn_head import WEIGHTS, HeadJudge, TurnHead
from aqaa.tokenizers.dual import DualTokenizer

OFFSET = 2000
THRESHOLDS = TurnThresholds(sure=0.9, likely=0.5, unlikely=0.1)
CONFIG = TurnConfig(low=THRESHOLDS, medium=THRESHOLDS, high=THRESHOLDS)
SOUND = np.zeros(0, np.float32)
EXAMPLES = nano_path() / "examples"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def head() -> TurnHead:
    torch.manual_seed(0)
    return TurnHead().eval()


def ids(groups: int) -> list[int]:
    drawn = np.random.default_rng(groups).integers(0, AUDIO_CODES, groups * GROUP_TOKENS)
    return [OFFSET + int(token) for token in drawn]


def with_turn(tmp_path: Path) -> Path:
    directory = fixture_bundle(tmp_path / "bundle", tmp_path)
    levels = "".join(
        f"[turn.{name}]\nsure = 0.9\nlikely = 0.5\nunlikely = 0.1\n"
        for name in ("low", "medium", "high")
    )
    file = directory / "aqaa.toml"
    file.write_text(file.read_text() + "\n" + levels)
    (directory / "turn").mkdir()
    save_file(
        {name: w.half() for name, w in head().state_dict().items()}, directory / "turn" / WEIGHTS
    )
    return directory


def test_a_turn_that_comes_in_pieces_is_judged_as_the_whole() -> None:
    judge, turn = HeadJudge(head(), CONFIG, OFFSET), ids(9)
    whole = judge.listen()
    whole.hear(SOUND, turn)
    expected = compute_alone(whole.chance_of_end(()))
    listener = judge.listen()
    for begin in range(0, 30, 15):
        listener.hear(SOUND, turn[begin : begin + 15])
        compute_alone(listener.chance_of_end(ids(2)))  # a pause that was not the end leaves nothing
    assert compute_alone(listener.chance_of_end(turn[30:])) == pytest.approx(expected, abs=1e-6)


def test_turns_that_are_judged_together_get_what_they_get_alone() -> None:
    network = head()
    judge = HeadJudge(network, CONFIG, OFFSET)
    with torch.inference_mode():
        for groups in (3, 7):
            tokens = torch.tensor(ids(groups)).view(1, -1, GROUP_TOKENS) - OFFSET
            alone = float(network(tokens)[0][0, -1].sigmoid())
            listener = judge.listen()
            assert compute_alone(listener.chance_of_end(ids(groups))) == pytest.approx(alone)


def test_a_turn_without_a_group_is_not_over() -> None:
    listener = HeadJudge(head(), CONFIG, OFFSET).listen()
    assert compute_alone(listener.chance_of_end(())) == 0.0


def test_a_bundle_with_a_turn_head_is_judged_by_it(tmp_path: Path) -> None:
    judge, why = choose_judge(load_bundle(with_turn(tmp_path)))
    assert judge is not None
    assert (judge.name, why) == ("the bundle's turn head", "the bundle has [turn]")
    assert judge.thresholds("auto") == judge.thresholds("medium") == THRESHOLDS


def test_nanos_own_head_tells_a_whole_question_from_its_beginning() -> None:
    bundle = load_bundle(nano_path())
    judge, _ = choose_judge(bundle)
    assert isinstance(judge, HeadJudge)
    hear = DualTokenizer.load(bundle).encode
    questions = [read_audio(file, TOKENIZER_RATE) for file in EXAMPLES.glob("*.flac")]

    def chance(sound: np.ndarray) -> float:
        return compute_alone(judge.listen().chance_of_end(hear(sound)))

    whole = [chance(question) for question in questions]
    halves = [chance(question[: question.size // 2]) for question in questions]
    unlikely = judge.thresholds("medium").likely
    assert len(questions) == 6
    assert sum(one > unlikely for one in whole) >= 5
    assert all(half < one for half, one in zip(halves, whole, strict=True))


@pytest.mark.parametrize("damage", ["missing", "cut", "shape"])
def test_a_turn_head_that_cannot_be_loaded_is_named(tmp_path: Path, damage: str) -> None:
    bundle = load_bundle(with_turn(tmp_path))
    file = tmp_path / "bundle" / "turn" / WEIGHTS
    match damage:
        case "missing":
            file.unlink()
        case "cut":
            file.write_bytes(file.read_bytes()[:100])
        case _:
            save_file({"end.weight": torch.zeros(2, 2)}, file)
    with pytest.raises(BundleError, match=WEIGHTS):
        choose_judge(bundle)


def test_without_both_silence_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing.SmartTurn, "find", classmethod(lambda cls: None))
    judge, why = choose_judge(load_bundle(fixture_bundle(tmp_path / "bundle", tmp_path)))
    assert judge is None
    assert "not installed" in why


def test_thresholds_fall() -> None:
    with pytest.raises(ValueError, match="sure >= likely"):
        TurnThresholds(sure=0.5, likely=0.6, unlikely=0.1)
    with pytest.raises(ValueError, match="sure_ms <= likely_ms"):
        TurnThresholds(sure=0.9, likely=0.6, unlikely=0.1, sure_ms=300, likely_ms=200)


# --- Smart Turn: with its wheel, which comes with the clients of other makers ---------------------


@pytest.mark.agents
@pytest.mark.parametrize("seconds", [0.5, 3.0, 8.0])
def test_smart_turn_hears_the_features_that_it_was_trained_with(seconds: float) -> None:
    from pipecat.audio.turn.smart_turn._whisper_features import compute_whisper_log_mel_features

    rng = np.random.default_rng(0)
    sound = (0.1 * rng.standard_normal(round(seconds * 16_000))).astype(np.float32)
    padded = np.pad(sound, (WINDOW_SAMPLES - sound.size, 0))
    expected = compute_whisper_log_mel_features(padded)
    assert features_of(sound).shape == expected.shape
    assert np.abs(features_of(sound) - expected).max() < 1e-3


@pytest.mark.agents
def test_smart_turn_judges_the_last_eight_seconds_of_a_turn(tmp_path: Path) -> None:
    judge, why = choose_judge(load_bundle(fixture_bundle(tmp_path / "bundle", tmp_path)))
    assert isinstance(judge, SmartTurn)
    assert "pipecat-ai is installed" in why
    rng = np.random.default_rng(1)
    sound = (0.1 * rng.standard_normal(12 * 16_000)).astype(np.float32)
    long, recent = judge.listen(), judge.listen()
    for begin in range(0, sound.size, 8_000):
        long.hear(sound[begin : begin + 8_000], ())
    recent.hear(sound[-WINDOW_SAMPLES:], ())
    chance = compute_alone(long.chance_of_end(()))
    assert 0.0 <= chance <= 1.0
    assert chance == pytest.approx(compute_alone(recent.chance_of_end(())), abs=1e-6)
