"""What passes between the session machine and whoever drives it, besides wire events.

Effects go out: the machine asks for work. Inputs come in: the driver tells what happened. Times are
milliseconds of the session's own audio: of what was appended for the user, of the answer for the
assistant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from aqaa.server.protocol.session_types import Session, TruncationSetting
from aqaa.server.protocol.tools import FunctionTool, ToolChoice
from aqaa.server.protocol.types import (
    FunctionCall,
    FunctionCallOutput,
    Message,
    Modality,
    WireFormat,
)

ConversationItem = Message | FunctionCall | FunctionCallOutput

# --- effects: machine -> driver -------------------------------------------------------------------


@dataclass(frozen=True)
class Append:
    """Audio arrived: bytes in the session's input format."""

    data: bytes


@dataclass(frozen=True)
class Commit:
    """The buffered audio is now the sound of this item.

    Attributes:
        item_id: the new item.
        tokens: its audio tokens, where the input that ended the turn brought them; None: the
            client ended the turn, and the driver has still to find them.
    """

    item_id: str
    tokens: tuple[int, ...] | None


@dataclass(frozen=True)
class Clear:
    """The buffered audio is forgotten."""


@dataclass(frozen=True)
class Configure:
    """The session's settings changed."""

    session: Session


@dataclass(frozen=True)
class StoreAudio:
    """Sound that came inside an item, in the session's input format."""

    item_id: str
    data: bytes


@dataclass(frozen=True)
class StartRun:
    """Answer now. `items` is the context, oldest first.

    Where an answer goes on that was cut, `resumes` is its item, which leaves, and `heard_ms` how
    much of it was heard: the sound begins there, the text from its beginning.
    """

    response_id: str
    item_id: str
    default: bool  # whether it belongs to the default conversation
    items: tuple[ConversationItem, ...]
    instructions: str
    modality: Modality
    voice: str
    speed: float
    format: WireFormat
    max_tokens: int | None
    truncation: TruncationSetting
    tools: tuple[FunctionTool, ...]
    tool_choice: ToolChoice
    parallel_tool_calls: bool
    resumes: str | None = None
    heard_ms: int = 0


@dataclass(frozen=True)
class StopRun:
    """This answer's events are no longer wanted."""

    response_id: str


@dataclass(frozen=True)
class CutItem:
    """From now on the assistant's item ends here; nothing after it was heard.

    Attributes:
        item_id: the assistant's item.
        audio_end_ms: how much of its sound was heard.
        interrupted: whether that is the driver's own account, of an answer that was stopped or
            spoken into; else the client told it.
    """

    item_id: str
    audio_end_ms: int
    interrupted: bool


@dataclass(frozen=True)
class FetchSound:
    """A client retrieves an item: find its sound, if it is kept, and report it.

    Attributes:
        item_id: the item.
        event_id: the client's name of its event.
        format: what it is to be converted to; None: it stays as it was sent.
    """

    item_id: str
    event_id: str | None
    format: WireFormat | None


@dataclass(frozen=True)
class ForgetItem:
    """The item left the conversation, or was an answer's alone, which is over."""

    item_id: str


Effect = (
    Append
    | Commit
    | Clear
    | Configure
    | StoreAudio
    | StartRun
    | StopRun
    | CutItem
    | FetchSound
    | ForgetItem
)

# --- inputs: driver -> machine --------------------------------------------------------------------


@dataclass(frozen=True)
class SpeechStarted:
    """The user began to speak; `start_ms` includes the prefix padding."""

    start_ms: int


@dataclass(frozen=True)
class SpeechResumed:
    """The user goes on with the turn that ended last; its sound, from `start_ms` on, is open again.

    What ends the turn the next time brings all of its tokens.
    """

    start_ms: int


@dataclass(frozen=True)
class SpeechStopped:
    """The user's turn ended; `tokens` are its audio tokens, which the machine only hands on.

    `nothing`: it was not meant for the assistant, whose answer it interrupted.
    """

    end_ms: int
    tokens: tuple[int, ...]
    nothing: bool = False


@dataclass(frozen=True)
class IdleTimedOut:
    """Nobody spoke for the session's `idle_timeout_ms`; `tokens` are those of the silence."""

    start_ms: int
    end_ms: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class RunStarted:
    """The prompt is known: how many tokens of each kind it has, and how many of these were cached.

    The latter is told again once it is known.
    """

    response_id: str
    text_tokens: int
    audio_tokens: int
    cached_text_tokens: int = 0
    cached_audio_tokens: int = 0


@dataclass(frozen=True)
class RunText:
    """More text of an answer, spoken from `start_ms` of its sound on (an estimate)."""

    response_id: str
    text: str
    tokens: int
    start_ms: int


@dataclass(frozen=True)
class RunSound:
    """More sound of an answer: bytes in the run's format, made of `tokens` audio tokens."""

    response_id: str
    data: bytes
    tokens: int


@dataclass(frozen=True)
class RunCall:
    """An answer calls a function: a whole call, after all sound before it; `tokens` are its ids."""

    response_id: str
    name: str
    arguments: str
    tokens: int


@dataclass(frozen=True)
class RunEnded:
    """An answer is over. `code` says why it failed."""

    response_id: str
    status: Literal["completed", "max_output_tokens", "failed"]
    code: str | None = None


@dataclass(frozen=True)
class UserWords:
    """Pieces of what the user said in this item, and their log probabilities.

    `item_id` None: in the turn that goes on, for a session that wants live words.
    """

    item_id: str | None
    pieces: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class UserWordsEnded:
    """All that the user said in this item, and how long that took."""

    item_id: str
    transcript: str
    pieces: tuple[tuple[str, float], ...]
    seconds: float


@dataclass(frozen=True)
class UserWordsFailed:
    """What the user said in this item is not known."""

    item_id: str


Words = UserWords | UserWordsEnded | UserWordsFailed


@dataclass(frozen=True)
class SoundFetched:
    """What was wanted, in base64; None: it is not kept."""

    wanted: FetchSound
    audio: str | None


Input = (
    SpeechStarted
    | SpeechResumed
    | SpeechStopped
    | IdleTimedOut
    | RunStarted
    | RunText
    | RunSound
    | RunCall
    | RunEnded
    | UserWords
    | UserWordsEnded
    | UserWordsFailed
    | SoundFetched
)
