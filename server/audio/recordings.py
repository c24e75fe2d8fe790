"""Recordings are decoded in a process of their own, which gives way to everything else.

What people upload is parsed by C libraries that know a hundred formats. A file that makes one of
them fail, or count for ever, ends that process and not the conversations beside it; and the
scheduler gives it what they leave.

    request   u64 size, f64 most seconds, then the file
    reply     u64 size, u8 outcome, then float32 at 16 kHz, or the error in words
"""

from __future__ import annotations

import asyncio
import os
import resource
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import IO

import numpy as np
from numpy.typing import NDArray

from aqaa.models.errors import AudioError

NICE = 10  # its share beside a busy thread of the server is a tenth
CPU_SECONDS = 20  # for one file; an hour of stereo mp3 takes five
MEMORY = 2 << 30  # bytes of address space; its libraries take an eighth
SAMPLES, REFUSED, FAILED = range(3)
_REQUEST, _REPLY = struct.Struct("<Qd"), struct.Struct("<QB")


class RecordingDecoder:
    """The process, from outside; it is started when it is first needed, and again when it died.

    One file is decoded at a time; the others wait in order.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = ThreadPoolExecutor(1, "recordings")

    def start(self) -> None:
        """Have it load its libraries before the first file comes. Does not wait."""
        self._thread.submit(self._running)

    async def decode(self, data: bytes, max_seconds: float) -> NDArray[np.float32]:
        """A recording in any container that is read, as float32 `[n]` mono at 16 kHz.

        Raises:
            AudioError: see `files.read_audio`; or nothing could be made of it with bounded means.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._decode, data, max_seconds)

    def close(self) -> None:
        """End it; what it was at or had to do is refused."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if (process := self._process) is not None:
            process.kill()
        self._thread.shutdown()
        self._end()

    # --- in the thread ----------------------------------------------------------------------------

    def _decode(self, data: bytes, max_seconds: float) -> NDArray[np.float32]:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(_REQUEST.pack(len(data), max_seconds))
            process.stdin.write(data)
            process.stdin.flush()
            size, outcome = _REPLY.unpack(_exactly(process.stdout, _REPLY.size))
            reply = _exactly(process.stdout, size)
        except (BrokenPipeError, EOFError):
            self._end()
            raise AudioError("the audio cannot be decoded: send it as wav") from None
        if outcome == SAMPLES:
            return np.frombuffer(reply, np.float32)
        words = reply.decode("utf-8", "replace")
        raise AudioError(words) if outcome == REFUSED else RuntimeError(f"decoding: {words}")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self._end()  # it was killed while idle, which is no fault of the next file's
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # What stops the server lets it finish its file. No session of its own: Linux may
                # give each session an equal share, whatever is nice within it (autogroup).
                process_group=0,
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def _exactly(source: IO[bytes], size: int) -> bytes:
    data = source.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _limit(kind: int, most: int) -> None:
    """Bounds what this process takes. The hard limit stays: only the privileged may raise it."""
    _, hard = resource.getrlimit(kind)
    soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (soft, hard))


def _serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Decode what comes, until the input ends."""
    from aqaa.server.audio.files import read_audio

    while head := requests.read(_REQUEST.size):
        size, max_seconds = _REQUEST.unpack(head)
        data = requests.read(size)
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = int(used.ru_utime + used.ru_stime) + CPU_SECONDS
        _limit(resource.RLIMIT_CPU, seconds)
        try:
            outcome, reply = SAMPLES, read_audio(data, max_seconds=max_seconds).tobytes()
        except AudioError as error:
            outcome, reply = REFUSED, str(error).encode()
        except MemoryError:
            outcome, reply = REFUSED, b"the audio takes too much memory to decode: send it as wav"
        except Exception as error:
            outcome, reply = FAILED, repr(error).encode()
        replies.write(_REPLY.pack(len(reply), outcome) + reply)
        replies.flush()


def main() -> None:
    """The process itself."""
    os.nice(NICE)
    _limit(resource.RLIMIT_AS, MEMORY)
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # the C libraries print what they dislike
    _serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
