"""From turns to the decoder's prompt: the chat template of the published models, in a budget.

    [bos] [bot] system\\n ... [eot] [bot] human\\n ... [eot] [bot] assistant\\n ... [eot] ...

An answer stands in its turn as it was emitted, text and audio interleaved, every segment with its
`<audio_start>` and `<audio_end>` (marker-preserving concatenation, SPEC 5).

When the conversation outgrows the budget, old turns first lose their audio and keep their words
(the Step-Audio report counts 14 ids of speech to one of its text), then the oldest turns are left
out. What is given up grows in steps of a quarter of the budget: between two steps the prompt only
grows at its end, and the prefix that the engine has computed stays valid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from aqaa.models.bundle import Bundle, TokensConfig
from aqaa.models.errors import PromptError
from aqaa.models.groups import GROUP_TOKENS
from aqaa.server.dialogue.text_codec import TextCodec

SHRINK_FRACTION = 1 / 4  # of the budget: what is given up grows in steps of this size
AUDIO_KEPT_TURNS = 2  # before the last user turn; these keep their audio as long as possible


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


Turn = SystemTurn | UserTurn | AssistantTurn


@dataclass(frozen=True, slots=True)
class RenderedTurn:
    """A turn as the decoder's ids, to be rendered once and kept.

    Attributes:
        ids: `[bot] role content`, without the closing eot.
        shorter: the same without its audio; None where it has none, or its words are not known.
        is_system: whether it is the system's turn.
        is_answer: whether it is the assistant's.
    """

    ids: tuple[int, ...]
    shorter: tuple[int, ...] | None
    is_system: bool
    is_answer: bool


class PromptBuilder:
    """Builds prompts of at most `budget` ids; holds no state of any conversation."""

    def __init__(
        self, tokens: TokensConfig, text: TextCodec, *, budget: int, bos_first: bool = True
    ) -> None:
        self._tokens = tokens
        self._text = text
        self._budget = budget
        self._start = [tokens.bos] if bos_first else []
        self._newline = text.encode("\n")
        self._headers = {
            role: [tokens.bot, *text.encode(f"{role}\n")]
            for role in ("system", "human", "assistant")
        }

    @classmethod
    def of(cls, bundle: Bundle, text: TextCodec) -> Self:
        """For `bundle`: its context less room for an answer (at most half of it)."""
        context = bundle.decoder.context
        answer = min(bundle.sampling.max_tokens, context // 2)
        return cls(bundle.tokens, text, budget=context - answer, bos_first=bundle.decoder.bos_first)

    def render(self, turn: Turn | RenderedTurn) -> RenderedTurn:
        """`turn` as ids. Text takes its time (0.2 s a megabyte): not for the event loop.

        Raises:
            PromptError: audio is not whole groups of audio ids.
        """
        if isinstance(turn, RenderedTurn):
            return turn
        shorter = self._words(turn)
        return RenderedTurn(
            tuple(self._render(turn)),
            None if shorter is None else tuple(shorter),
            isinstance(turn, SystemTurn),
            isinstance(turn, AssistantTurn),
        )

    def finished(self, turns: Sequence[Turn | RenderedTurn]) -> list[int]:
        """The prompt that asks for an answer to `turns`.

        Raises:
            PromptError: the turns that cannot be given up are longer than the budget, or audio is
                not whole groups of audio ids.
        """
        return [*self._fitted(turns), self._tokens.eot, *self._header("assistant")]

    def unfinished(self, turns: Sequence[Turn | RenderedTurn]) -> list[int]:
        """The prompt so far while the last turn, a user's, still grows.

        Unless the budget is stepped over meanwhile, it is a prefix of what `finished` gives once
        the turn is complete.

        Raises:
            PromptError: as `finished`.
        """
        return self._fitted(turns)

    def kinds(self, prompt: Sequence[int]) -> tuple[int, int]:
        """How many ids of `prompt` are text, the marks of turns among them, and how many audio."""
        audio = sum(token >= self._tokens.audio_offset for token in prompt)
        return len(prompt) - audio, audio

    def _fitted(self, turns: Sequence[Turn | RenderedTurn]) -> list[int]:
        """All turns, the last one still open."""
        if not turns:
            raise PromptError("the conversation is empty: give at least one turn")
        rendered = [self.render(turn) for turn in turns]
        full = [turn.ids for turn in rendered]
        closing = 1 + len(self._header("assistant"))
        excess = len(self._start) + sum(map(len, full)) + len(full) - 1 + closing - self._budget
        kept = full
        if excess > 0:
            step = max(1, int(self._budget * SHRINK_FRACTION))
            kept = self._shrink(rendered, need=excess, aim=math.ceil(excess / step) * step)
        ids = list(self._start)
        for index, turn in enumerate(kept):
            if index:
                ids.append(self._tokens.eot)
            ids.extend(turn)
        return ids

    def _shrink(
        self, turns: Sequence[RenderedTurn], *, need: int, aim: int
    ) -> list[tuple[int, ...]]:
        """Give up `aim` ids if old turns have so many, and `need` ids in any case."""
        kept: list[tuple[int, ...] | None] = [turn.ids for turn in turns]
        given = 0
        for index in range(max(0, len(turns) - 1 - AUDIO_KEPT_TURNS)):
            if given >= aim:
                break
            shorter = turns[index].shorter
            if shorter is not None:
                given += len(turns[index].ids) - len(shorter)
                kept[index] = shorter
        first = next((i for i, turn in enumerate(turns) if not turn.is_system), 0)
        for index in range(first, len(turns) - 1):
            # An answer does not stay without its question.
            orphan = index > first and turns[index].is_answer
            if given >= aim and not orphan:
                break
            given += len(kept[index] or ()) + 1
            kept[index] = None
        if given < need:
            raise PromptError(
                f"the conversation is {need - given} ids over the budget of {self._budget} with "
                "only its last turn left: shorten the turn or the instructions"
            )
        return [turn for turn in kept if turn is not None]

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
