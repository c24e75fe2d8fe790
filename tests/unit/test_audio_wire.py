"""Client audio in and out: formats, rates, sample accounts, files, and what is refused."""

from __future__ import annotations

import io
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from aqaa.models.errors import AudioError, StreamClosedError
from aqaa.server.audio.files import read_audio
from aqaa.server.audio.wire import AudioFormat, InputConverter, OutputConverter

RATES = [8_000, 16_000, 22_050, 24_000, 44_100, 48_000]


def tone(rate: int, seconds: float, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype("f4")


def pcm16(samples: np.ndarray) -> bytes:
    return np.rint(samples * 32767).astype("<i2").tobytes()


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_of_any_rate_is_the_same_tone_at_16_khz(rate: int) -> None:
    data = pcm16(tone(rate, 1.0))
    converter = InputConverter(AudioFormat("pcm16", rate))
    out = np.concatenate([converter.push(data), converter.flush()])
    assert out.dtype == np.float32
    np.testing.assert_allclose(out[800:-800], tone(16_000, 1.0)[800:-800], atol=1e-3)


@pytest.mark.parametrize("rate", RATES)
def test_an_hour_of_odd_chunks_does_not_drift_by_a_sample(rate: int) -> None:
    converter = InputConverter(AudioFormat("pcm16", rate))
    second = pcm16(tone(rate, 1.0, 1000.0))
    hour, step = second * 3600, 2 * 7919 * 11
    last = np.empty(0, np.float32)
    for start in range(0, len(hour), step):
        last = np.concatenate([last, converter.push(hour[start : start + step])])[-32_000:]
    last = np.concatenate([last, converter.flush()])
    assert converter.samples_in == 3600 * rate
    assert converter.samples_out == 3600 * 16_000
    # The last second but its very end still lies on the sample grid of the first.
    np.testing.assert_allclose(last[-17_600:-1600], tone(16_000, 1.1, 1000.0)[:16_000], atol=2e-3)


@given(cuts=st.lists(st.integers(0, 12_000), max_size=20))
@settings(max_examples=25)
def test_the_cutting_of_client_audio_leaves_no_trace(cuts: list[int]) -> None:
    rng = np.random.default_rng(5)
    data = pcm16(rng.uniform(-1, 1, 12_000))
    once = InputConverter(AudioFormat("pcm16", 24_000))
    whole = np.concatenate([once.push(data), once.flush()])
    converter = InputConverter(AudioFormat("pcm16", 24_000))
    edges = [0, *sorted(cuts), 12_000]
    parts = [converter.push(data[2 * a : 2 * b]) for a, b in pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate([*parts, converter.flush()]), whole)


@pytest.mark.parametrize("encoding", ["pcmu", "pcma"])
def test_g711_goes_out_and_comes_back(encoding: str) -> None:
    wave = tone(8_000, 0.5)
    out = OutputConverter(AudioFormat(encoding, 8_000), source_rate=8_000)
    data = out.push(wave) + out.flush()
    assert len(data) == wave.size
    back = InputConverter(AudioFormat(encoding, 8_000))
    heard = np.concatenate([back.push(data), back.flush()])
    np.testing.assert_allclose(heard[800:-800], tone(16_000, 0.5)[800:-800], atol=0.02)


def test_g711_silence_is_the_standards_silence() -> None:
    # ITU-T G.711: mu-law 0xFF and A-law 0xD5 are the smallest positive values.
    for encoding, byte, loudest in (("pcmu", 0xFF, 0.0), ("pcma", 0xD5, 8 / 32768)):
        converter = InputConverter(AudioFormat(encoding, 8_000))
        heard = np.concatenate([converter.push(bytes([byte]) * 800), converter.flush()])
        assert heard.size == 1600
        assert np.abs(heard).max() <= loudest * 1.2


@pytest.mark.parametrize("rate", RATES)
def test_the_vocoders_tone_reaches_the_client_at_its_rate(rate: int) -> None:
    converter = OutputConverter(AudioFormat("pcm16", rate))
    wave = tone(22_050, 1.0)
    data = b"".join(converter.push(part) for part in np.array_split(wave, 37)) + converter.flush()
    heard = np.frombuffer(data, "<i2") / 32768
    assert heard.size == converter.samples_out == rate
    edge = rate // 20
    np.testing.assert_allclose(heard[edge:-edge], tone(rate, 1.0)[edge:-edge], atol=1e-3)


def test_pcm16_in_and_out_is_the_identity() -> None:
    data = np.arange(-32768, 32768, 3, dtype="<i2").tobytes()
    out = OutputConverter(AudioFormat("pcm16", 16_000), source_rate=16_000)
    assert out.push(InputConverter(AudioFormat("pcm16", 16_000)).push(data)) == data


def test_loud_answers_are_clipped_and_do_not_wrap() -> None:
    out = OutputConverter(AudioFormat("pcm16", 22_050))
    assert np.frombuffer(out.push(np.array([1.5, -1.5], "f4")), "<i2").tolist() == [32767, -32768]


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"rate": 0}, "unsupported sample rate 0"),
        ({"rate": 4_000}, "unsupported sample rate 4000"),
        ({"rate": -8_000}, "unsupported sample rate"),
        ({"rate": 1_000_000}, "unsupported sample rate"),
        ({"encoding": "pcmu", "rate": 16_000}, "G.711"),
        ({"encoding": "mp3"}, "unknown audio encoding"),
    ],
    ids=str,
)
def test_formats_that_cannot_be_served_are_named(settings_, message) -> None:
    with pytest.raises(AudioError, match=message):
        AudioFormat(**settings_)


def test_half_a_sample_is_refused_and_the_converter_goes_on() -> None:
    converter = InputConverter(AudioFormat("pcm16", 16_000))
    for odd in (b"\0", b"\0\0\0", b"\0" * 7):
        with pytest.raises(AudioError, match="whole samples of 2 bytes"):
            converter.push(odd)
    assert converter.push(b"\0" * 4).size == 2
    assert converter.samples_in == 2


def test_a_flushed_converter_is_closed() -> None:
    for converter, data in (
        (InputConverter(AudioFormat()), b"\0\0"),
        (OutputConverter(AudioFormat()), np.zeros(2, np.float32)),
    ):
        converter.flush()
        with pytest.raises(StreamClosedError):
            converter.push(data)
        with pytest.raises(StreamClosedError):
            converter.flush()


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_recordings_of_any_kind_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"question.{kind}"
    stereo = np.stack([tone(44_100, 1.0)] * 2, axis=1)
    soundfile.write(path, stereo, 44_100)
    for source in (path, path.read_bytes()):
        samples = read_audio(source)
        assert abs(samples.size - 16_000) <= 1200  # an mp3 is padded to whole frames
        assert abs(np.abs(samples[4000:12_000]).max() - 0.5) < 0.02


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_a_truncated_recording_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"cut.{kind}"
    rng = np.random.default_rng(0)
    soundfile.write(path, rng.uniform(-0.5, 0.5, 16_000), 16_000)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(AudioError, match=rf"cut\.{kind}"):
        read_audio(path)


def test_a_wav_that_was_streamed_with_unknown_length_is_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(16_000, 0.5), 16_000, format="WAV", subtype="PCM_16")
    data = bytearray(buffer.getvalue())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    assert data[36:40] == b"data"
    assert read_audio(bytes(data)).size == 8_000


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"not audio at all" * 9, "cannot be read"), (b"RIFF", "cannot be")],
    ids=["empty", "text", "four bytes"],
)
def test_what_is_no_recording_is_refused_by_name(tmp_path: Path, content, message) -> None:
    path = tmp_path / "noise.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=message) as caught:
        read_audio(path)
    assert "noise.wav" in str(caught.value)


def test_a_missing_or_empty_recording_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"no such audio file: .*lost\.wav"):
        read_audio(tmp_path / "lost.wav")
    soundfile.write(tmp_path / "empty.wav", np.empty(0), 16_000)
    with pytest.raises(AudioError, match=r"empty\.wav holds no audio"):
        read_audio(tmp_path / "empty.wav")


def test_two_hours_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "lecture.wav"
    with soundfile.SoundFile(path, "w", 8_000, 1, "PCM_16") as file:
        for _ in range(120):
            file.write(np.zeros(60 * 8_000, np.int16))
    with pytest.raises(AudioError, match="120 minutes long; at most 60 minutes"):
        read_audio(path)


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    stereo = np.stack([np.full(1600, 0.5), np.full(1600, -0.25)], axis=1)
    soundfile.write(path, stereo, 16_000, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(path), np.full(1600, 0.125, np.float32))


def test_a_recording_is_read_at_the_rate_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(48_000, 1.0), 48_000)
    heard = read_audio(path, 24_000)
    np.testing.assert_allclose(heard[1200:-1200], tone(24_000, 1.0)[1200:-1200], atol=1e-3)


def test_a_recording_longer_than_its_caller_takes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(16_000 * 3), 16_000)
    assert read_audio(path, max_seconds=3).size == 48_000
    with pytest.raises(AudioError, match=r"long\.wav is 3 seconds long; at most 2 seconds"):
        read_audio(path, max_seconds=2)


def test_a_small_file_of_many_channels_does_not_fill_the_memory(tmp_path: Path) -> None:
    """FLAC writes silence in a few bytes a second: 10 minutes of 8 channels are 0.9 GB decoded."""
    path = tmp_path / "bomb.flac"
    second = np.zeros((48_000, 8), np.int16)
    with soundfile.SoundFile(path, "w", 48_000, 8, "PCM_16", format="FLAC") as file:
        for _ in range(80):
            file.write(second)
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    with pytest.raises(AudioError, match="at most 10 seconds"):
        read_audio(path, max_seconds=10)
    refused = tracemalloc.get_traced_memory()[1]
    read_audio(path)
    mixed = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused < 1_000_000
    assert mixed < 80 * 48_000 * 8 * 4 / 2  # half of what all channels at once would take


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_more_samples_a_second_than_a_recorder_makes_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"studio.{kind}"
    soundfile.write(path, np.zeros((100, 8)), 96_000)
    with pytest.raises(AudioError, match="8 channels at 96000 Hz; at most 384000 samples a second"):
        read_audio(path)


def test_more_channels_than_a_recorder_has_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "wall.wav"
    soundfile.write(path, np.zeros((100, 9)), 16_000)
    with pytest.raises(AudioError, match=r"wall\.wav has 9 channels; at most 8"):
        read_audio(path)
