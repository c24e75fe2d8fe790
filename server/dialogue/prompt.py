"""From turns to the decoder's prompt: the chat template of the published models, in a budget.

    [bos] [bot] system\\n ... [eot] [bot] human\\n ... [eot] [bot] assistant\\n ... [eot] ...

An answer stands in its turn as it was emitted, text and audio interleaved, every segment with its
`<audio_start>` and `<audio_end>` (marker-preserving concatenation, SPEC 5). A call of a function is
an answer of its own; what the function gave back is a turn of the bundle's `tools.role`.

When the conversation outgrows the budget, `dialogue.truncation` says what is given up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from aqaa.models.bundle import Bundle, TokensConfig, ToolsConfig
from aqaa.models.errors import PromptError
from aqaa.models.groups import GROUP_TOKENS
from aqaa.server.dialogue.text_codec import TextCodec
from aqaa.server.dialogue.tools import Calling, Tool, compact, declared, spelt
from aqaa.server.dialogue.truncation import AUTO, Truncation, TurnSize, truncated


@dataclass(frozen=True, slots=True)
class SystemTurn:
    """How the assistant is to behave."""

    text: str


@dataclass(frozen=True, slots=True)
class UserTurn:
    """What the user said or wrote.

    Attributes:
        parts: in their order; text, or decoder ids of speech in whole groups.
        words: what the speech says, where that is known; stands for it once it is old.
    """

    parts: tuple[str | tuple[int, ...], ...]
    words: str = ""


@dataclass(frozen=True, slots=True)
class AssistantTurn:
    """An answer: the decoder's own ids (as far as they were heard), or a text."""

    answer: str | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CallTurn:
    """A function that the assistant called; `arguments` is JSON."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ResultTurn:
    """What a function gave back."""

    output: str


Turn = SystemTurn | UserTurn | AssistantTurn | CallTurn | ResultTurn


@dataclass(frozen=True, slots=True)
class RenderedTurn:
    """A turn as the decoder's ids, to be rendered once and kept.

    Attributes:
        ids: `[bot] role content`, without the closing eot.
        shorter: the same without its audio; None where it has none, or its words are not known.
        is_system: whether it is the system's turn.
        follows: whether it means nothing without the turn before it: an answer, a call, its result.
    """

    ids: tuple[int, ...]
    shorter: tuple[int, ...] | None
    is_system: bool
    follows: bool


class PromptBuilder:
    """Builds prompts of at most `budget` ids; holds no state of any conversation."""

    def __init__(
        self,
        tokens: TokensConfig,
        text: TextCodec,
        *,
        budget: int,
        bos_first: bool = True,
        tools: ToolsConfig | None = None,
    ) -> None:
        self.tools = tools  # None: the model knows of no functions
        self._tokens = tokens
        self._text = text
        self._budget = budget
        self._start = [tokens.bos] if bos_first else []
        self._newline = text.encode("\n")
        self._headers = {
            role: [tokens.bot, *text.encode(f"{role}\n")]
            for role in ("system", "human", "assistant", *([] if tools is None else [tools.role]))
        }

    @classmethod
    def of(cls, bundle: Bundle, text: TextCodec) -> Self:
        """For `bundle`: its context less room for an answer (at most half of it)."""
        context = bundle.decoder.context
        answer = min(bundle.sampling.max_tokens, context // 2)
        return cls(
            bundle.tokens,
            text,
            budget=context - answer,
            bos_first=bundle.decoder.bos_first,
            tools=bundle.tools,
        )

    def render(self, turn: Turn | RenderedTurn) -> RenderedTurn:
        """`turn` as ids. Text takes its time (0.2 s a megabyte): not for the event loop.

        Raises:
            PromptError: audio is not whole groups of audio ids, or it is a call or a result and the
                model knows of no functions.
        """
        if isinstance(turn, RenderedTurn):
            return turn
        shorter = self._words(turn)
        return RenderedTurn(
            tuple(self._render(turn)),
            None if shorter is None else tuple(shorter),
            isinstance(turn, SystemTurn),
            isinstance(turn, AssistantTurn | CallTurn | ResultTurn),
        )

    def instructions(self, text: str, calling: Calling | None) -> str:
        """The first system turn: `text`, and the functions that may be called, if there are any."""
        if self.tools is None or calling is None:
            return text
        if calling.choice == "none" and self._tokens.audio_start is None:
            return text  # nothing would keep the model from calling what it is told of
        return "\n".join([*([text] if text else []), declared(calling.tools, self.tools)])

    def opening(self, calling: Calling | None) -> tuple[int, ...]:
        """The ids that an answer begins with, behind the prompt, whatever the model would say.

        So it calls what it has to, and speaks where it may call nothing.
        """
        if self.tools is None or calling is None:
            return ()
        match calling.choice:
            case "auto":
                return ()
            case "none":
                start = self._tokens.audio_start
                return () if start is None else (start,)
            case "required":
                return (self.tools.call_start,)
            case Tool(name):
                return (self.tools.call_start, *self._encode('{"name":"' + name))

    def finished(self, turns: Sequence[Turn | RenderedTurn], how: Truncation = AUTO) -> list[int]:
        """The prompt that asks for an answer to `turns`, cut as `how` says if they are too long.

        Raises:
            PromptError: the turns that cannot be given up are longer than the budget, or audio is
                not whole groups of audio ids.
        """
        return [*self._fitted(turns, how), self._tokens.eot, *self._header("assistant")]

    def unfinished(self, turns: Sequence[Turn | RenderedTurn], how: Truncation = AUTO) -> list[int]:
        """The prompt so far while the last turn, a user's, still grows.

        Unless the budget is stepped over meanwhile, it is a prefix of what `finished` gives once
        the turn is complete.

        Raises:
            PromptError: as `finished`.
        """
        return self._fitted(turns, how)

    def kinds(self, prompt: Sequence[int]) -> tuple[int, int]:
        """How many ids of `prompt` are text, the marks of turns among them, and how many audio."""
        audio = sum(token >= self._tokens.audio_offset for token in prompt)
        return len(prompt) - audio, audio

    def _fitted(self, turns: Sequence[Turn | RenderedTurn], how: Truncation) -> list[int]:
        """All turns, the last one still open."""
        if not turns:
            raise PromptError("the conversation is empty: give at least one turn")
        rendered = [self.render(turn) for turn in turns]
        first = next((i for i, turn in enumerate(rendered) if not turn.is_system), 0)
        instructions, said = rendered[:first], rendered[first:]
        sizes = [
            TurnSize(
                1 + len(turn.ids),
                1 + len(turn.ids if turn.shorter is None else turn.shorter),
                follows=turn.follows,
            )
            for turn in said
        ]
        # The last turn's closing eot is the one that the answer's header begins with.
        fixed = len(self._start) + sum(1 + len(turn.ids) for turn in instructions)
        room = self._budget - fixed - len(self._header("assistant"))
        left = truncated(sizes, room, how)
        kept = [turn.ids for turn in instructions]
        for place, one in enumerate(said[left.dropped :], left.dropped):
            words = one.shorter if place < left.worded else None
            kept.append(one.ids if words is None else words)
        ids = list(self._start)
        for index, turn_ids in enumerate(kept):
            if index:
                ids.append(self._tokens.eot)
            ids.extend(turn_ids)
        return ids

    def _render(self, turn: Turn) -> list[int]:
        """`[bot] role content`, without the closing eot."""
        match turn:
            case SystemTurn(text):
                return [*self._header("system"), *self._encode(text)]
            case UserTurn(parts):
                ids = self._header("human")
                for part in parts:
                    ids += self._encode(part) if isinstance(part, str) else self._audio(part)
                return ids
            case AssistantTurn(answer):
                if isinstance(answer, str):
                    return [*self._header("assistant"), *self._encode(answer)]
                said = [token for token in answer if token != self._tokens.eot]
                return [*self._header("assistant"), *said]
            case CallTurn(name, arguments):
                marks = self._known_tools()
                call = self._encode(spelt(name, arguments))
                return [*self._header("assistant"), marks.call_start, *call, marks.call_end]
            case ResultTurn(output):
                return [*self._header(self._known_tools().role), *self._encode(compact(output))]

    def _known_tools(self) -> ToolsConfig:
        if self.tools is None:
            raise PromptError("the bundle has no [tools]: the model knows of no functions")
        return self.tools

    def _words(self, turn: Turn) -> list[int] | None:
        """`turn` without its audio; None where it has none, or where its words are not known."""
        match turn:
            case UserTurn(parts, words) if words and not all(isinstance(p, str) for p in parts):
                written = [part for part in parts if isinstance(part, str)]
                return [*self._header("human"), *self._encode("\n".join([*written, words]))]
            case AssistantTurn(tuple(answer)):
                t = self._tokens
                silent = (t.audio_start, t.audio_end, t.eot)
                text = [i for i in answer if i < t.audio_offset and i not in silent]
                return [*self._header("assistant"), *text]
            case _:
                return None

    def _header(self, role: str) -> list[int]:
        return list(self._headers[role])

    def _encode(self, text: str) -> list[int]:
        """Ids of `text` as it stands after a newline, without sentencepiece's dummy prefix."""
        return self._text.encode("\n" + text)[len(self._newline) :]

    def _audio(self, ids: tuple[int, ...]) -> list[int]:
        offset, end = self._tokens.audio_offset, self._tokens.audio_end_id
        if len(ids) % GROUP_TOKENS or (ids and not offset <= min(ids) <= max(ids) < end):
            raise PromptError(
                f"the audio of a turn must be whole groups of {GROUP_TOKENS} ids in "
                f"[{offset}, {end}): give what the dual tokenizer gave"
            )
        return list(ids)
