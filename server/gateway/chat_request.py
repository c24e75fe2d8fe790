"""What a `POST /v1/chat/completions` asks for: its messages as turns, its functions, its voice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from aqaa.models.errors import AudioError, InputError, PromptError
from aqaa.server.answering.single_answer import render, tokenise_recording
from aqaa.server.dialogue.prompt import (
    AssistantTurn,
    CallTurn,
    RenderedTurn,
    ResultTurn,
    SystemTurn,
    Turn,
    UserTurn,
)
from aqaa.server.dialogue.tools import Calling
from aqaa.server.gateway.encode import RAW, check_container
from aqaa.server.gateway.json_input import off_the_loop
from aqaa.server.gateway.schema import (
    AllowedTools,
    ChatMessage,
    ChatRequest,
    InputAudioPart,
    NamedChoice,
    TextPart,
)
from aqaa.server.gateway.store import Store
from aqaa.server.parts import ModelParts
from aqaa.server.protocol.base64_data import decode_base64
from aqaa.server.protocol.limits import Limits
from aqaa.server.protocol.tools import FunctionTool, NamedFunction, ToolChoice, names_a_stranger

MOST_RECORDINGS = 8  # of one request: older ones leave with their messages


@dataclass(frozen=True)
class Wanted:
    """A request that was understood."""

    turns: list[RenderedTurn]
    spoken: bool
    voice: str
    container: str
    max_tokens: int | None
    calling: Calling | None


async def understand(parts: ModelParts, request: ChatRequest, store: Store) -> Wanted:
    """What a request asks for.

    Raises:
        InputError: something in it cannot be done; the message says what.
    """
    spoken = "audio" in (request.modalities or ["text"])
    audio = request.audio
    if spoken and audio is None:
        raise InputError('modalities has "audio": say how in `audio` ({"voice", "format"})')
    container = check_container(audio.format) if audio is not None else RAW
    if spoken and request.stream and container != RAW:
        raise InputError('a streamed answer has audio.format "pcm16"; files come whole')
    name = audio.voice if audio is not None else ""
    limits = parts.limits()
    calling = _calling(parts, request)
    if declared := _declared(request):
        await asyncio.to_thread(limits.check_tools, declared, "", "tools")
    outputs = _outputs(request.messages)
    turns: list[Turn] = []
    for message in _recent(request.messages, limits):
        turns += await _turns(parts, message, store, outputs)
    if not any(isinstance(turn, UserTurn | ResultTurn) for turn in turns):
        raise InputError("the messages hold no question: give a user's text or audio")
    told = next((turn.text for turn in turns if isinstance(turn, SystemTurn)), None)
    if told is not None:
        turns.remove(SystemTurn(told))
    told = parts.prompts.instructions(_default_system(parts) if told is None else told, calling)
    if told:
        turns.insert(0, SystemTurn(told))
    rendered = await render(parts, turns)
    parts.prompts.finished(rendered)  # what cannot be asked is refused before a stream begins
    return Wanted(
        turns=rendered,
        spoken=spoken,
        voice=parts.voices.find(name, "audio.voice"),
        container=container,
        max_tokens=request.max_completion_tokens or request.max_tokens,
        calling=calling,
    )


def _declared(request: ChatRequest) -> list[FunctionTool]:
    """The functions that may be called: all, or those that `tool_choice` allows."""
    tools = [tool.function for tool in request.tools or ()]
    if isinstance(request.tool_choice, AllowedTools):
        names = request.tool_choice.names
        tools = [tool for tool in tools if tool.name in names]
    return tools


def _calling(parts: ModelParts, request: ChatRequest) -> Calling | None:
    """What the answer may call.

    Raises:
        InputError: it must call what it cannot.
    """
    tools = _declared(request)
    match request.tool_choice:
        case AllowedTools() as some:
            choice: ToolChoice = some.mode
        case NamedChoice() as named:
            choice = NamedFunction(name=named.function.name)
        case word:
            choice = word
    if names_a_stranger(choice, tools) or (choice == "required" and not tools):
        raise InputError("tool_choice wants a function called that is not among tools")
    if (why := parts.cannot_call(tools, choice)) is not None:
        raise InputError(why)
    calling = parts.calling(tools, choice, parallel=request.parallel_tool_calls is not False)
    if calling is None and choice not in ("auto", "none"):
        raise InputError(f"{parts.bundle.name!r} calls no functions: its bundle has no [tools]")
    return calling


def _outputs(messages: Sequence[ChatMessage]) -> dict[str, str]:
    """What each call gave back, by its id.

    Raises:
        InputError: a `tool` message that answers no call.
    """
    called = {call.id for message in messages for call in message.tool_calls or ()}
    outputs: dict[str, str] = {}
    for message in messages:
        if message.role != "tool":
            continue
        if message.tool_call_id not in called:
            raise InputError(f"a tool message for no call: tool_call_id {message.tool_call_id!r}")
        outputs[message.tool_call_id] = _written(message)
    return outputs


def _written(message: ChatMessage) -> str:
    content = message.content or ""
    if isinstance(content, str):
        return content
    return "\n".join(part.text for part in content if isinstance(part, TextPart))


def _default_system(parts: ModelParts) -> str:
    return parts.bundle.decoder.system_prompt


async def _turns(
    parts: ModelParts, message: ChatMessage, store: Store, outputs: dict[str, str]
) -> list[Turn]:
    """What a message is in the prompt; `outputs` stand behind their calls."""
    if message.role == "tool":
        return []
    said = await _turn(parts, message, store)
    turns: list[Turn] = [] if said is None else [said]
    for call in message.tool_calls or () if parts.bundle.tools is not None else ():
        turns.append(CallTurn(call.function.name, call.function.arguments))
        if call.id in outputs:
            turns.append(ResultTurn(outputs[call.id]))
    return turns


async def _turn(parts: ModelParts, message: ChatMessage, store: Store) -> Turn | None:
    if message.role == "assistant" and message.audio is not None:
        return AssistantTurn(await store.find(message.audio.id))
    contents: list[str | tuple[int, ...]] = []
    content = message.content or []
    said = [content] if isinstance(content, str) else content
    for part in (*said, message.refusal or ""):
        if isinstance(part, str):
            contents.append(part)
        elif isinstance(part, InputAudioPart):
            data = part.input_audio.data
            recording = await off_the_loop(len(data), _decode, data)
            contents.append(await tokenise_recording(parts, recording))
        else:
            contents.append(part.text if isinstance(part, TextPart) else part.refusal)
    contents = [part for part in contents if not _is_blank(part)]
    if not contents:
        return None
    if message.role == "user":
        return UserTurn(tuple(contents))
    written = "\n".join(part for part in contents if isinstance(part, str))
    if message.role == "assistant":
        return AssistantTurn(written)
    return SystemTurn(written)


def _is_blank(part: str | tuple[int, ...]) -> bool:
    return not (part.strip() if isinstance(part, str) else part)


def _decode(data: str) -> bytes:
    try:
        return decode_base64(data)
    except ValueError as error:
        raise AudioError(f"input_audio.data: {error}") from None


def _recent(messages: Sequence[ChatMessage], limits: Limits) -> list[ChatMessage]:
    """The system's messages, and of the others the newest that can be in a prompt.

    Raises:
        PromptError: the newest message, or the system's together, are too long for any prompt.
    """
    system = [m for m in messages if m.role in ("system", "developer")]
    others = [m for m in messages if m.role not in ("system", "developer")]
    kept: list[ChatMessage] = []
    size = sum(_characters(message) for message in system)
    recordings = 0
    for message in reversed(others):
        size += _characters(message)
        recordings += _recordings(message)
        if size > limits.conversation_text or recordings > MOST_RECORDINGS:
            break
        kept.append(message)
    if size > limits.conversation_text and len(kept) < min(1, len(others)):
        raise PromptError(
            f"the newest message and the instructions have {size} characters; a prompt holds at"
            f" most {limits.conversation_text}"
        )
    return [*system, *reversed(kept)]


def _characters(message: ChatMessage) -> int:
    calls = message.tool_calls or ()
    called = sum(len(call.function.name) + len(call.function.arguments) for call in calls)
    return len(_written(message)) + called


def _recordings(message: ChatMessage) -> int:
    parts = message.content if isinstance(message.content, list) else []
    return sum(isinstance(part, InputAudioPart) for part in parts)
