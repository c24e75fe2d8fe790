"""Recordings as browsers, phones and pipes write them."""

from __future__ import annotations

import contextlib
import io
import itertools
import random
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from aqaa.models.errors import AudioError
from aqaa.server.audio.files import read_audio

RATE = 48_000
SECONDS = 1.5
TONE = (0.4 * np.sin(2 * np.pi * 440 * np.arange(round(RATE * SECONDS)) / RATE)).astype(np.float32)
PCM = np.rint(TONE * 32767).astype("<i2").tobytes()


def muxed(
    container: str, codec: str, channels: int = 1, options: dict[str, str] | None = None
) -> bytes:
    """The tone in a container of FFmpeg's."""
    file = io.BytesIO()
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[channels]
    with av.open(file, "w", format=container, options=options or {}) as out:
        write_tone(out, codec, layout)
    return file.getvalue()


def write_tone(out: av.container.OutputContainer, codec: str, layout: str = "mono") -> None:
    stream = out.add_stream(codec, rate=RATE, layout=layout, bit_rate=64_000)
    samples = np.repeat(TONE, stream.codec_context.channels)[np.newaxis]
    frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=layout)
    frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
    for packet in [*stream.encode(frame), *stream.encode(None)]:
        out.mux(packet)


@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [
        ("webm", "libopus", {}),
        ("mp4", "aac", {}),
        ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}),
        ("ipod", "aac", {}),
        ("adts", "aac", {}),
        ("asf", "wmav2", {}),
        ("mov", "pcm_s16le", {}),
        ("3gp", "aac", {}),
        ("au", "pcm_s16be", {}),
        ("w64", "pcm_s16le", {}),
        ("avi", "libmp3lame", {}),
        ("flv", "aac", {}),
        ("mpegts", "aac", {}),
        ("latm", "aac", {}),
        ("mp4", "alac", {}),
        ("wv", "wavpack", {}),
        ("tta", "tta", {}),
        ("ac3", "ac3", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "".join(value),
)
@pytest.mark.parametrize("channels", [1, 2])
def test_what_recorders_upload_is_read(
    container: str, codec: str, options: dict[str, str], channels: int
) -> None:
    samples = read_audio(muxed(container, codec, channels, options))
    assert samples.size / 16_000 == pytest.approx(SECONDS, abs=0.1)
    middle = samples[4000:20_000]
    pitch = np.abs(np.fft.rfft(middle)).argmax() * 16_000 / middle.size
    assert pitch == pytest.approx(440, abs=3)
    assert middle.std() == pytest.approx(TONE.std(), rel=0.1)


def wav(riff: int, data: int) -> bytes:
    """The tone with sizes that may lie."""
    form = struct.pack("<IHHIIHH", 16, 1, 1, RATE, RATE * 2, 2, 16)
    head = b"RIFF" + struct.pack("<I", riff) + b"WAVEfmt " + form
    return head + b"data" + struct.pack("<I", data) + PCM


@pytest.mark.parametrize(
    ("riff", "data"),
    [
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0x7FFFF024, 0x7FFFF000),
        (0x7FFFFFFF, 0x7FFFFFFF),
        (2_000_000_036, 2_000_000_000),
        (36, 0),
        (0, 0),
        (8, 0),
    ],
    ids=["OpenAI", "sox", "arecord", "2e9", "RIFF 36", "zero", "libsndfile"],
)
def test_a_wav_from_a_pipe_is_read_whatever_stands_for_its_size(riff: int, data: int) -> None:
    assert read_audio(wav(riff, data)).size == round(SECONDS * 16_000)


def rf64(stated: int, behind: bytes = b"") -> bytes:
    """The tone as an RF64 that states so many bytes, with another chunk behind it."""
    form = struct.pack("<IHHIIHH", 16, 1, 1, RATE, RATE * 2, 2, 16)
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, stated + 72 if stated else 0, stated, 0, 0)
    head = b"RF64\xff\xff\xff\xffWAVE" + sizes + b"fmt " + form + b"data\xff\xff\xff\xff"
    return head + PCM + behind


@pytest.mark.parametrize("stated", [0, 2**64 - 73, 2**63 - 1])
def test_an_rf64_from_a_pipe_is_read_whatever_stands_for_its_size(stated: int) -> None:
    assert read_audio(rf64(stated)).size == round(SECONDS * 16_000)


def test_what_stands_behind_the_sound_of_an_rf64_is_no_sound() -> None:
    note = struct.pack("<4sI", b"LIST", 4000) + b"INFO" + bytes(3996)
    assert read_audio(rf64(len(PCM), note)).size == round(SECONDS * 16_000)


class Pipe:
    """Takes bytes in order only, as a pipe does: what is written first stays."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("au", "pcm_s16be"),
        ("w64", "pcm_s16le"),
        ("avi", "libmp3lame"),
        ("flv", "aac"),
        ("mpegts", "aac"),
        ("caf", "pcm_s16le"),
        ("aiff", "pcm_s16be"),
    ],
)
def test_other_files_from_a_pipe_are_read_too(container: str, codec: str) -> None:
    pipe = Pipe()
    with av.open(pipe, "w", format=container) as out:
        write_tone(out, codec)
    assert read_audio(pipe.data).size / 16_000 == pytest.approx(SECONDS, abs=0.1)


def every_kind() -> dict[tuple[str, str, str], bytes]:
    """The tone at 8 kHz in each container, encoding and byte order that libsndfile writes."""
    files: dict[tuple[str, str, str], bytes] = {}
    for container in soundfile.available_formats():
        for encoding in soundfile.available_subtypes(container):
            for order in ("FILE", "LITTLE", "BIG"):
                file = io.BytesIO()
                with contextlib.suppress(soundfile.LibsndfileError, ValueError):
                    soundfile.write(
                        file,
                        TONE[::6],
                        8000,
                        format=container,
                        subtype=encoding,
                        endian=None if order == "FILE" else order,
                    )
                    files[container, encoding, order] = file.getvalue()
    return files


HEADLESS = {"RAW", "SD2"}  # nothing in such a file says what it is


def test_whatever_libsndfile_writes_is_read_or_refused_in_words() -> None:
    kinds = every_kind()
    assert len(kinds) > 230
    refused: dict[tuple[str, str], str] = {}
    for kind, data in kinds.items():
        try:
            samples = read_audio(data)
        except AudioError as error:
            refused[kind[:2]] = str(error)
        else:
            assert samples.size > 0, kind
    assert [words for words in refused.values() if "Send wav, flac" not in words] == []
    assert {kind for kind in refused if kind[0] not in HEADLESS} <= {
        ("AIFF", "DWVW_16"),  # libsndfile writes these and cannot read them
        ("AIFF", "DWVW_24"),
    }


def test_files_that_are_broken_anywhere_are_read_or_refused_in_words() -> None:
    draw = random.Random(5)
    kinds = [*every_kind().values()]
    kinds += [muxed(*kind) for kind in [("mp4", "libopus"), ("flv", "aac"), ("avi", "pcm_s16le")]]
    wrong: dict[str, bytes] = {}
    for _ in range(600):
        data = bytearray(draw.choice(kinds))
        for _ in range(draw.choice((1, 3, 10))):
            at = draw.randrange(min(len(data), draw.choice((64, 400))))
            data[at : at + 4] = draw.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x80", b""))
        data = data[: draw.choice((len(data), draw.randrange(len(data))))]
        try:
            read_audio(bytes(data), max_seconds=10.0)
        except AudioError:
            pass
        except Exception as error:
            wrong[repr(error)] = bytes(data)
    assert wrong == {}


def test_an_mp3_inside_a_wav_is_not_taken_for_truncated() -> None:
    assert read_audio(muxed("wav", "libmp3lame")).size / 16_000 == pytest.approx(SECONDS, abs=0.1)


@pytest.mark.parametrize("zeros", [100, 5000])
def test_zeros_behind_an_mp3_are_no_reason_to_refuse_it(zeros: int) -> None:
    """Recorders that write whole blocks leave them."""
    samples = read_audio(muxed("mp3", "libmp3lame") + bytes(zeros))
    assert samples.size / 16_000 == pytest.approx(SECONDS, abs=0.1)


@pytest.mark.parametrize(("container", "codec"), [("mp3", "libmp3lame"), ("adts", "aac")])
def test_a_burst_of_noise_in_a_file_costs_that_moment_alone(container: str, codec: str) -> None:
    data = bytearray(muxed(container, codec))
    middle = len(data) // 2
    data[middle : middle + 200] = random.Random(1).randbytes(200)
    assert read_audio(bytes(data)).size / 16_000 == pytest.approx(SECONDS, abs=0.3)


@pytest.mark.parametrize("whole", [0, 3])
def test_a_file_of_which_most_is_broken_is_refused(whole: int) -> None:
    """`whole`: frames at its beginning that are not."""
    data, draw, at = bytearray(muxed("adts", "aac")), random.Random(1), 0
    for frame in itertools.count():
        if at + 7 >= len(data):
            break
        size = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
        if frame >= whole:
            data[at + 7 : at + size] = draw.randbytes(size - 7)
        at += size
    with pytest.raises(AudioError, match="cannot be read"):
        read_audio(bytes(data))


def test_a_wav_that_broke_off_is_still_refused() -> None:
    with pytest.raises(AudioError, match="truncated"):
        read_audio(wav(36 + 2 * len(PCM), 2 * len(PCM)))


def flac(stated: int, channels: int = 1) -> bytes:
    """The tone; its head states so many samples, in 36 bits of its first block."""
    file = io.BytesIO()
    soundfile.write(file, np.tile(TONE[:, np.newaxis], channels), RATE, format="FLAC")
    data = bytearray(file.getvalue())
    data[21] = (data[21] & 0xF0) | (stated >> 32)
    data[22:26] = (stated & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize("stated", [0, 1, RATE // 2, TONE.size], ids=["pipe", "1", "half", "all"])
@pytest.mark.parametrize("channels", [1, 8])
def test_a_flac_is_read_to_its_end_whatever_its_head_states(stated: int, channels: int) -> None:
    assert read_audio(flac(stated, channels)).size == round(SECONDS * 16_000)


def test_a_flac_with_less_than_its_head_states_is_truncated() -> None:
    with pytest.raises(AudioError, match=r"truncated: 72000 of 144000"):
        read_audio(flac(2 * TONE.size))


def test_a_flac_that_states_too_little_is_bounded_all_the_same() -> None:
    with pytest.raises(AudioError, match="longer than 1 seconds"):
        read_audio(flac(1), max_seconds=1.0)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"%PDF-1.7 and so on", "PDF"),
        (b'{"audio": "..."}', "JSON"),
        (b"<html></html>", "HTML"),
        (b"#EXTM3U\nfile:///etc/passwd\n", "playlist"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "text"),
        (b"UklGRiSMAABXQVZFZm10IBAAAAABAAEA", "text"),
        (b"OggS\0\2" + bytes(50), "Ogg file that is broken"),
        (b"fLaC\0\0\0\x22" + bytes(20), "flac that is broken"),
        (b"\x00" * 5000, "unknown"),
    ],
)
def test_what_is_no_sound_is_named_with_what_would_be_read(data: bytes, kind: str) -> None:
    with pytest.raises(AudioError, match=rf"{kind}.*wav.*webm.*m4a") as refused:
        read_audio(data)
    assert "object at" not in str(refused.value)


def test_a_file_of_nothing_is_empty() -> None:
    with pytest.raises(AudioError, match="is empty"):
        read_audio(b"")


def test_a_long_recording_is_refused_when_its_length_becomes_known() -> None:
    with pytest.raises(AudioError, match="longer than 1 seconds"):
        read_audio(muxed("webm", "libopus"), max_seconds=1.0)


@pytest.mark.parametrize("channels", [6, 8])
@pytest.mark.parametrize(("container", "codec"), [("webm", "libopus"), ("matroska", "pcm_s16le")])
def test_as_many_channels_as_are_taken_are_read(container: str, codec: str, channels: int) -> None:
    """A process in which PyAV looks at eight planes of sound dies."""
    recording = muxed(container, codec, channels, {"mapping_family": "1"})
    assert read_audio(recording).size / 16_000 == pytest.approx(SECONDS, abs=0.1)


def test_channels_that_change_on_the_way_are_told() -> None:
    with pytest.raises(AudioError, match="changes its sample rate or its channels"):
        read_audio(muxed("adts", "aac", 1) + muxed("adts", "aac", 2))


def test_more_channels_than_a_recorder_has_are_refused_in_any_container() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        stream = out.add_stream("pcm_s16le", rate=RATE, layout="hexadecagonal")
        samples = np.zeros((1, 16 * 4800), np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="hexadecagonal")
        frame.sample_rate = RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    with pytest.raises(AudioError, match="16 channels; at most 8"):
        read_audio(file.getvalue())
