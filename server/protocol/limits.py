"""Bounds of one session: no client can grow the server's memory, or make it count for long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic_core import to_json

from aqaa.server.protocol.errors import ProtocolError
from aqaa.server.protocol.session_types import Session
from aqaa.server.protocol.tools import FunctionTool, ToolChoice
from aqaa.server.protocol.types import AudioFormat, PcmFormat, ResponseOptions, bytes_per_second

CHARACTERS_PER_TOKEN = 8  # more than any natural text has: English has about four
APPEND_BYTES = 15 * 1024 * 1024  # OpenAI's bound on one append
COMMIT_MIN_MS = 100  # OpenAI refuses to commit less than this
COMMIT_EMPTY = "input_audio_buffer_commit_empty"  # the code of a commit that holds no question
NO_SPEECH = "no_speech"  # the code of an item or a recording that holds none

Declared = Callable[[Sequence[FunctionTool]], str]  # what a prompt says of them
CannotCall = Callable[[Sequence[FunctionTool], ToolChoice], str | None]  # why, where it must call


class UncountedError(Exception):
    """A text is so long that its tokens must be counted elsewhere first. Then try anew."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{len(text)} characters are not counted yet")
        self.text = text


@dataclass(frozen=True)
class Limits:
    """What one session may hold. `of_context` derives the bounds of text from the model.

    `count_tokens` may raise `UncountedError`, which passes through all checks.
    """

    items: int = 512
    parallel_responses: int = 4  # out-of-band ones beside the conversation's own
    text: int = 32_768  # characters of one item, or of the instructions
    settings: int = 65_536  # characters of tools and the like, as JSON
    audio_seconds: float = 60.0  # of sound inside one item
    instruction_tokens: int | None = None
    count_tokens: Callable[[str], int] | None = None
    declared: Declared = lambda tools: ""
    cannot_call: CannotCall = lambda tools, choice: None

    @classmethod
    def of_context(
        cls,
        budget: int,
        audio_seconds: float,
        count_tokens: Callable[[str], int],
        declared: Declared = lambda tools: "",
        cannot_call: CannotCall = lambda tools, choice: None,
    ) -> Limits:
        """Bounds for prompts of `budget` tokens, half of them for instructions and tools."""
        return cls(
            text=budget * CHARACTERS_PER_TOKEN,
            audio_seconds=audio_seconds,
            instruction_tokens=budget // 2,
            count_tokens=count_tokens,
            declared=declared,
            cannot_call=cannot_call,
        )

    @property
    def kept_sound(self) -> int:
        """Bytes of sound, the user's and the assistant's, that can be retrieved: what one item of
        24 kHz may have."""
        return round(self.audio_seconds * bytes_per_second(PcmFormat()))

    @property
    def conversation_text(self) -> int:
        """Characters of all items: what is older than this can be in no prompt."""
        return 2 * self.text

    def check_append(self, audio: bytes) -> None:
        """Refuse more audio than one append may bring.

        Raises:
            ProtocolError: says how much may be.
        """
        if len(audio) > APPEND_BYTES:
            raise ProtocolError(
                "invalid_value",
                f"an append may have {APPEND_BYTES} bytes of audio; this has {len(audio)}",
                "audio",
            )

    def check_commit(self, size: int, format: AudioFormat) -> None:
        """Refuse to commit a buffer of `size` bytes that holds next to nothing.

        Raises:
            ProtocolError: says how much must be there.
        """
        have = 1000 * size / bytes_per_second(format)
        if have < COMMIT_MIN_MS:
            raise ProtocolError(
                COMMIT_EMPTY,
                f"the buffer holds {have:.2f} ms of audio; append at least {COMMIT_MIN_MS} ms"
                " before committing",
            )

    def check_text(self, text: str, param: str) -> None:
        """Refuse what is too long for any prompt, without counting its tokens.

        Raises:
            ProtocolError: it has too many characters; the message says how many may be.
        """
        if len(text) > self.text:
            raise ProtocolError(
                "string_above_max_length",
                f"{param} may have {self.text} characters; this has {len(text)}",
                param,
            )

    def check_instructions(self, text: str, param: str) -> None:
        """Refuse instructions that leave no room for a conversation.

        Raises:
            ProtocolError: they are too long; the message says how much fits.
        """
        self.check_text(text, param)
        if self.count_tokens is None or self.instruction_tokens is None:
            return
        count = self.count_tokens(text)
        if count > self.instruction_tokens:
            raise ProtocolError(
                "string_above_max_length",
                f"{param} may have {self.instruction_tokens} tokens of this model; this has"
                f" {count}",
                param,
            )

    def check_tools(self, tools: Sequence[FunctionTool], instructions: str, param: str) -> None:
        """Refuse functions that leave, with the instructions, no room for a conversation.

        Raises:
            ProtocolError: they are too long; the message says how much fits.
        """
        size = len(to_json(tools))
        if size > self.settings:
            raise ProtocolError(
                "string_above_max_length",
                f"{param} may have {self.settings} bytes of JSON; this has {size}",
                param,
            )
        if not tools or self.count_tokens is None or self.instruction_tokens is None:
            return
        count = self.count_tokens(instructions) + self.count_tokens(self.declared(tools))
        if count > self.instruction_tokens:
            raise ProtocolError(
                "string_above_max_length",
                f"instructions and tools may have {self.instruction_tokens} tokens of this model;"
                f" these have {count}",
                param,
            )

    def check_choice(self, tools: Sequence[FunctionTool], choice: ToolChoice, param: str) -> None:
        """Refuse to demand a call that the model cannot write.

        Raises:
            ProtocolError: says of which function, and what in it.
        """
        if (why := self.cannot_call(tools, choice)) is not None:
            raise ProtocolError("invalid_value", why, param)

    def check_response(self, options: ResponseOptions, session: Session) -> None:
        """Refuse what is too large of what an answer has of its own.

        Raises:
            ProtocolError: names the setting and its bound.
        """
        if options.instructions is not None:
            self.check_instructions(options.instructions, "response.instructions")
        if options.instructions is not None or options.tools is not None:
            tools = session.tools if options.tools is None else options.tools
            told = session.instructions if options.instructions is None else options.instructions
            self.check_tools(tools, told, "response.tools")
        if options.tools is not None or options.tool_choice is not None:
            tools = session.tools if options.tools is None else options.tools
            choice = session.tool_choice if options.tool_choice is None else options.tool_choice
            self.check_choice(tools, choice, "response.tool_choice")

    def check_session(self, session: Session) -> None:
        """Refuse settings that are too large.

        Raises:
            ProtocolError: names the setting and its bound.
        """
        self.check_instructions(session.instructions, "session.instructions")
        self.check_tools(session.tools, session.instructions, "session.tools")
        self.check_choice(session.tools, session.tool_choice, "session.tool_choice")
        for name in ("prompt", "tracing"):
            size = len(to_json(getattr(session, name)))
            if size > self.settings:
                raise ProtocolError(
                    "string_above_max_length",
                    f"session.{name} may have {self.settings} bytes of JSON; this has {size}",
                    f"session.{name}",
                )
