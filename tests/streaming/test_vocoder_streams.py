"""A stream of speech: exact lengths, any portions, bad input, bounded state."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_vocoder import tiny_vocoder, tokens

from aqaa.models.bundle import VocoderConfig, load_bundle, nano_path
from aqaa.models.errors import InputError, StreamClosedError, TokenError
from aqaa.models.groups import GROUP_SECONDS, GROUP_TOKENS
from aqaa.vocoder.noise import KeyedNoise
from aqaa.vocoder.state import Chunk, Grid, StreamState, due, feed, next_end
from aqaa.vocoder.stream import ChunkSynthesiser
from aqaa.vocoder.vocoder import Vocoder

ROUNDING = 1e-4  # of float32 sums in another order, on a wave in [-1, 1]
GROUP_SAMPLES = 2646  # 0.12 s at 22 050 Hz


def schedule(*chunk_groups: int) -> VocoderConfig:
    return VocoderConfig(path=Path(), steps=2, chunk_groups=chunk_groups, context_groups=1)


@pytest.fixture(scope="module")
def vocoder() -> Vocoder:
    return tiny_vocoder(schedule(1, 2), "ada", "zoe")


def portions(ids: list[int], sizes: list[int]) -> list[list[int]]:
    """`ids` in portions of `sizes` groups, the rest last."""
    cuts = np.cumsum([0, *sizes]) * GROUP_TOKENS
    parts = [ids[a:b] for a, b in zip(cuts, [*cuts[1:], len(ids)], strict=True)]
    return [part for part in parts if part]


def say(vocoder: Vocoder, parts: list[list[int]], speed: float = 1.0) -> NDArray[np.float32]:
    stream = vocoder.stream("ada", speed)
    return np.concatenate([*(stream.push(part) for part in parts), stream.flush()])


@settings(max_examples=10)
@given(sizes=st.lists(st.integers(0, 4), max_size=6))
def test_the_sound_does_not_depend_on_the_portions(vocoder: Vocoder, sizes: list[int]) -> None:
    ids = tokens(9)
    assert np.array_equal(say(vocoder, portions(ids, sizes)), say(vocoder, [ids]))


def test_chunks_that_are_computed_elsewhere_give_the_same_sound(vocoder: Vocoder) -> None:
    ids = tokens(9)
    stream = vocoder.stream("ada")
    sounds, lengths = [], []
    for group in portions(ids, [1] * 9):
        stream.feed(group)
        while chunk := stream.due():
            lengths.append(chunk.end - chunk.state.next_group)
            sounds.append(stream.take(vocoder.synthesise([chunk])[0]))
    while chunk := stream.due(final=True):
        sounds.append(stream.take(vocoder.synthesise([chunk])[0]))
    assert lengths == [1, 2, 2, 2, 2]
    assert np.array_equal(np.concatenate(sounds), say(vocoder, [ids]))
    with pytest.raises(StreamClosedError):
        stream.feed(ids)


def test_a_stream_begins_without_computing_anything(
    vocoder: Vocoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChunkSynthesiser, "start", None)  # it would be called on the event loop
    stream = vocoder.stream("zoe", 1.3)
    assert stream.push(tokens(4)).size


@pytest.mark.parametrize("speed", [0.5, 0.77, 1.0, 1.3, 2.0])
@pytest.mark.parametrize("groups", [1, 2, 3, 7])
def test_samples_out_are_what_the_tokens_stand_for(
    vocoder: Vocoder, groups: int, speed: float
) -> None:
    sound = say(vocoder, portions(tokens(groups), [1] * groups), speed)
    assert len(sound) == round(groups * GROUP_SECONDS * vocoder.rate / speed)
    assert len(sound) == vocoder.samples(groups, speed)


def test_a_group_is_exactly_120_ms(vocoder: Vocoder) -> None:
    assert [vocoder.samples(n) for n in (0, 1, 5000)] == [0, GROUP_SAMPLES, 5000 * GROUP_SAMPLES]


def test_one_group_is_enough_for_the_first_sound(vocoder: Vocoder) -> None:
    assert len(vocoder.stream("ada").push(tokens(1))) > 0


@pytest.mark.parametrize("speed", [0.5, 1.0, 2.0])
def test_no_chunk_is_computed_that_gives_no_sound(speed: float) -> None:
    """One that would hold back all of its frames as look-ahead waits for the next group."""
    config = schedule(1, 2, 1).model_copy(update={"lookahead_frames": 20})
    patient = tiny_vocoder(config, "ada")
    stream = patient.stream("ada", speed)
    lengths = []
    for group in portions(tokens(12), [1] * 12):
        stream.feed(group)
        while chunk := stream.due():
            lengths.append(len(stream.take(patient.synthesise([chunk])[0])))
    assert min(lengths) > 0
    rest = stream.flush()
    assert sum(lengths) + len(rest) == patient.samples(12, speed)


def test_of_what_is_held_back_only_what_can_be_heard_becomes_sound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = schedule(4, 3).model_copy(update={"lookahead_frames": 30})
    economical = tiny_vocoder(config, "ada")
    synthesiser = economical.synthesiser
    frames: list[int] = []
    decode = synthesiser._run_decode

    def counting(mel: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        frames.append(mel.shape[2])
        return decode(mel, source)

    monkeypatch.setattr(synthesiser, "_run_decode", counting)
    parts = portions(tokens(12), [1] * 12)
    sound, spared = say(economical, parts), list(frames)
    frames.clear()
    monkeypatch.setattr(ChunkSynthesiser, "_heard", lambda self, piece: piece)
    np.testing.assert_allclose(sound, say(economical, parts), atol=ROUNDING)
    beyond = 30 - 1 - synthesiser.context  # a frame to fade in, and what HiFT sees
    assert beyond > 0
    assert [all_of - some for all_of, some in zip(frames, spared, strict=True)] == (
        [beyond] * len(frames)
    )


def test_nanos_first_chunk_is_enough_to_start_an_answer_with() -> None:
    bundle = load_bundle(nano_path())
    grid = Grid(22_050, 256, 1.0)
    first, _ = next_end(bundle.vocoder, grid)
    assert first == bundle.vocoder.chunk_groups[0]
    frames = grid.frames(first) - bundle.vocoder.lookahead_frames
    assert frames * grid.hop / grid.rate >= 0.12


def test_nanos_first_chunk_needs_one_block_of_the_answer() -> None:
    """A fourth group would come behind the next block's text: fifteen ids later."""
    bundle = load_bundle(nano_path())
    groups, _ = next_end(bundle.vocoder, Grid(22_050, 256, 1.0))
    assert groups * GROUP_TOKENS <= bundle.tokens.audio_block


def test_a_stream_that_is_over_before_its_first_chunk_is_the_whole() -> None:
    patient = tiny_vocoder(schedule(50), "ada")
    assert np.array_equal(say(patient, [tokens(6)]), patient.whole(tokens(6), "ada"))


def test_the_sound_is_finite_and_within_full_scale(vocoder: Vocoder) -> None:
    sound = say(vocoder, [tokens(6)])
    assert sound.dtype == np.float32
    assert np.isfinite(sound).all()
    assert np.abs(sound).max() <= 1


def test_an_answer_begins_and_ends_at_silence(vocoder: Vocoder) -> None:
    sound = say(vocoder, [tokens(4)])
    step = float(np.percentile(np.abs(np.diff(sound)), 50))
    assert abs(sound[0]) < step
    assert abs(sound[-1]) < step


def test_no_tokens_are_no_sound(vocoder: Vocoder) -> None:
    stream = vocoder.stream("ada")
    assert len(stream.push([])) == 0
    assert len(stream.flush()) == 0
    assert len(vocoder.whole([], "ada")) == 0


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ([5120, 1, 1024, 1024, 1024], "5120 at index 0.*no codebook"),
        ([1, 1, 1024, -1, 1024], "-1 at index 3.*no codebook"),
        ([1, 1, 1024, 1024, 66_000], "66000 at index 4.*audio offset"),
        ([1024, 1, 1, 1024, 1024], "1024 at index 0.*out of phase"),
        ([1, 1, 1024, 1024, 1024, 1, 1, 1, 1024, 1024], "1 at index 7.*out of phase"),
        ([1, 1, 1024, 1024], "4 audio tokens are not whole groups"),
    ],
)
def test_bad_tokens_are_named_and_leave_the_stream_as_it_was(
    vocoder: Vocoder, bad: list[int], complaint: str
) -> None:
    stream = vocoder.stream("ada")
    before = stream.push(tokens(3))
    with pytest.raises(TokenError, match=complaint):
        stream.push(bad)
    after = [stream.push(tokens(2, seed=1)), stream.flush()]
    untroubled = say(vocoder, [tokens(3), tokens(2, seed=1)])
    assert np.array_equal(np.concatenate([before, *after]), untroubled)


def test_a_flushed_stream_says_that_it_is_over(vocoder: Vocoder) -> None:
    stream = vocoder.stream("ada")
    stream.flush()
    with pytest.raises(StreamClosedError):
        stream.push(tokens(1))
    with pytest.raises(StreamClosedError):
        stream.flush()


@pytest.mark.parametrize("speed", [0.0, 0.49, 2.01, float("nan")])
def test_speed_outside_half_to_double_is_refused(vocoder: Vocoder, speed: float) -> None:
    with pytest.raises(InputError, match=r"0\.5 to 2"):
        vocoder.stream("ada", speed)


def state_bytes(state: StreamState) -> int:
    values = [getattr(state, field.name) for field in fields(state) if field.name != "prompt"]
    return sum(value.nbytes for value in values if isinstance(value, torch.Tensor | np.ndarray))


class Mute(ChunkSynthesiser):
    """Networks that are left out: they keep nothing, and an hour passes in seconds."""

    def _mels(self, chunks: Sequence[Chunk]) -> list[torch.Tensor]:
        return [torch.zeros(80, chunk.last - chunk.first) for chunk in chunks]

    def _sounds(self, pieces: Sequence[Any]) -> list[torch.Tensor]:
        return [torch.zeros(piece.new * self.hop) for piece in pieces]


def test_memory_does_not_grow_over_an_hour_of_speech(vocoder: Vocoder) -> None:
    config = schedule(1, 10)
    synthesiser = Mute(vocoder.synthesiser.flow, vocoder.synthesiser.hift, config)
    state = synthesiser.start(synthesiser.prompt(vocoder.voices["ada"]), KeyedNoise(), 1.0)
    sizes = []
    while state.frames * synthesiser.hop < 3600 * vocoder.rate:
        state = feed(state, tokens(10))
        while chunk := due(state, config):
            ((state, _),) = synthesiser.synthesise([chunk])
        kept = [value for value in vars(state).values() if isinstance(value, torch.Tensor)]
        assert all(t.untyped_storage().nbytes() == t.nbytes for t in kept), "a view keeps more"
        sizes.append(state_bytes(state))
    assert max(sizes[10:]) <= max(sizes[:10])
    assert max(sizes) < 1_000_000


def test_a_ten_minute_answer_in_one_push() -> None:
    groups = 5000
    sound = say(tiny_vocoder(schedule(1, 40), "ada"), [tokens(groups)])
    assert len(sound) == groups * GROUP_SAMPLES
    assert np.isfinite(sound).all()


def test_sessions_that_are_batched_sound_as_if_alone(vocoder: Vocoder) -> None:
    answers = [tokens(4, seed=seed) for seed in range(6)]
    alone = [say(vocoder, [answer]) for answer in answers]
    with ThreadPoolExecutor(len(answers)) as pool:
        together = list(pool.map(lambda answer: say(vocoder, [answer]), answers))
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one - other).max() < ROUNDING


def test_streams_of_one_vocoder_do_not_disturb_each_other(vocoder: Vocoder) -> None:
    mine, other = vocoder.stream("ada"), vocoder.stream("zoe", 1.5)
    parts = portions(tokens(5), [1] * 5)
    sounds = []
    for part in parts:
        sounds.append(mine.push(part))
        other.push(tokens(1, seed=9))
    assert np.array_equal(np.concatenate([*sounds, mine.flush()]), say(vocoder, parts))
