"""The small parts of a session: workers, playback clock, latency account, outbox, keys."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from aqaa.models.errors import CapacityError, UnauthorizedError
from aqaa.server.answering.playback import Playback
from aqaa.server.compute.workers import Workers
from aqaa.server.gateway.admission import Gate, Keys, offered
from aqaa.server.gateway.outbox import Outbox, Outgoing
from aqaa.server.observe.latency import STAGES, Timeline


class Held:
    """A job that keeps its thread until it is let go."""

    def __init__(self) -> None:
        self._taken = threading.Event()
        self._gate = threading.Event()

    def __call__(self) -> bool:
        self._taken.set()
        return self._gate.wait(30)

    async def taken(self) -> None:
        assert await asyncio.to_thread(self._taken.wait, 30)

    def let_go(self) -> None:
        self._gate.set()


async def test_the_most_urgent_job_is_taken_first() -> None:
    workers = Workers(1)
    held = Held()
    order: list[str] = []
    blocking = asyncio.create_task(workers.run(0, held))
    await held.taken()
    waiting = [
        asyncio.create_task(workers.run(deadline, order.append, name))
        for deadline, name in [(30, "late"), (10, "soon"), (20, "later")]
    ]
    await asyncio.sleep(0)  # each task puts its job
    assert workers.waiting() == 3
    held.let_go()
    await asyncio.gather(blocking, *waiting)
    workers.close()
    assert order == ["soon", "later", "late"]


async def test_long_jobs_leave_a_thread_to_short_ones() -> None:
    workers = Workers(2)
    held = Held()
    long = [asyncio.create_task(workers.run_long(0, held)) for _ in range(3)]
    await held.taken()
    assert await asyncio.wait_for(workers.run(9, lambda: "at once"), 30) == "at once"
    held.let_go()
    assert await asyncio.gather(*long) == [True] * 3
    workers.close()


async def test_the_wait_for_a_long_job_grows_with_those_before_it() -> None:
    workers = Workers(2)
    for _ in range(30):
        await workers.run_long(0, time.sleep, 0.02)
    assert workers.busy_for() == 0
    held = Held()
    long = [asyncio.create_task(workers.run_long(0, held)) for _ in range(3)]
    await held.taken()
    assert workers.busy_for() > 0.04, "three of about 20 ms each"
    held.let_go()
    await asyncio.gather(*long)
    workers.close()


async def test_a_single_thread_does_long_jobs_too() -> None:
    workers = Workers(1)
    assert await asyncio.wait_for(workers.run_long(0, lambda: "done"), 30) == "done"
    workers.close()


async def test_a_jobs_exception_comes_back_to_its_caller() -> None:
    workers = Workers(1)
    with pytest.raises(ZeroDivisionError):
        await workers.run(0, lambda: 1 // 0)
    assert await workers.run(0, lambda: "the thread goes on") == "the thread goes on"
    workers.close()


async def test_a_job_that_nobody_waits_for_is_never_begun() -> None:
    workers = Workers(1)
    held, done = Held(), []
    blocking = asyncio.create_task(workers.run(0, held))
    await held.taken()
    unwanted = asyncio.create_task(workers.run(1, done.append, "unwanted"))
    await asyncio.sleep(0)
    assert workers.waiting() == 1
    unwanted.cancel()
    await asyncio.gather(unwanted, return_exceptions=True)
    held.let_go()
    await blocking
    await workers.run(2, lambda: None)
    workers.close()
    assert done == []


def test_what_was_sent_is_heard_at_the_pace_of_sound() -> None:
    playback = Playback()
    playback.send(2.0, now=10.0)
    assert playback.heard(10.5) == pytest.approx(0.5)
    assert playback.heard(13.0) == pytest.approx(2.0)


def test_sound_that_comes_late_is_a_gap_and_is_heard_later() -> None:
    playback = Playback()
    playback.send(1.0, now=10.0)
    assert playback.send(1.0, now=11.5) == pytest.approx(0.5)
    assert playback.gaps == 1
    assert playback.heard(12.0) == pytest.approx(1.5)


def test_the_stages_of_a_turn_add_up_to_its_heard_latency() -> None:
    timeline = Timeline(
        speech_end=10.0,
        turn_end=10.5,
        tokenise=10.51,
        first_token=10.2,  # on speculation: before the turn was over
        first_group=10.3,
        first_sound=10.53,
        send=10.54,
    )
    stages = timeline.stages()
    assert stages["total"] == pytest.approx(540)
    assert sum(stages[name] for name in STAGES) == pytest.approx(stages["total"])
    assert stages["first_token"] == 0
    assert stages["first_sound"] == pytest.approx(20)


def test_a_turn_that_was_not_spoken_has_no_stages() -> None:
    assert Timeline(send=1.0).stages() == {}


async def test_an_outbox_that_is_not_read_overflows_and_forgets() -> None:
    outbox = Outbox(100)
    for _ in range(3):
        outbox.put(Outgoing("x" * 40))
    assert outbox.overflowed.is_set()
    outbox.put(Outgoing("y"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await outbox.get()


async def test_what_has_been_sent_makes_room() -> None:
    outbox = Outbox(100)
    for _ in range(10):
        outbox.put(Outgoing("x" * 90))
        outbox.sent(await outbox.get())
    await outbox.drained()
    assert not outbox.overflowed.is_set()


def test_without_configured_keys_anybody_may_come() -> None:
    assert Keys([]).check_key(None).name == Keys([]).check_key("whatever").name


def test_with_configured_keys_only_their_holders_may_come() -> None:
    keys = Keys(["one", "two"])
    assert keys.check_key("one").name != keys.check_key("two").name
    for wrong in (None, "", "three", "ek_forged"):
        with pytest.raises(UnauthorizedError):
            keys.check_key(wrong)
        with pytest.raises(UnauthorizedError):
            keys.check_session_key(wrong)


def test_an_ephemeral_secret_works_until_it_expires_for_its_owner() -> None:
    now = 1000.0
    keys = Keys(["one"], now=lambda: now)
    value, expires = keys.make_secret("key-0", 60, {"instructions": "x"})
    assert expires == 1060
    assert keys.check_session_key(value).name == "key-0"
    assert keys.check_session_key(value).session == {"instructions": "x"}
    now = 1061.0
    with pytest.raises(UnauthorizedError, match="expired"):
        keys.check_session_key(value)


def test_a_place_is_free_again_when_its_holder_leaves() -> None:
    gate = Gate(1, None)
    for _ in range(3):
        with gate.enter("a"), pytest.raises(CapacityError), gate.enter("b"):
            pass
    assert gate.inside() == 0


@pytest.mark.parametrize(
    ("protocols", "found"),
    [
        ([], (None, None)),
        (["realtime"], (None, "realtime")),
        (["realtime", "openai-insecure-api-key.k", "openai-beta.realtime-v1"], ("k", "realtime")),
    ],
)
def test_a_browsers_key_is_found_among_its_subprotocols(
    protocols: list[str], found: tuple[str | None, str | None]
) -> None:
    assert offered(protocols) == found
