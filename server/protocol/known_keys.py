"""Which keys a session and a response may have: a wrong or an old name is an error, not silence."""

from __future__ import annotations

from aqaa.server.protocol.errors import ProtocolError
from aqaa.server.protocol.session_types import InputAudio, OutputAudio, Session, SessionAudio
from aqaa.server.protocol.types import (
    Json,
    ResponseAudioOverride,
    ResponseOptions,
    ResponseOutputOverride,
)

# GA's keys that this server has no use for.
UNUSED = {"tracing", "prompt", "parallel_tool_calls", "reasoning", "client_secret"}
KNOWN = {
    "session": {*Session.model_fields, *UNUSED},
    "session.audio": {*SessionAudio.model_fields},
    "session.audio.input": {*InputAudio.model_fields},
    "session.audio.output": {*OutputAudio.model_fields},
    "response": {*ResponseOptions.model_fields, *UNUSED, "tools", "tool_choice"},
    "response.audio": {*ResponseAudioOverride.model_fields},
    "response.audio.output": {*ResponseOutputOverride.model_fields, "speed"},
}
# The beta's names, and what they are called now.
RENAMED = {
    "modalities": "output_modalities",
    "voice": "audio.output.voice",
    "speed": "audio.output.speed",
    "input_audio_format": "audio.input.format",
    "output_audio_format": "audio.output.format",
    "input_audio_transcription": "audio.input.transcription",
    "input_audio_noise_reduction": "audio.input.noise_reduction",
    "turn_detection": "audio.input.turn_detection",
    "max_response_output_tokens": "max_output_tokens",
}


def check_keys(given: Json, path: str) -> None:
    """Refuse keys of `session` or `response` that mean nothing.

    Raises:
        ProtocolError: names the key, and what it is called now if the beta knew it.
    """
    for key, value in given.items():
        here = f"{path}.{key}"
        if key not in KNOWN[path]:
            now = RENAMED.get(key)
            message = f"unknown parameter {here!r}"
            if now is not None:
                message += (
                    f": it is {path}.{now} (the beta's names need `OpenAI-Beta: realtime=v1`)"
                )
            raise ProtocolError("unknown_parameter", message[:1024], here[:512])
        if here in KNOWN and isinstance(value, dict):
            check_keys(value, here)
