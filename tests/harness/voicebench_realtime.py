"""voicebench's way to a server of OpenAI's Realtime API: `voicebench_realtime:RealtimeAdapter`.

voicebench has adapters for plain PCM, LiveKit and pipecat, and takes others by name. This one knows
nothing of aqaa: it speaks the protocol as any client does.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from typing import Any, ClassVar

from voicebench import audio
from voicebench.adapters import Adapter, AdapterError, AgentAudio, AgentClear, Transcript
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

WIRE_RATE = 24_000  # Hz, the protocol's PCM16
OPEN_SECONDS = 10.0  # for a session to be there, as it was asked for
MAX_MESSAGE = 16 * 2**20  # bytes
SESSION = {
    "type": "realtime",
    "audio": {
        "input": {
            "turn_detection": {"type": "server_vad"},
            "transcription": {"model": "whisper-1"},
        }
    },
}


class RealtimeAdapter(Adapter):
    """One session, with server VAD and the user's words.

    When the server hears the user, what waits to be played is dropped, as a loudspeaker's client
    does. It sends no `conversation.item.truncate`: voicebench measures sound, not memory.

    Args:
        url: of the WebSocket, with the model in its query.
        api_key: the bearer's, where the server wants one.
    """

    name: ClassVar[str] = "realtime"

    def __init__(self, url: str, api_key: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._url = url
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._socket: ClientConnection | None = None
        self._reading: asyncio.Task[None] | None = None
        self._trouble: str | None = None

    async def connect(self) -> None:
        """Returns when the session is as it was asked for.

        Raises:
            AdapterError: nothing answers, or it refuses.
        """
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                self._socket = await connect(
                    self._url, additional_headers=self._headers, max_size=MAX_MESSAGE, proxy=None
                )
                await self._expect("session.created")
                await self._send({"type": "session.update", "session": SESSION})
                await self._expect("session.updated")
        except (OSError, TimeoutError, WebSocketException) as error:
            raise AdapterError(f"no session at {self._url}: {error}") from error
        self._reading = asyncio.create_task(self._read())

    async def send_audio(self, pcm: audio.FloatArray) -> None:
        """Send one frame, mono float32 at the scenario's rate.

        Raises:
            AdapterError: the session has ended, or the server has sent an error.
        """
        if self._trouble is not None:
            raise AdapterError(self._trouble)
        wire = audio.to_pcm16(audio.resample(pcm, self.session.sample_rate, WIRE_RATE))
        try:
            await self._send(
                {"type": "input_audio_buffer.append", "audio": base64.b64encode(wire).decode()}
            )
        except WebSocketException as error:
            raise AdapterError(f"the server closed the session: {error}") from error

    async def close(self) -> None:
        """End the session; what the server still says is not waited for."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    def describe(self) -> dict[str, Any]:
        """For voicebench's report, which must not hold the key."""
        return {"type": self.name, "url": self._url.partition("?")[0]}

    @property
    def _open(self) -> ClientConnection:
        if self._socket is None:
            raise AdapterError("not connected")
        return self._socket

    async def _send(self, event: dict[str, Any]) -> None:
        await self._open.send(json.dumps(event))

    async def _expect(self, kind: str) -> None:
        event = json.loads(await self._open.recv())
        if event["type"] != kind:
            raise AdapterError(f"the server sent {event} in place of {kind}")

    async def _read(self) -> None:
        try:
            async for message in self._open:
                self._take(json.loads(message))
        except WebSocketException as error:
            self._trouble = f"the server closed the session: {error}"

    def _take(self, event: dict[str, Any]) -> None:
        now = self.session.clock.now()
        match event["type"]:
            case "response.output_audio.delta":
                pcm = audio.from_pcm16(base64.b64decode(event["delta"]))
                heard = audio.resample(pcm, WIRE_RATE, self.session.sample_rate)
                self.emit(AgentAudio(heard, now))
            case "input_audio_buffer.speech_started":
                self.emit(AgentClear(now))
            case "conversation.item.input_audio_transcription.completed":
                self.emit(Transcript("user", event["transcript"], now))
            case "response.output_audio_transcript.done":
                self.emit(Transcript("agent", event["transcript"], now))
            case "error":
                self._trouble = f"the server answered: {event['error']['message']}"
