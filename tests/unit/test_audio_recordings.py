"""Recordings are decoded in a process of their own: what goes wrong there stays there."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
from recordings import recording

from aqaa.models.errors import AudioError
from aqaa.server.audio.recordings import CPU_SECONDS, MEMORY, NICE, RecordingDecoder


def flac() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(16_000), 16_000, format="FLAC")
    return file.getvalue()


@pytest.fixture
async def decoder(others: set[psutil.Process]) -> AsyncIterator[RecordingDecoder]:
    decoder = RecordingDecoder()
    yield decoder
    await asyncio.to_thread(decoder.close)


@pytest.fixture
def others() -> set[psutil.Process]:
    """Processes that were there before: servers of other tests have decoders of their own."""
    return {*psutil.Process().children()}


def process_beside(others: set[psutil.Process]) -> psutil.Process:
    """The one process that came since."""
    (child,) = {*psutil.Process().children()} - others
    assert child.cmdline()[-1] == RecordingDecoder.__module__
    return child


async def test_recordings_are_read_one_after_the_other(decoder: RecordingDecoder) -> None:
    lengths = await asyncio.gather(*(decoder.decode(recording(s), 10.0) for s in (0.5, 1.0, 2.0)))
    assert [samples.size for samples in lengths] == [8000, 16_000, 32_000]


async def test_a_file_is_refused_in_the_words_of_its_reader(decoder: RecordingDecoder) -> None:
    with pytest.raises(AudioError, match="it looks like JSON"):
        await decoder.decode(b'{"audio": 1}', 10.0)
    with pytest.raises(AudioError, match="at most 1 seconds"):
        await decoder.decode(recording(2.0), 1.0)
    assert (await decoder.decode(recording(), 10.0)).size == 16_000


async def test_it_gives_way_to_the_conversations(
    decoder: RecordingDecoder, others: set[psutil.Process]
) -> None:
    await decoder.decode(recording(), 10.0)
    process = process_beside(others)
    assert process.nice() == min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICE)
    # Linux weighs nice within a session alone, where it groups processes by session (autogroup).
    assert os.getsid(process.pid) == os.getsid(0)
    assert os.getpgid(process.pid) == process.pid, "what stops the server stops it, too"


async def test_a_file_may_take_so_much_time_and_memory_and_no_more(
    decoder: RecordingDecoder, others: set[psutil.Process]
) -> None:
    await decoder.decode(recording(), 10.0)
    process = process_beside(others)
    spent = process.cpu_times()
    seconds, _ = process.rlimit(psutil.RLIMIT_CPU)
    assert 0 < seconds - (spent.user + spent.system) <= CPU_SECONDS + 1
    assert process.rlimit(psutil.RLIMIT_AS)[0] == MEMORY


@pytest.mark.parametrize(
    ("seconds", "memory"),
    [(CPU_SECONDS * 100, MEMORY * 2), (CPU_SECONDS // 2, MEMORY // 2)],
    ids=["above", "below"],
)
async def test_hard_limits_that_the_server_runs_under_stay(
    decoder: RecordingDecoder,
    others: set[psutil.Process],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: int,
    memory: int,
) -> None:
    python = tmp_path / "python"
    limits = f"ulimit -t {seconds} && ulimit -v {memory >> 10}"
    python.write_text(f'#!/bin/sh\n{limits} && exec "{sys.executable}" "$@"\n')
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    assert (await decoder.decode(recording(), 10.0)).size == 16_000
    process = process_beside(others)
    assert process.rlimit(psutil.RLIMIT_AS) == (min(memory, MEMORY), memory)
    soft, hard = process.rlimit(psutil.RLIMIT_CPU)
    assert soft <= hard == seconds


async def test_a_file_that_ends_the_process_is_refused_and_the_next_one_is_read(
    decoder: RecordingDecoder, others: set[psutil.Process]
) -> None:
    await decoder.decode(recording(), 10.0)
    process = process_beside(others)
    process.send_signal(signal.SIGSTOP)
    waiting = asyncio.create_task(decoder.decode(recording(), 10.0))
    await asyncio.sleep(0.05)
    process.send_signal(signal.SIGKILL)  # as a fault in a C library would
    with pytest.raises(AudioError, match="cannot be decoded: send it as wav"):
        await waiting
    assert (await decoder.decode(recording(), 10.0)).size == 16_000


async def test_a_process_that_is_killed_while_idle_costs_no_file(
    decoder: RecordingDecoder, others: set[psutil.Process]
) -> None:
    await decoder.decode(recording(), 10.0)
    process = process_beside(others)
    process.kill()  # as Linux does where memory is short
    dead = os.WEXITED | os.WNOWAIT  # and left to the decoder to notice
    await asyncio.to_thread(os.waitid, os.P_PID, process.pid, dead)
    assert (await decoder.decode(recording(), 10.0)).size == 16_000
    assert process_beside(others) != process


async def test_a_mistake_of_ours_is_no_fault_of_the_file(decoder: RecordingDecoder) -> None:
    with pytest.raises(RuntimeError, match="decoding: "):
        await decoder.decode(flac(), float("inf"))  # no whole number of samples
