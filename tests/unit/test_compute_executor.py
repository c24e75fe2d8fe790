"""One rule of order, batches of what waits, and nothing computed that nobody wants."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import ContextVar
from functools import partial

import pytest

from aqaa.server.compute.executor import Executor
from aqaa.server.compute.model import Model, Work, compute_alone, work_of
from aqaa.server.urgency import SHIFT_SECONDS, Kind

WAIT = 30.0  # seconds before a hung test is given up; never reached when all is well
NOW = 1000.0


class Recorder:
    """A batch function that keeps its batches; its first run lasts until it is released."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.running = threading.Event()
        self.release = threading.Event()

    def __call__(self, values: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(values))
        if len(self.batches) == 1:
            self.running.set()
            assert self.release.wait(WAIT)
        if -1 in values:
            raise ValueError("a bad batch")
        return [ValueError("a bad value") if value == -2 else value * 10 for value in values]

    async def begun(self) -> None:
        assert await asyncio.to_thread(self.running.wait, WAIT)


class Clock:
    """Moves when a model takes its time."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> list[int]:
        """A batch of one that takes so long."""
        self.now += seconds
        return [0]


@pytest.fixture
async def executor() -> AsyncIterator[Executor]:
    executor = Executor(1, clock=lambda: NOW)
    yield executor
    executor.close()


def model(run: Recorder, *, max_batch: int = 8, heavy: bool = True) -> Model[int, int]:
    return Model("test", run, shape_of=lambda value: value % 2, max_batch=max_batch, heavy=heavy)


async def behind_a_slow_one(
    executor: Executor, jobs: Sequence[tuple[int, Kind, float]], *, max_batch: int = 8
) -> tuple[Recorder, list[object]]:
    """Run value 0, let all `jobs` gather while it runs, then release it; their outcomes."""
    run = Recorder()
    tested = model(run, max_batch=max_batch)
    first = executor.submit(tested.ask(0), Kind.LIVE, NOW)
    await run.begun()
    waiting = [executor.submit(tested.ask(value), kind, due) for value, kind, due in jobs]
    run.release.set()
    futures = [first.future, *(job.future for job in waiting)]
    async with asyncio.timeout(WAIT):
        return run, (await asyncio.gather(*futures, return_exceptions=True))[1:]


async def test_everybody_gets_his_own_result(executor: Executor) -> None:
    jobs = [(value, Kind.LIVE, NOW) for value in (2, 3, 4, 5)]
    _, results = await behind_a_slow_one(executor, jobs)
    assert results == [20, 30, 40, 50]


async def test_a_batch_is_the_most_urgent_call_and_all_of_its_shape_that_wait(
    executor: Executor,
) -> None:
    jobs = [(2, Kind.LIVE, NOW + 2), (3, Kind.LIVE, NOW + 1), (4, Kind.FIRST, NOW + 3)]
    run, _ = await behind_a_slow_one(executor, [*jobs, (5, Kind.LIVE, NOW + 4)])
    assert run.batches == [[0], [3, 5], [2, 4]]


async def test_a_batch_is_no_larger_than_its_model_allows(executor: Executor) -> None:
    jobs = [(value, Kind.LIVE, NOW) for value in (2, 4, 6)]
    run, _ = await behind_a_slow_one(executor, jobs, max_batch=2)
    assert run.batches == [[0], [2, 4], [6]]


async def test_kinds_shift_deadlines(executor: Executor) -> None:
    jobs = [
        (2, Kind.BULK, NOW - 5),
        (4, Kind.SPECULATIVE, NOW),
        (6, Kind.FIRST, NOW),
        (8, Kind.LIVE, NOW + 0.1),
        (10, Kind.LIVE, NOW + 0.3),
        (12, Kind.LIVE, NOW + 3.0),
    ]
    run, _ = await behind_a_slow_one(executor, jobs, max_batch=1)
    assert run.batches == [[0], [8], [6], [10], [4], [12], [2]]


async def test_what_is_heard_what_may_be_wanted_and_downloads_never_share_a_batch(
    executor: Executor,
) -> None:
    jobs = [(2, Kind.SPECULATIVE, NOW), (4, Kind.LIVE, NOW), (6, Kind.BULK, NOW)]
    run, _ = await behind_a_slow_one(executor, jobs)
    assert run.batches == [[0], [4], [2], [6]]


async def test_what_nobody_wants_yet_begins_beside_heavy_wanted_work_only_once_it_is_overdue() -> (
    None
):
    clock = Clock()
    executor = Executor(3, clock=clock)
    sound, download = Recorder(), Recorder()
    download.release.set()
    sounding = executor.submit(model(sound).ask(0), Kind.FIRST, NOW)
    await sound.begun()

    async def asked_again() -> list[list[int]]:
        return await executor.run(work_of(lambda: list(download.batches)), Kind.LIVE, NOW + 99)

    bulk = executor.submit(model(download, heavy=False).ask(0), Kind.BULK, NOW)
    assert await asked_again() == []
    clock.now += SHIFT_SECONDS[Kind.BULK]
    executor.change(bulk, Kind.BULK, NOW)
    await bulk.future
    sound.release.set()
    await sounding.future
    executor.close()


async def test_work_that_becomes_wanted_overtakes(executor: Executor) -> None:
    run = Recorder()
    tested = model(run, max_batch=1)
    first = executor.submit(tested.ask(0), Kind.LIVE, NOW)
    await run.begun()
    live = executor.submit(tested.ask(2), Kind.LIVE, NOW + 1)
    speculation = executor.submit(tested.ask(4), Kind.SPECULATIVE, NOW)
    executor.change(speculation, Kind.FIRST, NOW)
    run.release.set()
    await asyncio.gather(first.future, live.future, speculation.future)
    assert run.batches == [[0], [4], [2]]


async def test_work_that_comes_at_once_has_all_threads_that_it_needs() -> None:
    together = threading.Barrier(4)
    meet = Model[int, int]("meet", lambda values: [together.wait(timeout=10)])
    executor = Executor(4)
    for _ in range(50):  # whichever thread is woken first
        found = await asyncio.gather(*(executor.run(meet.ask(0), Kind.LIVE) for _ in range(4)))
        assert sorted(found) == [0, 1, 2, 3]
    await asyncio.to_thread(executor.close)


async def test_a_failed_batch_reaches_all_of_it_and_nobody_else(executor: Executor) -> None:
    jobs = [(value, Kind.LIVE, NOW) for value in (-1, 2, 3)]  # -1 and 3 are odd
    _, results = await behind_a_slow_one(executor, jobs)
    assert isinstance(results[0], ValueError)
    assert isinstance(results[2], ValueError)
    assert results[1] == 20


async def test_a_bad_value_is_told_to_whoever_asked_and_spares_its_batch(
    executor: Executor,
) -> None:
    jobs = [(value, Kind.LIVE, NOW) for value in (-2, 2)]
    run, results = await behind_a_slow_one(executor, jobs)
    assert run.batches == [[0], [-2, 2]]
    assert isinstance(results[0], ValueError)
    assert results[1] == 20


async def test_cancelled_work_is_not_computed_wherever_it_waits(executor: Executor) -> None:
    run = Recorder()
    tested = model(run, max_batch=1)
    first = executor.submit(tested.ask(0), Kind.LIVE, NOW)
    await run.begun()
    waiting = [executor.submit(tested.ask(v), Kind.LIVE, NOW + v) for v in (2, 4, 6)]
    waiting[1].future.cancel()
    await asyncio.sleep(0)
    assert executor.waiting() == 2
    run.release.set()
    await asyncio.gather(first.future, waiting[0].future, waiting[2].future)
    assert run.batches == [[0], [2], [6]]


async def test_work_in_slices_returns_to_the_queue_after_each(executor: Executor) -> None:
    run = Recorder()
    tested = model(run, max_batch=1)

    def recording() -> Work[int]:
        total = 0
        for value in (0, 2, 4):
            total += yield from tested.ask(value)
        return total

    bulk = executor.submit(recording(), Kind.BULK)
    await run.begun()  # its first slice
    live = executor.submit(tested.ask(100), Kind.LIVE, NOW)
    run.release.set()
    assert await live.future == 1000
    assert await bulk.future == 60
    assert run.batches == [[0], [100], [2], [4]]


async def test_what_comes_while_a_model_runs_once_at_a_time_is_its_next_batch() -> None:
    executor = Executor(4, clock=lambda: NOW)
    run = Recorder()
    card: Model[int, int] = Model("card", run, max_batch=8, at_once=1)
    jobs = [executor.submit(card.ask(0), Kind.LIVE, NOW)]
    await run.begun()
    jobs += [executor.submit(card.ask(value), Kind.LIVE, NOW) for value in (1, 2, 3)]
    async with asyncio.timeout(WAIT):
        assert await executor.run(work_of(lambda: 7), Kind.LIVE, NOW) == 7  # a thread is free
        assert run.batches == [[0]]
        run.release.set()
        assert await asyncio.gather(*(job.future for job in jobs)) == [0, 10, 20, 30]
    assert run.batches == [[0], [1, 2, 3]]
    executor.close()


async def test_a_thread_is_left_to_light_calls_and_to_wanted_work() -> None:
    executor = Executor(2, clock=lambda: NOW)
    heavy, light = Recorder(), Recorder()
    slow, quick = model(heavy, max_batch=1), model(light, heavy=False)
    jobs = [executor.submit(slow.ask(v), Kind.LIVE, NOW) for v in (0, 2)]
    await heavy.begun()
    light.release.set()
    async with asyncio.timeout(WAIT):
        assert await executor.run(quick.ask(2), Kind.FIRST, NOW + 9) == 20
    assert heavy.batches == [[0]]
    heavy.release.set()
    await asyncio.gather(*(job.future for job in jobs))
    executor.close()

    executor = Executor(2, clock=lambda: NOW)
    bulk, wanted = Recorder(), Recorder()
    jobs = [executor.submit(model(bulk, heavy=False).ask(v), Kind.BULK) for v in (0, 2)]
    await bulk.begun()
    wanted.release.set()
    async with asyncio.timeout(WAIT):
        assert await executor.run(model(wanted).ask(2), Kind.LIVE, NOW + 9) == 20
    bulk.release.set()
    await asyncio.gather(*(job.future for job in jobs))
    executor.close()


@pytest.mark.parametrize("threads", [3, 8])
async def test_wanted_sound_does_not_wait_for_sound_that_nobody_wants_and_hearing_for_neither(
    threads: int,
) -> None:
    executor = Executor(threads, clock=lambda: NOW)
    unwanted, wanted, heard = Recorder(), Recorder(), Recorder()
    jobs = []
    for run, kind in ((unwanted, Kind.SPECULATIVE), (wanted, Kind.FIRST)):
        sound = model(run, max_batch=1)
        jobs += [executor.submit(sound.ask(0), kind, NOW) for _ in range(threads)]
        await run.begun()
    heard.release.set()
    async with asyncio.timeout(WAIT):
        assert await executor.run(model(heard, heavy=False).ask(2), Kind.FIRST, NOW + 9) == 20
    unwanted.release.set()
    wanted.release.set()
    await asyncio.gather(*(job.future for job in jobs))
    executor.close()


async def test_the_delay_counts_what_goes_first_and_nothing_else() -> None:
    clock = Clock()
    executor = Executor(1, clock=clock)
    slow = Model[int, int]("slow", lambda values: clock.passes(0.02), heavy=True)
    for _ in range(3):
        await executor.run(slow.ask(0), Kind.LIVE, NOW)
    assert executor.delay(Kind.FIRST, NOW) == 0
    blocked = Recorder()
    first = executor.submit(model(blocked).ask(0), Kind.LIVE, NOW)
    await blocked.begun()
    jobs = [executor.submit(slow.ask(0), Kind.LIVE, NOW) for _ in range(3)]
    jobs += [executor.submit(slow.ask(0), Kind.BULK) for _ in range(30)]
    blocked_again = Recorder()
    again = executor.submit(model(blocked_again).ask(0), Kind.LIVE, NOW - 9)
    blocked.release.set()
    await first.future
    await blocked_again.begun()
    delay = executor.delay(Kind.FIRST, NOW)
    blocked_again.release.set()
    await asyncio.gather(again.future, *(job.future for job in jobs))
    await asyncio.to_thread(executor.close)
    assert delay == pytest.approx(3 * 0.02), "thirty slices of a download are not in the way"


async def test_an_exception_comes_back_and_the_thread_goes_on(executor: Executor) -> None:
    with pytest.raises(ZeroDivisionError):
        await executor.run(work_of(lambda: 1 // 0), Kind.FIRST, NOW)
    assert await executor.run(work_of(lambda: "on"), Kind.FIRST, NOW) == "on"


async def test_a_value_without_a_shape_fails_its_work_and_the_thread_goes_on(
    executor: Executor,
) -> None:
    shapeless = Model[int, int]("shapeless", list, shape_of=lambda value: 1 // value)
    with pytest.raises(ZeroDivisionError):
        await executor.run(shapeless.ask(0), Kind.FIRST, NOW)
    assert await executor.run(shapeless.ask(1), Kind.FIRST, NOW) == 1


async def test_what_runs_in_a_thread_knows_whose_it_is(executor: Executor) -> None:
    session: ContextVar[str] = ContextVar("session", default="-")
    asks = Model[None, str]("asks", lambda values: [session.get() for _ in values])

    def both() -> Work[tuple[str, str]]:
        return session.get(), (yield from asks.ask(None))

    session.set("sess_7")
    assert await executor.run(both(), Kind.FIRST, NOW) == ("sess_7", "sess_7")


async def test_closing_drops_what_waits() -> None:
    executor = Executor(1, clock=lambda: NOW)
    run = Recorder()
    first = executor.submit(model(run).ask(0), Kind.LIVE, NOW)
    await run.begun()
    second = executor.submit(model(run).ask(2), Kind.LIVE, NOW)
    closing = asyncio.create_task(asyncio.to_thread(executor.close))
    await asyncio.wait([second.future])  # that it is cancelled tells that closing has begun
    run.release.set()
    await closing
    await asyncio.gather(first.future, second.future, return_exceptions=True)
    assert second.future.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        executor.submit(model(run).ask(4), Kind.LIVE, NOW)


async def test_outcomes_that_come_at_once_wake_the_event_loop_once(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    wakings: list[object] = []
    wake = loop.call_soon_threadsafe

    def counted(call: Callable[[], None]) -> asyncio.Handle:
        wakings.append(call)
        return wake(call)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    jobs = [executor.submit(work_of(partial(int, n)), Kind.FIRST) for n in range(5)]
    last = threading.Event()
    jobs.append(executor.submit(work_of(last.set), Kind.FIRST))
    assert last.wait(WAIT)  # the event loop stands still, and takes none before all are there
    assert len(wakings) == 1
    async with asyncio.timeout(WAIT):
        outcomes = await asyncio.gather(*(job.future for job in jobs))
    assert outcomes == [0, 1, 2, 3, 4, None]


async def test_measurements_are_taken() -> None:
    batches: list[tuple[str, int]] = []
    slacks: list[tuple[str, float]] = []

    class Meter:
        def batch(self, model: str, size: int, seconds: float) -> None:
            batches.append((model, size))

        def done(self, kind: str, slack: float) -> None:
            slacks.append((kind, slack))

    executor = Executor(1, clock=lambda: NOW, meters=[Meter()])
    run = Recorder()
    run.release.set()
    await executor.run(model(run).ask(2), Kind.LIVE, NOW + 3)
    await executor.run(model(run).ask(2), Kind.BULK)
    await asyncio.to_thread(executor.close)
    assert batches == [("test", 1), ("test", 1)]
    assert slacks == [("live", 3.0)]


async def test_what_a_call_takes_is_measured_and_the_first_slow_one_is_forgotten() -> None:
    clock = Clock()
    durations = iter([0.2, 0.01, 0.03])
    slow = Model[int, int]("slow", lambda values: clock.passes(next(durations)), max_batch=1)
    executor = Executor(1, clock=clock)
    assert executor.seconds(slow) == 0.0
    await executor.run(slow.ask(0), Kind.LIVE)
    assert executor.seconds(slow) == pytest.approx(0.2)
    for _ in range(2):
        await executor.run(slow.ask(0), Kind.LIVE)
    await asyncio.to_thread(executor.close)  # all is counted by now
    assert executor.seconds(slow) == pytest.approx(0.02)


async def test_a_call_of_many_parts_does_not_make_the_shortest_look_slow() -> None:
    clock = Clock()
    parts = Model[int, int]("parts", lambda values: clock.passes(0.01 * sum(values)), size_of=float)
    executor = Executor(1, clock=clock)
    for size in (1, 1, 30, 4):
        await executor.run(parts.ask(size), Kind.LIVE)
    await asyncio.to_thread(executor.close)  # all is counted by now
    assert executor.seconds(parts) == pytest.approx(0.01)


def test_work_can_be_computed_on_the_spot() -> None:
    run = Recorder()
    run.release.set()
    assert compute_alone(model(run).ask(3)) == 30
    with pytest.raises(ValueError, match="bad value"):
        compute_alone(model(run).ask(-2))
