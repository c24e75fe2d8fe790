"""nano does what it is told to: a spoken command, a function, a spoken answer, by stock clients.

All ask for the user's words, and show them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from agents import function_tool
from agents.realtime import RealtimeAgent, RealtimeRunner
from agents.realtime.items import RealtimeItem
from calling_clients import Place, Seen, livekit, openai_python, pipecat
from ears import hear, mentions
from javascript import talk
from wire_sound import RATE, in_real_time, pcm16, samples

pytestmark = pytest.mark.agents

# "Set a timer for five minutes.", by piper's voice joe, which nano was trained on.
COMMAND = Path(__file__).parent / "recordings" / "set-timer-joe.flac"
SECONDS = 90


async def test_a_spoken_command_is_carried_out_and_confirmed_aloud(server: str) -> None:
    calls: list[tuple[int, int, int]] = []

    @function_tool(strict_mode=False)
    def set_timer(hours: int = 0, minutes: int = 0, seconds: int = 0) -> str:
        """Start a timer."""
        calls.append((hours, minutes, seconds))
        return '{"ok":true}'

    @function_tool(strict_mode=False)
    def lock_door(door: str) -> str:
        """Lock a door."""
        raise AssertionError("nobody asked for it")

    agent = RealtimeAgent(name="house", tools=[set_timer, lock_door])
    url = server.replace("http", "ws", 1) + "/v1/realtime?model=nano"
    config: Any = {"url": url, "api_key": "unused"}
    sound, text, shown, sent, over = b"", "", "", "", False
    async with (
        asyncio.timeout(SECONDS),
        await RealtimeRunner(agent).run(model_config=config) as session,
    ):

        async def speak() -> None:
            async with aclosing(in_real_time(pcm16(COMMAND))) as pieces:
                async for piece in pieces:
                    await session.send_audio(piece)

        speaking = asyncio.create_task(speak())
        async for event in session:
            assert event.type != "error", event
            if event.type == "audio":
                sound += event.audio.data
            if event.type == "raw_model_event" and event.data.type == "transcript_delta":
                text += event.data.delta
            if event.type == "raw_model_event" and (
                event.data.type == "input_audio_transcription_completed"
            ):
                sent = event.data.transcript
            if event.type == "history_updated":
                shown = words_of_the_user(event.history)
            over = over or event.type == "audio_end"
            if over and shown:
                break
        speaking.cancel()
    assert calls == [(0, 5, 0)]
    assert mentions(text, ["five"]), text
    heard = hear(samples(sound), RATE)
    assert mentions(heard, ["timer"]), heard
    assert shown
    assert shown == sent


def words_of_the_user(history: Sequence[RealtimeItem]) -> str:
    """What openai-agents shows of what the user has said."""
    said = [item for item in history if item.type == "message" and item.role == "user"]
    parts = [part for item in said for part in item.content if part.type == "input_audio"]
    return " ".join(part.transcript for part in parts if part.transcript)


async def test_the_javascript_client_hears_it_confirmed_too(server: str, tmp_path: Path) -> None:
    url = server.replace("http", "ws", 1) + "/v1/realtime?model=nano"
    seen = await talk(url, tmp_path, turns=1, answers=2, said=pcm16(COMMAND))
    assert seen["errors"] == []
    assert seen["demoted"] == [], "events that its schema does not accept"
    assert seen["calls"] == [{"minutes": 5}]
    asked, call, answered = seen["history"]
    assert (asked["role"], call["type"], answered["role"]) == ("user", "function_call", "assistant")
    assert call["output"] == "ok"
    text = answered["content"][0]["transcript"]
    assert mentions(text, ["five"]), text
    heard = hear(samples(seen["sound"]), RATE)
    assert mentions(heard, ["timer"]), heard
    shown = asked["content"][0]["transcript"]
    assert shown
    assert shown == seen["sent"].get(asked["itemId"])


TIMER: dict[str, Any] = {
    "type": "function",
    "name": "set_timer",
    "description": "Start a timer.",
    "parameters": {
        "type": "object",
        "properties": {name: {"type": "integer"} for name in ("hours", "minutes", "seconds")},
    },
}


@pytest.mark.parametrize("client", [openai_python, pipecat, livekit])
async def test_other_clients_hear_it_confirmed_too(
    server: str, client: Callable[[Place], Awaitable[Seen]]
) -> None:
    seen = await client(Place(server, pcm16(COMMAND), TIMER, "five"))
    assert seen.calls == [{"minutes": 5}]
    assert mentions(seen.text, ["five"]), seen.text
    assert seen.asked
    assert seen.asked == seen.sent
