"""What this server does with each field of OpenAI's Realtime API.

A key names a field, or what fields are in: the longest one wins. One that ends with a star is a
single line of the document.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Verdict:
    """What is done with a field.

    Attributes:
        word: `yes`: obeyed; `echo`: shown as it was sent, and without effect; `taken`: neither
            shown nor an error; `refuse`: an `error` event, and the session goes on.
        note: what else there is to say.
        shown: whether the setting or item that comes back has it as it was sent.
    """

    word: Literal["yes", "echo", "taken", "refuse"]
    note: str = ""
    shown: bool = True


YES = Verdict("yes")
ECHO = Verdict("echo")
ANY_RATE = Verdict("yes", "any rate from 8000 to 192000")
ONE_RECOGNISER = Verdict("echo", "one recogniser serves every wish")
LIVE_OR_NOT = Verdict(
    "yes", "one recogniser serves every model; a live one's words come before the commit"
)
WHOLE = Verdict("taken", "an item that a client brings is `completed`")
NO_ANSWERS = Verdict("echo", "nothing is answered")
CALLS = Verdict("yes", "by a bundle with `[tools]`")
NOT_SHOWN = Verdict("yes", "not shown, as by OpenAI", shown=False)
NO_MCP = Verdict("refuse", "there is no MCP")
NO_EYES = Verdict("refuse", "the model has no eyes")

LISTENING = "session.update session(transcription).audio.input"

CLIENT = {
    "conversation.item.create": YES,
    "conversation.item.create item(message system).object": ECHO,
    "conversation.item.create item(message system).status": WHOLE,
    "conversation.item.create item(message user).object": ECHO,
    "conversation.item.create item(message user).status": WHOLE,
    "conversation.item.create item(message user).content[].audio": Verdict("yes", shown=False),
    "conversation.item.create item(message user).content[].detail": NO_EYES,
    "conversation.item.create item(message user).content[].image_url": NO_EYES,
    "conversation.item.create item(message assistant).object": ECHO,
    "conversation.item.create item(message assistant).status": WHOLE,
    "conversation.item.create item(message assistant).content[].audio": Verdict(
        "taken", "what the model knows of it is its transcript"
    ),
    "conversation.item.create item(function_call)*": CALLS,
    "conversation.item.create item(function_call_output)*": CALLS,
    "conversation.item.create item(mcp_approval_response)*": NO_MCP,
    "conversation.item.create item(mcp_list_tools)*": NO_MCP,
    "conversation.item.create item(mcp_call)*": NO_MCP,
    "conversation.item.create item(mcp_approval_request)*": NO_MCP,
    "conversation.item.delete": YES,
    "conversation.item.retrieve": YES,
    "conversation.item.truncate": YES,
    "conversation.item.truncate audio_end_ms": Verdict("yes", "up to 2 s past the end is clamped"),
    "input_audio_buffer.append": YES,
    "input_audio_buffer.append audio": Verdict("yes", "cut anywhere, in a sample too"),
    "input_audio_buffer.clear": YES,
    "input_audio_buffer.commit": YES,
    "output_audio_buffer.clear": Verdict("refuse", "is WebRTC's and SIP's"),
    "response.cancel": YES,
    "response.create": YES,
    "response.create response.audio.output.format(audio/pcm).rate": ANY_RATE,
    "response.create response.audio.output.voice": Verdict(
        "yes", "that of the session once it has spoken"
    ),
    "response.create response.audio.output.voice.id": Verdict("yes", shown=False),
    "response.create response.conversation": Verdict("yes", "`auto` and `none`"),
    "response.create response.input[](message system)*": YES,
    "response.create response.input[](message user)*": YES,
    "response.create response.input[](message user).content[].detail": NO_EYES,
    "response.create response.input[](message user).content[].image_url": NO_EYES,
    "response.create response.input[](message assistant)*": YES,
    "response.create response.input[](function_call)*": CALLS,
    "response.create response.input[](function_call_output)*": CALLS,
    "response.create response.input[](mcp_approval_response)*": NO_MCP,
    "response.create response.input[](mcp_list_tools)*": NO_MCP,
    "response.create response.input[](mcp_call)*": NO_MCP,
    "response.create response.input[](mcp_approval_request)*": NO_MCP,
    "response.create response.parallel_tool_calls": CALLS,
    "response.create response.prompt*": Verdict("taken", "no prompts are kept here"),
    "response.create response.reasoning.effort": Verdict("taken", "the model does not reason"),
    "response.create response.tool_choice": CALLS,
    "response.create response.tool_choice(mcp)*": NO_MCP,
    "response.create response.tools": CALLS,
    "response.create response.tools[](mcp)*": NO_MCP,
    "session.update": YES,
    "session.update session(realtime).audio.input.format(audio/pcm).rate": ANY_RATE,
    "session.update session(realtime).audio.input.transcription": ONE_RECOGNISER,
    "session.update session(realtime).audio.input.transcription.model": LIVE_OR_NOT,
    "session.update session(realtime).audio.output.format(audio/pcm).rate": ANY_RATE,
    "session.update session(realtime).audio.output.speed": Verdict("yes", "0.5 to 2.0"),
    "session.update session(realtime).audio.output.voice": Verdict(
        "yes", "the bundle's; OpenAI's names mean its default voice"
    ),
    "session.update session(realtime).audio.output.voice.id": Verdict(
        "yes", "shown by its name", shown=False
    ),
    "session.update session(realtime).model": Verdict("taken", "shown is what is served"),
    "session.update session(realtime).parallel_tool_calls": NOT_SHOWN,
    "session.update session(realtime).prompt": Verdict("echo", "no prompts are kept here"),
    "session.update session(realtime).reasoning": Verdict("echo", "the model does not reason"),
    "session.update session(realtime).tool_choice": CALLS,
    "session.update session(realtime).tool_choice(mcp)*": NO_MCP,
    "session.update session(realtime).tools": CALLS,
    "session.update session(realtime).tools[](mcp)*": NO_MCP,
    "session.update session(realtime).tracing": Verdict("echo", "no traces are shown here"),
    f"{LISTENING}.format(audio/pcm).rate": ANY_RATE,
    f"{LISTENING}.transcription": ONE_RECOGNISER,
    f"{LISTENING}.transcription.model": LIVE_OR_NOT,
    f"{LISTENING}.turn_detection(server_vad).create_response": NO_ANSWERS,
    f"{LISTENING}.turn_detection(server_vad).interrupt_response": NO_ANSWERS,
    f"{LISTENING}.turn_detection(server_vad).idle_timeout_ms": NO_ANSWERS,
    f"{LISTENING}.turn_detection(semantic_vad).create_response": NO_ANSWERS,
    f"{LISTENING}.turn_detection(semantic_vad).interrupt_response": NO_ANSWERS,
}

# What the session of `test_protocol_conformance` knows by these names.
USER_ITEM, ANSWER, RUNNING = "item_of_the_user", "item_of_the_answer", "running_response"

WRITTEN = [{"type": "input_text", "text": "x"}]

# Values for fields, by `event path`, path or name.
SAMPLES: dict[str, Any] = {
    "annotations": {},
    "arguments": "{}",
    "audio": "AAAA",
    "audio_end_ms": 0,
    "call_id": "call_1",
    "code": 1,
    "content": WRITTEN,
    "content_index": 0,
    "conversation.item.truncate item_id": ANSWER,
    "event_id": "event_of_the_client",
    "headers": {"a": "b"},
    "idle_timeout_ms": 6000,
    "input_schema": {},
    "item_id": USER_ITEM,
    "item(message user).content[].type": "input_text",
    "response.input[](message user).content[].type": "input_text",
    "item(message assistant).content": [{"type": "output_text", "text": "x"}],
    "max_output_tokens": 100,
    "metadata": {"a": "b"},
    "parameters": {"type": "object", "properties": {}},
    "post_instructions": 500,
    "prefix_padding_ms": 200,
    "previous_item_id": USER_ITEM,
    "response_id": RUNNING,
    "response.audio.output.voice": "amy",
    "response.audio.output.voice.id": "amy",
    "response.conversation": "none",
    "response.input[](message assistant).content": [{"type": "output_text", "text": "x"}],
    "retention_ratio": 0.5,
    "response.tool_choice(function).name": "f",
    "session(realtime).tool_choice(function).name": "f",
    "session(realtime).audio.output.voice": "amy",
    "session(realtime).audio.output.voice.id": "amy",
    "silence_duration_ms": 400,
    "speed": 1.25,
    "strength": 0.5,
    "threshold": 0.6,
    "variables": {"a": "b"},
}

# Keys that go with a field, by the end of its path: OpenAI's types leave open which these are.
COMPANIONS: dict[str, dict[str, Any]] = {
    "(message system).content[].text": {"type": "input_text"},
    "(message user).content[].audio": {"type": "input_audio"},
    "(message user).content[].detail": {"type": "input_image", "image_url": "data:,"},
    "(message user).content[].image_url": {"type": "input_image"},
    "(message user).content[].text": {"type": "input_text"},
    "(message user).content[].transcript": {"type": "input_audio"},
    "(message user).content[].type": {"text": "x"},
    "(message assistant).content[].audio": {"type": "output_audio"},
    "(message assistant).content[].text": {"type": "output_text"},
    "(message assistant).content[].transcript": {"type": "output_audio"},
    "(message assistant).content[].type": {"text": "x"},
}

# What an object must have though OpenAI's types leave it open, by the end of its path.
NEEDED: dict[str, dict[str, Any]] = {".tools[](function)": {"name": "f"}}

SENT = {
    "conversation.item.retrieved": "with the sound of the newest items: of the user as the model"
    " heard it, of the assistant as far as it was heard",
    "rate_limits.updated": "an empty list: sessions are counted, not tokens",
}

NO_MCP_HERE, NO_CALL_HERE = "there is no MCP", "there are no calls here"
NEVER_SENT = {
    "conversation.created": "nor by OpenAI's GA service",
    "conversation.item.created": "the beta's; it is sent to those who speak the beta",
    "conversation.item.input_audio_transcription.segment": "speakers are not told apart",
    "input_audio_buffer.dtmf_event_received": NO_CALL_HERE,
    "output_audio_buffer.started": NO_CALL_HERE,
    "output_audio_buffer.stopped": NO_CALL_HERE,
    "output_audio_buffer.cleared": NO_CALL_HERE,
    **{f"mcp_list_tools.{state}": NO_MCP_HERE for state in ("in_progress", "completed", "failed")},
    **{
        f"response.mcp_call.{state}": NO_MCP_HERE
        for state in ("in_progress", "completed", "failed")
    },
    "response.mcp_call_arguments.delta": NO_MCP_HERE,
    "response.mcp_call_arguments.done": NO_MCP_HERE,
}
