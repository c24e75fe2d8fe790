"""However audio is cut, a token stream gives the same tokens, and no more state than it needs."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx_tokenizers
import pytest
import soundfile
import torch
from bundles import fixture_bundle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aqaa.models.bundle import SemanticStreaming, load_bundle, nano_path
from aqaa.models.errors import AudioError, StreamClosedError
from aqaa.tokenizers.dual import DualTokenizer
from aqaa.tokenizers.normalise import RunningGain, peak_normalise
from aqaa.tokenizers.semantic import SemanticTokenizer
from aqaa.tokenizers.semantic_network import SemanticNetwork

SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.fixture(scope="module")
def dual(fixtures_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> DualTokenizer:
    return DualTokenizer.load(
        load_bundle(fixture_bundle(tmp_path_factory.mktemp("bundle"), fixtures_dir))
    )


@pytest.fixture(scope="module")
def recordings(fixtures_dir: Path) -> dict[str, np.ndarray]:
    return {
        path.stem: soundfile.read(path, dtype="float32")[0]
        for path in sorted((fixtures_dir / "wavs").glob("*.wav"))
    }


@pytest.fixture(scope="module")
def uncut(dual, recordings) -> dict[str, list[int]]:
    """The ids of every recording pushed at once."""
    ids = {}
    for name, wav in recordings.items():
        stream = dual.stream()
        ids[name] = stream.push(wav) + stream.flush()
    return ids


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> SemanticTokenizer:
    """A tokenizer in the published interface whose tokens see nothing beyond their own frames."""
    path = onnx_tokenizers.write_local(tmp_path_factory.mktemp("onnx") / "local.onnx")
    streaming = SemanticStreaming(chunk_ms=240, left_ms=0, right_ms=0, exact=True)
    return SemanticTokenizer(SemanticNetwork.load(path), streaming)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise whose loudness wanders over four decades, as speech and its pauses do."""
    rng = np.random.default_rng(seed)
    count = round(seconds * 16_000)
    level = np.repeat(10.0 ** rng.uniform(-4, -0.5, count // 4000 + 1), 4000)[:count]
    return (level * rng.standard_normal(count)).clip(-1, 1).astype(np.float32)


def pieces(wav: np.ndarray, cuts: list[int]) -> Iterator[np.ndarray]:
    edges = [0, *sorted(cut % (wav.size + 1) for cut in cuts), wav.size]
    for start, stop in pairwise(edges):
        yield wav[start:stop]  # empty pieces are pushed too


@pytest.mark.deep
@given(cuts=st.lists(st.integers(0, 10**6), max_size=40))
@settings(max_examples=3, suppress_health_check=SLOW)
def test_any_cutting_gives_the_same_tokens(dual, recordings, uncut, cuts: list[int]) -> None:
    for name, wav in recordings.items():
        stream = dual.stream()
        ids = [token for piece in pieces(wav, cuts) for token in stream.push(piece)]
        assert ids + stream.flush() == uncut[name], name


@given(step=st.integers(1, 400))
@settings(max_examples=10, suppress_health_check=SLOW)
def test_even_steps_of_any_size_give_the_same_tokens(dual, recordings, step: int) -> None:
    wav = min(recordings.values(), key=len)[: 40 * max(step, 300)]
    once = dual.stream()
    whole = once.push(wav) + once.flush()
    stream = dual.stream()
    ids = [token for i in range(0, wav.size, step) for token in stream.push(wav[i : i + step])]
    assert ids + stream.flush() == whole


def test_single_samples_give_the_same_tokens(dual, recordings) -> None:
    wav = min(recordings.values(), key=len)[:11_000]
    once, stream = dual.stream(), dual.stream()
    whole = once.push(wav) + once.flush()
    ids = [token for i in range(wav.size) for token in stream.push(wav[i : i + 1])]
    assert whole
    assert ids + stream.flush() == whole


def test_linguistic_stream_equals_encode(dual, recordings) -> None:
    for name, wav in recordings.items():
        stream = dual.linguistic.stream()
        parts = [stream.push(wav[i : i + 3333]) for i in range(0, wav.size, 3333)]
        codes = np.concatenate([*parts, stream.flush()])
        np.testing.assert_array_equal(codes, dual.linguistic.encode(wav), err_msg=name)


@given(samples=st.integers(1, 12_000))
@settings(max_examples=60, suppress_health_check=SLOW)
def test_code_counts_follow_the_reference_at_every_length(dual, samples: int) -> None:
    # SPEC 2 and 3: tails under 880 samples are lost; one semantic code for 4 frames begun.
    wav = noise(1.0)[:samples]
    whole, tail = divmod(samples, 3840)
    if whole:
        last = -(-((tail - 80) // 160 + 1 - 2) // 6) if tail >= 880 else 0
    else:
        last = -(-((tail - 400) // 160 + 1) // 6) if tail >= 880 else 0
    assert dual.linguistic.encode(wav).size == 4 * whole + last
    frames = samples // 160
    assert dual.semantic.encode(wav).size == (-(-frames // 4) if samples >= 480 else 0)
    stream = dual.semantic.stream()
    assert stream.push(wav).size + stream.flush().size == dual.semantic.encode(wav).size


def test_linguistic_codes_come_five_milliseconds_before_the_chunk_ends(dual) -> None:
    stream = dual.linguistic.stream()
    wav = noise(2.0)
    assert stream.push(wav[:3759]).size == 0
    assert stream.push(wav[3759:3760]).size == 4
    assert stream.push(wav[3760:7599]).size == 0
    assert stream.push(wav[7599:7600]).size == 4


def test_semantic_codes_come_as_soon_as_their_right_context_is_there(dual) -> None:
    streaming = dual.semantic.streaming
    stream = dual.semantic.stream()
    wav = noise(2.0)
    ready = (streaming.chunk_ms + streaming.right_ms) * 16 + 40  # the last frame's half window
    assert stream.push(wav[: ready - 1]).size == 0
    assert stream.push(wav[ready - 1 : ready]).size == streaming.chunk_ms // 40


def test_a_chunk_causal_checkpoint_streams_exactly(local) -> None:
    for seconds in (0.03, 0.24, 1.003, 29.99, 30.0, 30.02, 31.7):
        wav = noise(seconds)
        stream = local.stream()
        parts = [stream.push(wav[i : i + 997]) for i in range(0, wav.size, 997)]
        codes = np.concatenate([*parts, stream.flush()])
        assert codes.size == sum(-(-(n // 160) // 4) for n in segment_lengths(wav.size))
        np.testing.assert_array_equal(codes, local.encode(wav), err_msg=str(seconds))


def test_nano_streams_exactly(recordings) -> None:
    if not (nano_path() / "aqaa.toml").is_file():
        pytest.skip("models/nano is not built: run `make nano`")
    nano = DualTokenizer.load(load_bundle(nano_path()))
    for name, wav in recordings.items():
        stream = nano.stream()
        ids = [token for i in range(0, wav.size, 1601) for token in stream.push(wav[i : i + 1601])]
        assert ids + stream.flush() == nano.encode(wav), name


def test_windows_of_a_chunk_causal_checkpoint_may_have_any_left_context(local) -> None:
    wav = noise(8.0, seed=1)
    for left in (240, 480, 2400):
        streaming = SemanticStreaming(chunk_ms=240, left_ms=left, right_ms=0, exact=True)
        wider = SemanticTokenizer(local.network, streaming)
        stream = wider.stream()
        codes = np.concatenate([stream.push(wav), stream.flush()])
        np.testing.assert_array_equal(codes, local.encode(wav))


def segment_lengths(samples: int) -> list[int]:
    whole, rest = divmod(samples, 480_000)
    return [480_000] * whole + ([rest] if rest >= 480 else [])


@given(pause=st.integers(0, 50_000))
@settings(max_examples=6, suppress_health_check=SLOW)
def test_flushing_a_fork_leaves_the_original_as_it_was(dual, pause: int) -> None:
    wav = noise(3.5)
    undisturbed = dual.stream()
    whole = undisturbed.push(wav) + undisturbed.flush()
    stream = dual.stream()
    ids = stream.push(wav[:pause])
    speculative = stream.fork()
    ended = ids + speculative.flush()
    alone = dual.stream()
    assert ended == alone.push(wav[:pause]) + alone.flush()
    assert ids + stream.push(wav[pause:]) + stream.flush() == whole


def test_a_fork_that_goes_on_does_not_disturb_the_original(dual) -> None:
    wav, other = noise(2.0, seed=2), noise(2.0, seed=3)
    undisturbed = dual.stream()
    whole = undisturbed.push(wav) + undisturbed.flush()
    stream = dual.stream()
    ids = stream.push(wav[:9000])
    branch = stream.fork()
    branch.push(other)
    assert ids + stream.push(wav[9000:]) + stream.flush() == whole


@given(cuts=st.lists(st.integers(0, 32_000), max_size=20), pause=st.integers(0, 32_000))
@settings(max_examples=8, suppress_health_check=SLOW)
def test_a_running_gain_does_not_depend_on_the_cutting(cuts: list[int], pause: int) -> None:
    wav = noise(2.0, seed=4)
    once, gain = RunningGain(0.3), RunningGain(0.3)
    whole = np.concatenate([once.push(wav), once.flush()])
    parts = []
    for piece in pieces(wav, cuts):
        parts.append(gain.push(piece))
        gain.copy().push(wav[:pause] * 2)
    np.testing.assert_array_equal(np.concatenate([*parts, gain.flush()]), whole)


def test_a_running_gain_ends_where_peak_normalisation_does() -> None:
    quiet = noise(1.0) / np.abs(noise(1.0)).max() * 0.1
    wav = np.concatenate([quiet, [0.9], quiet]).astype(np.float32)
    gain = RunningGain(0.3)
    scaled = np.concatenate([gain.push(wav), gain.flush()])
    assert scaled.size == wav.size
    np.testing.assert_allclose(scaled[:16_000], wav[:16_000] / 0.3 * 0.999, rtol=1e-5)
    np.testing.assert_allclose(scaled[16_000:], peak_normalise(wav)[16_000:], rtol=1e-5)


def test_a_scaled_stream_is_whole_and_does_not_depend_on_the_cutting(dual, recordings) -> None:
    wav = min(recordings.values(), key=len)
    scaled = DualTokenizer(
        dual.linguistic, dual.semantic, audio_offset=dual.audio_offset, stream_peak=0.3
    )
    once, stream = scaled.stream(), scaled.stream()
    whole = once.push(wav) + once.flush()
    ids = [token for i in range(0, wav.size, 1234) for token in stream.push(wav[i : i + 1234])]
    ended = ids + stream.fork().flush()
    assert ended == ids + stream.flush() == whole
    assert len(whole) == len(dual.encode(wav))


@pytest.mark.deep
def test_an_hour_leaves_a_semantic_stream_no_larger_than_a_minute(local) -> None:
    stream = local.stream()
    minute = noise(60.0)
    stream.push(minute)
    after_a_minute = weight(stream)
    for _ in range(59):
        stream.push(minute)
    assert weight(stream) <= after_a_minute


def test_time_does_not_make_a_stream_larger(dual) -> None:
    stream = dual.stream()
    stream.push(noise(30.0))
    after_half_a_minute = weight(stream)
    stream.push(noise(90.0))
    assert weight(stream) <= 1.01 * after_half_a_minute


def test_the_position_code_after_an_hour_is_funasrs(dual) -> None:
    """Theirs makes the table since the stream's start in every call, so its cost grows."""
    encoder = dual.linguistic.encoder
    hour = replace(encoder.initial_state(), frames=60_000)
    late = encoder._positions([hour], 4)
    table = encoder._network.embed(torch.zeros(1, 60_004, 560), {"start_idx": 0})
    torch.testing.assert_close(late[0], table[0, 60_000:], atol=1e-6, rtol=0)


def weight(stream: object) -> int:
    """Bytes of a stream's own state, weights left out."""
    shared = ("_tokenizer", "_network")

    def strip(value: object) -> object:
        if isinstance(value, (list, tuple)):
            return [strip(item) for item in value]
        if isinstance(value, dict):
            return {key: strip(item) for key, item in value.items()}
        if hasattr(value, "numpy"):
            return value.numpy().copy()
        if hasattr(value, "__dict__"):
            return {k: strip(v) for k, v in vars(value).items() if k not in shared}
        return value

    return len(pickle.dumps(strip(stream)))


@pytest.mark.parametrize("kind", ["linguistic", "semantic", "dual"])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.array([0.0, np.nan], np.float32), "NaN or infinite"),
        (np.array([0.0, -np.inf], np.float32), "NaN or infinite"),
        (np.zeros((2, 160), np.float32), "mono"),
        (np.zeros(160, np.int16), "float samples"),
        (np.full(160, 12_000.0, np.float32), "divide int16"),
    ],
    ids=["nan", "inf", "stereo", "int16", "integer scale"],
)
def test_bad_audio_is_refused_and_the_stream_goes_on(dual, kind, bad, message) -> None:
    opener = dual if kind == "dual" else getattr(dual, kind)
    wav = noise(1.0)
    undisturbed = opener.stream()
    whole = [*undisturbed.push(wav), *undisturbed.flush()]
    stream = opener.stream()
    ids = [*stream.push(wav[:5000])]
    with pytest.raises(AudioError, match=message):
        stream.push(bad)
    assert [*ids, *stream.push(wav[5000:]), *stream.flush()] == whole


@pytest.mark.parametrize("kind", ["linguistic", "semantic", "dual"])
def test_a_flushed_stream_is_closed(dual, kind: str) -> None:
    stream = (dual if kind == "dual" else getattr(dual, kind)).stream()
    assert len(stream.flush()) == 0
    for use in (lambda: stream.push(noise(0.1)), stream.flush, stream.fork):
        with pytest.raises(StreamClosedError):
            use()


def test_a_fault_inside_the_model_closes_the_stream(dual, monkeypatch) -> None:
    stream = dual.stream()
    stream.push(noise(0.1))

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(dual.linguistic.encoder, "run", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        stream.push(noise(1.0))
    monkeypatch.undo()
    with pytest.raises(StreamClosedError):
        stream.push(noise(1.0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.zeros(16_000, np.float32),
        lambda: noise(1.0) * 0 + 1.0,
        lambda: np.sign(noise(1.0)),
        lambda: noise(1.0) * 1e-6,
    ],
    ids=["silent", "constant", "clipped", "whisper-quiet"],
)
def test_silent_clipped_and_quiet_audio_have_tokens(dual, make: Callable[[], np.ndarray]) -> None:
    wav = make().astype(np.float32)
    stream = dual.stream()
    ids = stream.push(wav) + stream.flush()
    assert len(ids) == len(dual.encode(wav)) == 8 * 5
