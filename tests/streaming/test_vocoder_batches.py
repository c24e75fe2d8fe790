"""Chunks of several answers in one call of each network: every answer sounds as it does alone."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_vocoder import checkpoint, tokens, write_voices

from aqaa.models.bundle import VocoderConfig, VoicesConfig, load_bundle, nano_path
from aqaa.vocoder.noise import KeyedNoise
from aqaa.vocoder.padding import stack_padded
from aqaa.vocoder.state import due, feed
from aqaa.vocoder.stream import ChunkSynthesiser, Sound, _piece
from aqaa.vocoder.vocoder import Vocoder, VocoderStream
from aqaa.vocoder.voices import save_voice

ROUNDING = 1e-4  # of float32 sums in another order, on a chunk's wave in [-1, 1]
# The same on a whole answer's: its source adds up its phase, and a frame at the threshold of voiced
# speech may fall to either side of it (40 ms of one answer in sixty, at a 170th of their level).
ROUNDING_DB = -50.0
DOUBLE_ROUNDING = 1e-9  # of float64: no padding has any part in the sound
MEL_ROUNDING = 1e-5  # the same on a mel, relative to its largest value
ANYTHING_TOGETHER = 10**6  # frames in a bucket: whatever is asked for is one call
HALF_PRECISION_MEL = 1e-2  # nepers


@pytest.fixture(scope="module")
def published(fixtures_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Vocoder:
    """The fixtures' checkpoint, with voices whose prompts have several lengths."""
    folder = tmp_path_factory.mktemp("voices")
    config = VocoderConfig(
        path=checkpoint(fixtures_dir), steps=3, chunk_groups=(1, 1, 2, 3), context_groups=2
    )
    voices = write_voices(folder, fixtures_dir, "long")
    long = Vocoder.load(config, voices).voices["long"]
    for name, groups, frames in (("short", 1, 10), ("middle", 3, 37)):
        prompt = replace(long, name=name, tokens=long.tokens[: 5 * groups], mel=long.mel[:frames])
        save_voice(prompt, folder)
    return together(Vocoder.load(config, VoicesConfig(path=folder, default="long")))


@pytest.fixture(scope="module")
def nano() -> Vocoder:
    bundle = load_bundle(nano_path())
    return together(Vocoder.load(bundle.vocoder, bundle.voices))


def together(vocoder: Vocoder) -> Vocoder:
    """The same vocoder, which computes whatever it is asked for in one call."""
    alone = vocoder.synthesiser
    one_call = ChunkSynthesiser(
        alone.flow, alone.hift, alone.config, bucket_frames=ANYTHING_TOGETHER
    )
    return Vocoder(one_call, vocoder.mel, vocoder.voices)


@pytest.fixture(params=["published", "nano"])
def vocoder(request: pytest.FixtureRequest) -> Vocoder:
    made: Vocoder = request.getfixturevalue(request.param)
    return made


def alone(stream: VocoderStream, said: Sequence[int]) -> Sound:
    return np.concatenate([stream.push(said), stream.flush()])


@pytest.mark.parametrize("apart", [0, 1], ids=["all begin at once", "one after the other"])
def test_any_mixture_sounds_as_each_alone(vocoder: Vocoder, apart: int) -> None:
    """Voices, speeds, lengths and places in the schedule all differ."""
    voices = list(vocoder.voices)
    cases = [
        (voices[i % len(voices)], speed, tokens(groups, seed=i))
        for i, (groups, speed) in enumerate([(7, 1.0), (9, 1.0), (4, 0.7), (8, 1.6), (1, 1.0)])
    ]
    expected = [alone(vocoder.stream(voice, speed), said) for voice, speed, said in cases]
    streams = [vocoder.stream(voice, speed) for voice, speed, _ in cases]
    for stream, (_, _, said) in zip(streams, cases, strict=True):
        stream.feed(said)
    sounds: list[list[Sound]] = [[] for _ in cases]
    shapes = []
    for turn in range(20):
        begun = [i for i in range(len(streams)) if i * apart <= turn]
        due = {i: chunk for i in begun if (chunk := streams[i].due(final=True))}
        shapes.append({chunk.frames for chunk in due.values()})
        for i, made in zip(due, vocoder.synthesise(list(due.values())), strict=True):
            sounds[i].append(streams[i].take(made))
    assert max(map(len, shapes)) > 1, "nothing was padded"
    for pieces, whole in zip(sounds, expected, strict=True):
        sound = np.concatenate(pieces)
        assert sound.size == whole.size
        error = np.sqrt(np.square(sound - whole).mean() / np.square(whole).mean())
        assert 20 * np.log10(error) < ROUNDING_DB


def test_in_double_precision_padding_has_no_part_in_the_sound(vocoder: Vocoder) -> None:
    given = vocoder.synthesiser
    networks = ChunkSynthesiser(
        copy.deepcopy(given.flow).double(),
        copy.deepcopy(given.hift).double(),
        given.config,
        bucket_frames=ANYTHING_TOGETHER,
    )
    chunks = []
    for i, voice in enumerate([*vocoder.voices] * 2):
        prompt = networks.prompt(vocoder.voices[voice])
        state = feed(networks.start(prompt, KeyedNoise(), 1 + 0.2 * i), tokens(14, seed=i))
        for _ in range(i % 3):
            chunk = due(state, given.config) or due(state, given.config, final=True)
            assert chunk is not None
            ((state, _),) = networks.synthesise([chunk])
        last = due(state, given.config) or due(state, given.config, final=True)
        assert last is not None
        chunks.append(last)
    assert len({chunk.frames for chunk in chunks}) > 2
    for chunk, (_, sound) in zip(chunks, networks.synthesise(chunks), strict=True):
        ((_, alone),) = networks.synthesise([chunk])
        assert alone.dtype == np.float64
        assert np.abs(sound - alone).max() < DOUBLE_ROUNDING


def test_the_mels_of_a_batch_are_those_of_each_alone(vocoder: Vocoder) -> None:
    chunks = []
    for i, voice in enumerate(vocoder.voices):
        stream = vocoder.stream(voice)
        stream.push(tokens(2 * i))
        stream.feed(tokens(6, seed=i))
        chunk = stream.due()
        assert chunk is not None
        chunks.append(chunk)
    assert len({chunk.frames for chunk in chunks}) > 1
    for chunk, (state, _) in zip(chunks, vocoder.synthesise(chunks), strict=True):
        ((one, _),) = vocoder.synthesise([chunk])
        ours, theirs = (torch.cat([s.mel, s.ahead], dim=1) for s in (state, one))
        assert float((ours - theirs).abs().max() / theirs.abs().max()) < MEL_ROUNDING


def test_everything_is_computed_where_the_networks_are(published: Vocoder) -> None:
    """PyTorch's `meta` device computes nothing, but refuses tensors of any other device."""
    networks = published.synthesiser
    elsewhere = ChunkSynthesiser(
        copy.deepcopy(networks.flow).to("meta"),
        copy.deepcopy(networks.hift).to("meta"),
        networks.config,
        bucket_frames=ANYTHING_TOGETHER,
    )
    chunks = []
    for voice, groups in (("long", 1), ("short", 3)):
        prompt = elsewhere.prompt(published.voices[voice])
        chunk = due(
            feed(elsewhere.start(prompt, KeyedNoise(), 1.0), tokens(groups)), networks.config
        )
        assert chunk is not None
        chunks.append(chunk)
    with torch.inference_mode():
        mels = elsewhere._mels(chunks)
        pieces = [_piece(chunk, mel) for chunk, mel in zip(chunks, mels, strict=True)]
        voiced = elsewhere._voiced(pieces)
        source = stack_padded([piece.source for piece in voiced], left=True)[:, None]
        wave = elsewhere.hift.decode(elsewhere._padded_mel(voiced), source)
    assert wave.device.type == "meta"
    assert wave.shape == (2, source.shape[2])


def test_batches_of_fixed_shapes_sound_as_each_alone(
    vocoder: Vocoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU's recorded graphs are given: few shapes, rows and frames filled up."""
    networks = vocoder.synthesiser
    fixed = ChunkSynthesiser(networks.flow, networks.hift, networks.config, fixed_shapes=True)
    shapes: set[torch.Size] = set()
    flow = fixed._run_flow

    def noted(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        assert all(tensor is not None for tensor in inputs)
        shapes.add(inputs[2].shape)
        return flow(*inputs)

    monkeypatch.setattr(fixed, "_run_flow", noted)
    for count in (1, 3):
        chunks = []
        for i, voice in enumerate([*vocoder.voices][:count]):
            stream = vocoder.stream(voice)
            stream.push(tokens(2 * i))
            stream.feed(tokens(6, seed=i))
            chunk = stream.due()
            assert chunk is not None
            chunks.append(chunk)
        for chunk, (_, sound) in zip(chunks, fixed.synthesise(chunks), strict=True):
            ((_, one),) = vocoder.synthesise([chunk])
            assert np.abs(sound - one).max() < ROUNDING
    assert all(rows in (1, 2, 4) and frames % 32 == 0 for rows, _, frames in shapes)


def test_whatever_is_said_after_warming_has_a_shape_that_warming_had(
    vocoder: Vocoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At speed 1: on a GPU every such shape has its graph, and no other is ever recorded."""
    networks = vocoder.synthesiser
    fixed = ChunkSynthesiser(networks.flow, networks.hift, networks.config, fixed_shapes=True)
    gpu = Vocoder(fixed, vocoder.mel, vocoder.voices)
    shapes: set[tuple[object, ...]] = set()
    for name in ("_run_flow", "_run_f0", "_run_decode"):
        run = getattr(fixed, name)

        def noted(
            *inputs: torch.Tensor,
            run: Callable[..., tuple[torch.Tensor, ...]] = run,
            name: str = name,
        ) -> tuple[torch.Tensor, ...]:
            shapes.add((name, *[tuple(tensor.shape) for tensor in inputs]))
            return run(*inputs)

        monkeypatch.setattr(fixed, name, noted)
        monkeypatch.setattr(noted, "seal", lambda: None, raising=False)
    monkeypatch.setattr("aqaa.vocoder.stream.GPU_BATCH", 4)
    gpu.warm("any", 12)
    warmed = {*shapes}
    rng = np.random.default_rng(5)
    streams = [gpu.stream(name) for name in vocoder.voices for _ in range(2)]
    while streams:
        chosen = [s for s in streams if rng.random() < 0.6][:4]
        for stream in chosen:
            stream.feed(tokens(int(rng.integers(1, 4)), seed=int(rng.integers(99))))
        ends = {id(stream) for stream in chosen if rng.random() < 0.15}
        due = [(stream, stream.due(final=id(stream) in ends)) for stream in chosen]
        asked = [(stream, chunk) for stream, chunk in due if chunk is not None]
        sounds = fixed.synthesise([chunk for _, chunk in asked]) if asked else []
        for (stream, _), sound in zip(asked, sounds, strict=True):
            stream.take(sound)
        streams = [stream for stream in streams if stream._open]
    assert shapes == warmed


def test_one_call_of_each_network_makes_the_whole_batch(
    published: Vocoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = []
    for voice, groups in (("long", 1), ("short", 1), ("middle", 4)):
        stream = published.stream(voice)
        stream.push(tokens(groups))
        stream.feed(tokens(4, seed=1))
        chunk = stream.due()
        assert chunk is not None
        chunks.append(chunk)
    sizes: list[int] = []
    for name in ("_run_flow", "_run_f0", "_run_decode"):
        run = getattr(published.synthesiser, name)

        def counted(
            *inputs: torch.Tensor, run: Callable[..., tuple[torch.Tensor, ...]] = run
        ) -> tuple[torch.Tensor, ...]:
            sizes.append(len(inputs[0]))
            return run(*inputs)

        monkeypatch.setattr(published.synthesiser, name, counted)
    assert len({chunk.frames for chunk in chunks}) == 3
    published.synthesise(chunks)
    assert sizes == [3, 3, 3]


def test_chunks_of_another_shape_are_another_call(published: Vocoder) -> None:
    networks = published.synthesiser
    fine = ChunkSynthesiser(networks.flow, networks.hift, networks.config, bucket_frames=1)
    streams = [published.stream(voice) for voice in ("long", "short")]
    chunks = []
    for stream in streams:
        stream.feed(tokens(1))
        chunk = stream.due()
        assert chunk is not None
        chunks.append(chunk)
    assert fine.shape_of(chunks[0]) != fine.shape_of(chunks[1])
    assert published.shape_of(chunks[0]) == published.shape_of(chunks[1])
    for (_, ours), (_, theirs) in zip(
        fine.synthesise(chunks), published.synthesise(chunks), strict=True
    ):
        assert np.abs(ours - theirs).max() < ROUNDING


def test_a_batch_leaves_the_states_that_it_was_given(published: Vocoder) -> None:
    stream = published.stream("long")
    stream.push(tokens(3))
    stream.feed(tokens(2, seed=1))
    chunk = stream.due()
    assert chunk is not None
    (_, once), (_, again) = published.synthesise([chunk, chunk])
    (_, later) = published.synthesise([chunk])[0]
    assert np.array_equal(once, again)
    assert np.abs(once - later).max() < ROUNDING


def test_groups_that_come_while_a_chunk_is_computed_wait_for_the_next(published: Vocoder) -> None:
    said = tokens(6)
    stream = published.stream("long")
    stream.feed(said[:5])
    chunk = stream.due()
    assert chunk is not None
    stream.feed(said[5:])
    sound = [stream.take(published.synthesise([chunk])[0]), stream.push([]), stream.flush()]
    whole = alone(published.stream("long"), said)
    assert np.abs(np.concatenate(sound) - whole).max() < ROUNDING


def test_a_flow_in_half_precision_speaks_the_same_mel_to_a_hundredth() -> None:
    """On the trained weights of nano. (bfloat16, with 8 bits, is out by 0.07.)"""
    bundle = load_bundle(nano_path())
    said = json.loads((nano_path() / "examples" / "answers.json").read_text())[0]["tokens"]
    mels = []
    for dtype in (torch.float32, torch.float16):
        vocoder = Vocoder.load(bundle.vocoder, bundle.voices, dtype=dtype)
        stream = vocoder.stream(bundle.voices.default)
        stream.feed(said)
        chunk = stream.due()
        assert chunk is not None
        ((state, _),) = vocoder.synthesise([chunk])
        assert state.mel.dtype == torch.float32  # what HiFT is given
        mels.append(torch.cat([state.mel, state.ahead], dim=1))
    apart = float((mels[0] - mels[1]).abs().max())
    assert 0 < apart < HALF_PRECISION_MEL
