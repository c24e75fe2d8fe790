"""Streams of several sessions in one call of each network: every one hears what it hears alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from bundles import fixture_bundle

from aqaa.models.bundle import load_bundle, nano_path
from aqaa.models.errors import StreamClosedError
from aqaa.tokenizers.dual import DualStream, DualTokenizer, Reply, Request
from aqaa.tokenizers.funasr_encoder import CHUNK_FRAMES, EncoderChunk, EncoderState
from aqaa.tokenizers.semantic_network import MelWindow
from aqaa.tokenizers.steps import run_together

PUSH = 1600  # samples, 100 ms
FEATURE_ROUNDING = (
    2e-5  # float32 sums in another order: up to 1.05e-5 was seen, on AVX-512 without bfloat16
)


@pytest.fixture(scope="module", params=["published", "nano"])
def dual(
    request: pytest.FixtureRequest, fixtures_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> DualTokenizer:
    if request.param == "nano":
        return DualTokenizer.load(load_bundle(nano_path()))
    bundle = fixture_bundle(tmp_path_factory.mktemp("bundle"), fixtures_dir)
    return DualTokenizer.load(load_bundle(bundle))


@pytest.fixture(scope="module")
def recordings(fixtures_dir: Path) -> list[np.ndarray]:
    files = sorted((fixtures_dir / "wavs").glob("*.wav"))
    return [soundfile.read(file, dtype="float32")[0][: 4 * 16_000] for file in files]


class Counted:
    """A tokenizer's networks, and how many requests each of their calls had."""

    def __init__(self, dual: DualTokenizer) -> None:
        self.dual = dual
        self.chunks: list[int] = []
        self.windows: list[int] = []

    def __call__(self, requests: Sequence[Request]) -> list[Reply]:
        count = sum(isinstance(request, EncoderChunk) for request in requests)
        self.chunks.append(count)
        self.windows.append(len(requests) - count)
        return self.dual.run(requests)


def alone(dual: DualTokenizer, wav: np.ndarray) -> list[int]:
    stream = dual.stream()
    return stream.push(wav) + stream.flush()


def test_any_mixture_of_streams_gives_each_its_own_ids(dual, recordings) -> None:
    """Streams begin and end at different times, so their rows differ in history and in length."""
    network = Counted(dual)
    expected = [alone(dual, wav) for wav in recordings]
    streams: list[DualStream] = []
    heard: list[list[int]] = [[] for _ in recordings]
    for turn in range(2 * len(recordings) + max(map(len, recordings)) // PUSH + 2):
        if turn % 2 == 0 and len(streams) < len(recordings):
            streams.append(dual.stream())
        jobs, speaking = [], []
        for i, stream in enumerate(streams):
            begin = (turn - 2 * i) * PUSH
            if begin >= recordings[i].size + PUSH:
                continue
            piece = recordings[i][begin : begin + PUSH]
            jobs.append(stream.pushing(piece) if piece.size else stream.flushing())
            speaking.append(i)
        for i, ids in zip(speaking, run_together(jobs, network), strict=True):
            heard[i] += ids
    assert heard == expected
    assert max(network.chunks) > 2
    assert max(network.windows) > 2


def test_streams_in_step_share_every_call(dual, recordings) -> None:
    network = Counted(dual)
    wavs = [wav[: 2 * 16_000] for wav in recordings]
    streams = [dual.stream() for _ in wavs]
    ids = run_together(
        [stream.pushing(wav) for stream, wav in zip(streams, wavs, strict=True)], network
    )
    assert ids == [dual.stream().push(wav) for wav in wavs]
    assert set(network.chunks) | set(network.windows) == {0, len(wavs)}


def test_whole_recordings_share_calls_with_streams(dual, recordings) -> None:
    wav, other = recordings[0], recordings[1]
    stream = dual.stream()
    encoded, ids = run_together([dual.encoding(wav), stream.pushing(other)], dual.run)
    assert encoded.ids == dual.encode(wav)
    assert ids == dual.stream().push(other)


def test_a_network_is_asked_for_nothing_while_nothing_is_due(dual) -> None:
    network = Counted(dual)
    stream = dual.stream()
    for _ in range(2):
        assert run_together([stream.pushing(np.zeros(PUSH, np.float32))], network) == [[]]
    assert network.chunks == []


def encoder_chunks(dual: DualTokenizer) -> list[EncoderChunk]:
    """Chunks of streams that have heard 0, 1, 2, ... chunks, whole ones, short ones and ends."""
    random = torch.Generator().manual_seed(3)
    encoder = dual.linguistic.encoder
    state: EncoderState = encoder.initial_state()
    chunks = []
    for length in (4, 4, 3, 4, 4, 1, 4, 4, 0, 2):
        frames = torch.randn(CHUNK_FRAMES, 560, generator=random)
        chunks.append(EncoderChunk(frames[:length], state))
        (encoded,) = encoder.run([EncoderChunk(frames, state)])
        state = encoded.after
    return chunks


def test_encoder_states_of_a_batch_are_those_of_each_alone(dual) -> None:
    encoder = dual.linguistic.encoder
    chunks = encoder_chunks(dual)
    for chunk, together in zip(chunks, encoder.run(chunks), strict=True):
        (one,) = encoder.run([chunk])
        assert together.states.shape == (5 + len(chunk.frames), encoder.output_size)
        for ours, theirs in (
            (together.states, one.states),
            (together.after.memory, one.after.memory),
            (together.after.window, one.after.window),
        ):
            torch.testing.assert_close(ours, theirs, atol=FEATURE_ROUNDING, rtol=FEATURE_ROUNDING)
        assert together.after.frames == one.after.frames
        assert together.after.remembered == one.after.remembered


def test_encoder_states_are_those_of_funasrs_own_loop(dual) -> None:
    """FunASR's `forward_chunk`, one stream at a time, over the same layers."""
    encoder = dual.linguistic.encoder
    frames = torch.randn(9 * CHUNK_FRAMES + 3, 560, generator=torch.Generator().manual_seed(5))
    theirs = {
        "start_idx": 0,
        "feats": torch.zeros(1, 5, 560),
        "opt": None,
        "tail_chunk": False,
        "chunk_size": [0, CHUNK_FRAMES, 5],
        "encoder_chunk_look_back": 4,
    }
    state = encoder.initial_state()
    for part in frames.split(CHUNK_FRAMES):
        (ours,) = encoder.run([EncoderChunk(part, state)])
        state = ours.after
        with torch.inference_mode():  # which scales its input in place
            expected = encoder._network.forward_chunk(
                part[None].clone(), torch.tensor([len(part)]), cache=theirs
            )[0][0]
        torch.testing.assert_close(ours.states, expected, atol=2e-5, rtol=1e-5)


def test_a_batch_leaves_the_states_that_it_was_given(dual) -> None:
    encoder = dual.linguistic.encoder
    chunks = encoder_chunks(dual)
    before = [(chunk.state.window.clone(), chunk.state.memory.clone()) for chunk in chunks]
    encoder.run(chunks)
    for chunk, (window, memory) in zip(chunks, before, strict=True):
        assert torch.equal(chunk.state.window, window)
        assert torch.equal(chunk.state.memory, memory)


def test_windows_of_any_length_and_place_are_those_of_each_alone(dual) -> None:
    random = np.random.default_rng(4)
    windows = []
    for frames, start, wanted in ((336, 60, (78, 84)), (24, 0, None), (101, 700, (3, 9))):
        mel = random.uniform(-1, 1, (frames, 128)).astype(np.float32)
        windows.append(MelWindow(mel, start, wanted))
    network = dual.semantic.network
    for window, codes in zip(windows, network.run(windows), strict=True):
        (one,) = network.run([window])
        np.testing.assert_array_equal(codes, one)
        (every,) = network.run([MelWindow(window.mel, window.start)])
        first, last = window.tokens
        np.testing.assert_array_equal(codes, every[first:last])


def test_everything_is_computed_where_the_networks_are(
    dual, fixtures_dir: Path, tmp_path: Path
) -> None:
    """PyTorch's `meta` device computes nothing, but refuses tensors of any other device."""
    bundle = load_bundle(fixture_bundle(tmp_path, fixtures_dir))
    away = DualTokenizer.load(bundle, device="meta")
    encoder = away.linguistic.encoder
    state = encoder.initial_state()
    frames = torch.zeros(CHUNK_FRAMES, 560)
    replies = encoder.run([EncoderChunk(frames, state), EncoderChunk(frames[:3], state)])
    assert replies[0].states.device.type == "meta"
    (again,) = encoder.run([EncoderChunk(frames, replies[0].after)])
    assert torch.cdist(again.states, away.linguistic.centres).shape == (9, 1024)
    codes = away.semantic.network(
        *(
            tensor.to("meta")
            for tensor in (
                torch.zeros(2, 101, 128), torch.tensor([101, 24]),
                torch.tensor([0, 7]), torch.tensor([[0], [3]]),
            )
        ),
        0,
    )  # fmt: skip
    assert codes.device.type == "meta"
    assert codes.shape == (2, 1)


def test_a_push_that_is_dropped_half_way_closes_its_stream_and_no_other(dual) -> None:
    wav = np.zeros(16_000, np.float32)
    dropped, other = dual.stream(), dual.stream()
    job = dropped.pushing(wav)
    next(job)
    job.close()
    with pytest.raises(StreamClosedError):
        dropped.push(wav)
    assert other.push(wav)


def test_nothing_asked_is_nothing_computed(dual) -> None:
    assert dual.run([]) == []
