"""Sound in the containers of browsers, phones and recorders, read by FFmpeg.

FFmpeg is held to formats that carry sound themselves: a playlist would have it open other files.
"""

from __future__ import annotations

from typing import BinaryIO

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from aqaa.models.errors import AudioError
from aqaa.server.audio.wire import HIGHEST_RATE, LOWEST_RATE

MAX_CHANNELS = 8  # more than any recorder of speech has; each multiplies what is decoded
MAX_VALUES = 384_000  # samples of all channels a second: two at 192 kHz, eight at 48 kHz

DEMUXERS = (
    "matroska,webm,mov,mp4,m4a,3gp,3g2,aac,loas,amr,asf,flac,ogg,mp3,wav,w64,aiff,caf,au,avi,"
    "flv,live_flv,mpeg,mpegts,rm,nut,ac3,eac3,dts,mpc,mpc8,ape,tta,wv,tak,voc,sox,gsm,oma,dsf,ircam,nistsphere"
)
SEND = (
    "Send wav, flac, mp3, ogg, webm, mp4 or m4a, aac, amr, wma, aiff, caf, au, w64, avi, flv or "
    "mpegts"
)
BEGINNINGS = {  # what a file is, for who sent another by mistake
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a zip archive",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"{": "JSON",
    b"[": "JSON",
    b"<": "HTML or XML",
    b"#EXTM3U": "a playlist",
    b"\x1aE\xdf\xa3": "Matroska or WebM without sound that can be read",
    b"RIFF": "a RIFF file without sound that can be read",
    b"OggS": "an Ogg file that is broken or cut off",
    b"fLaC": "a flac that is broken or cut off",
    b"ID3": "an mp3 that is broken or cut off",
    b"\x1f\x8b": "gzip",
}


def check_rate(name: str, rate: int, channels: int) -> None:
    """Refuse what no recorder of speech makes and what would take long to decode.

    Raises:
        AudioError: the sample rate in Hz, the channels, or what both make a second, is too much.
    """
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(f"{name}: unsupported sample rate {rate} Hz")
    if channels > MAX_CHANNELS:
        raise AudioError(f"{name} has {channels} channels; at most {MAX_CHANNELS} are read")
    if rate * channels > MAX_VALUES:
        raise AudioError(
            f"{name} has {channels} channels at {rate} Hz; at most {MAX_VALUES} samples a second"
            " of all channels are read: send one channel"
        )


def read_with_ffmpeg(
    data: BinaryIO, name: str, *, max_seconds: float
) -> tuple[NDArray[np.float32], int]:
    """The first sound stream as float32 `[n]` mono, channels averaged, and its rate in Hz.

    Decoded frame by frame: no more than `max_seconds` of sound is ever in memory.

    Raises:
        AudioError: no sound, longer than `max_seconds`, or of an unusable rate or channels; the
            message names the kinds that are read.
    """
    try:
        with av.open(
            data,
            mode="r",
            options={"format_whitelist": DEMUXERS, "protocol_whitelist": "none"},
            metadata_errors="replace",  # a title may be in any encoding
        ) as container:
            if not container.streams.audio:
                raise AudioError(f"{name} holds no sound")
            stream = container.streams.audio[0]
            if stream.codec_context is None or not stream.codec_context.sample_rate:
                raise AudioError(f"{name} holds sound of a kind that cannot be read. {SEND}")
            rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
            check_rate(name, rate, channels)
            most = round(max_seconds * rate)
            # Packed: PyAV reads beyond the eight planes that a planar frame has room for.
            to_float = av.AudioResampler(format="flt")
            pieces: list[NDArray[np.float32]] = []
            count = broken = 0
            for packet in container.demux(stream):
                try:
                    frames = stream.decode(packet)
                except av.error.InvalidDataError:
                    broken += 1  # a burst of noise, or zeros behind an mp3: as players do
                    continue
                for frame in frames:
                    if (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
                        raise AudioError(f"{name} changes its sample rate or its channels")
                    for packed in to_float.resample(frame):
                        samples = packed.to_ndarray().reshape(-1, channels)
                        piece = samples.mean(axis=1, dtype=np.float32)
                        count += piece.size
                        if count > most:
                            raise AudioError(
                                f"{name} is longer than {max_seconds:.0f} seconds: cut out the"
                                " question"
                            )
                        pieces.append(piece)
    except av.error.FFmpegError:
        raise AudioError(not_audio(data, name)) from None
    if broken > len(pieces):
        raise AudioError(not_audio(data, name))
    if not pieces:
        raise AudioError(f"{name} holds no sound")
    return np.concatenate(pieces), rate


def not_audio(data: BinaryIO, name: str) -> str:
    """What to tell whoever sent something that is no sound."""
    data.seek(0)
    head = data.read(16)
    if not head:
        return f"{name} is empty"
    other = "text" if head.isascii() and head.decode().isprintable() else "unknown data"
    kind = next((k for begin, k in BEGINNINGS.items() if head.startswith(begin)), other)
    return f"{name} cannot be read as audio: it looks like {kind}. {SEND}"
