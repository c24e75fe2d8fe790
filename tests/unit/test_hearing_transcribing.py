"""A session's transcription: words in order, per item, whatever the recogniser's pace or fate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
import torch
from scripted import CountingTranscriber

from aqaa.server.compute.executor import Executor
from aqaa.server.hearing import transcribing
from aqaa.server.hearing.transcribing import Transcribing, Transcript, TurnWindows
from aqaa.tokenizers.funasr_encoder import EncoderState
from aqaa.tokenizers.transcriber import Piece, Tail, Window, WindowOrTail

LOUD = Window(torch.full((7, 1), 300.0), torch.zeros(2, 1))
END = Tail(EncoderState(0, torch.zeros(5, 1), 0, torch.zeros(0)))


class Listener:
    """Runs a `Transcribing` and keeps what it reports."""

    def __init__(self, transcriber: CountingTranscriber) -> None:
        self._reported = asyncio.Event()
        self.live_turn: int | None = None
        self.said: list[tuple[str | None, str]] = []
        self.over: list[tuple[str, str]] = []
        self._executor = Executor(1)
        self.transcribing = Transcribing(
            transcriber,
            self._executor,
            on_pieces=self._pieces,
            on_end=self._end,
            on_failure=lambda item: self._over(item, "failed"),
            is_live=lambda turn: turn == self.live_turn,
        )
        self._task = asyncio.create_task(self.transcribing.run())

    def _pieces(self, item: str | None, pieces: Sequence[Piece]) -> None:
        self.said.append((item, "".join(piece.text for piece in pieces)))
        self._reported.set()

    def _end(self, transcript: Transcript) -> None:
        self._over(transcript.item_id, f"completed after {transcript.seconds:.2f} s")

    def _over(self, item: str, how: str) -> None:
        self.over.append((item, how))
        self._reported.set()

    def hear(self, turn: int, *windows: WindowOrTail) -> None:
        self.transcribing.hear(TurnWindows(turn, windows))

    def end(self, item: str, turn: int | None, *windows: WindowOrTail) -> None:
        self.transcribing.end(item, TurnWindows(turn, windows))

    def pause(self, turn: int, *windows: WindowOrTail) -> TurnWindows:
        given = TurnWindows(turn, windows)
        self.transcribing.pause(given)
        return given

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self._reported.clear()
                await self._reported.wait()

    async def recognised(self) -> None:
        """Until all that it was given is, though nothing of it is told."""

        def waits() -> bool:
            turns = self.transcribing._turns
            return any(turn.windows or turn.pauses or turn.busy for turn in turns)

        async with asyncio.timeout(5):
            while waits():  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def finished(self, count: int) -> None:
        await self.until(lambda: len(self.over) >= count)

    def text(self, item: str | None) -> str:
        return "".join(text for one, text in self.said if one == item)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._executor.close()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    listener = Listener(CountingTranscriber())
    yield listener
    await listener.close()


async def test_a_turns_words_are_held_until_it_is_an_item_and_then_told_whole(
    listener: Listener,
) -> None:
    listener.hear(1, LOUD, LOUD)
    listener.hear(1, LOUD)
    await listener.recognised()
    assert listener.said == []
    listener.end("item", 1, LOUD, END)
    await listener.finished(1)
    assert listener.text("item") == "one two three four"
    assert len(listener.said) == 2, "what was known when the turn ended, then the rest"
    assert listener.over == [("item", "completed after 0.48 s")]


async def test_a_pause_that_is_the_end_has_its_last_words_already(listener: Listener) -> None:
    listener.hear(1, LOUD, LOUD)
    given = listener.pause(1, LOUD, END)
    await listener.recognised()
    assert listener.said == []
    listener._executor.close()  # nobody works any more
    listener.transcribing.end("item", given)
    await listener.finished(1)
    assert listener.text("item") == "one two three"
    assert listener.over == [("item", "completed after 0.36 s")]


async def test_a_pause_that_is_not_the_end_leaves_nothing(listener: Listener) -> None:
    listener.hear(1, LOUD)
    listener.pause(1, END)
    await listener.recognised()
    listener.pause(1, LOUD, END)
    listener.hear(1, LOUD, LOUD)
    await listener.recognised()
    listener.pause(1, LOUD, END)
    listener.end("item", 1, LOUD, LOUD, END)
    await listener.finished(1)
    assert listener.text("item") == "one two three four five"
    assert listener.over == [("item", "completed after 0.60 s")]


async def test_a_pause_in_a_turn_that_has_failed_is_nothing() -> None:
    listener = Listener(CountingTranscriber(RuntimeError("out of memory")))
    listener.hear(1, LOUD)
    given = listener.pause(1, LOUD, END)
    await listener.recognised()
    listener.transcribing.end("bad", given)
    await listener.finished(1)
    assert listener.over == [("bad", "failed")]
    await listener.close()


async def test_live_words_are_told_at_once_and_only_once(listener: Listener) -> None:
    listener.live_turn = 1
    listener.hear(1, LOUD, LOUD, LOUD)
    await listener.until(lambda: bool(listener.said))
    assert listener.text(None) == "one two"
    listener.end("item", 1, END)
    await listener.finished(1)
    assert listener.text("item") == " three"


async def test_turns_and_recordings_are_done_as_they_began_each_with_its_own_words(
    listener: Listener,
) -> None:
    listener.hear(1, LOUD)
    listener.end("first", 1, END)
    listener.end("recording", None, LOUD, LOUD, LOUD, END)
    listener.hear(2, LOUD)
    listener.end("silence", None)
    listener.end("second", 2, LOUD, END)
    await listener.finished(4)
    assert [item for item, _ in listener.over] == ["first", "recording", "second", "silence"]
    assert listener.text("first") == "one"
    assert listener.text("recording") == "one two three"
    assert listener.text("silence") == ""
    assert listener.text("second") == "one two"


async def test_a_turn_that_never_became_an_item_leaves_nothing(listener: Listener) -> None:
    listener.hear(1, LOUD, LOUD)
    listener.hear(2, LOUD)
    listener.end("item", 2, END)
    await listener.finished(1)
    assert listener.said == [("item", "one")]


async def test_a_recogniser_that_fails_fails_that_turn_alone() -> None:
    transcriber = CountingTranscriber(RuntimeError("out of memory"))
    listener = Listener(transcriber)
    listener.hear(1, LOUD)
    await listener.recognised()
    listener.end("bad", 1, LOUD, END)
    await listener.finished(1)
    transcriber.fault = None
    listener.end("good", 2, LOUD, END)
    await listener.finished(2)
    assert listener.over == [("bad", "failed"), ("good", "completed after 0.12 s")]
    assert listener.text("good") == "one"
    await listener.close()


async def test_what_waits_is_bounded(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcribing, "MOST_WAITING", 3)
    listener.hear(1, LOUD, LOUD, LOUD, LOUD)
    listener.hear(1, LOUD)
    listener.end("long", 1, END)
    listener.end("short", 2, LOUD, END)
    await listener.finished(2)
    assert listener.over == [("long", "failed"), ("short", "completed after 0.12 s")]
