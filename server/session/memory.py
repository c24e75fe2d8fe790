"""The tokens of a conversation, by item, and how much of each answer was heard.

The protocol's items hold no tokens. Here are the ids of what the user said, and the ids of each
answer as the model gave them, cut where the user stopped hearing it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aqaa.models.bundle import TokensConfig
from aqaa.models.groups import GROUP_SECONDS, GROUP_TOKENS
from aqaa.server.dialogue.barge_in import cut_answer
from aqaa.server.dialogue.prompt import AssistantTurn, SystemTurn, Turn, UserTurn
from aqaa.server.dialogue.text_codec import TextCodec
from aqaa.server.protocol.effects import ConversationItem
from aqaa.server.protocol.types import Content, InputSound, Message, OutputSound

GREETED = UserTurn(("Hello!",))


@dataclass
class _KeptAnswer:
    ids: list[int]  # the answer's own list: it grows while the answer does
    speed: float
    heard: int | None = None  # audio tokens; None: all


class Memory:
    """One session's tokens. What leaves the conversation is forgotten here too."""

    def __init__(self, tokens: TokensConfig, text: TextCodec) -> None:
        self._tokens = tokens
        self._text = text
        self._sounds: dict[str, asyncio.Future[tuple[int, ...]]] = {}
        self._words: dict[str, str] = {}
        self._answers: dict[str, _KeptAnswer] = {}

    def expect(self, item_id: str) -> None:
        """The sound of this item is being tokenised."""
        self._sounds[item_id] = asyncio.get_running_loop().create_future()

    def store(self, item_id: str, tokens: Sequence[int]) -> None:
        """Keep the sound of an expected item, as decoder ids; a forgotten item's is dropped."""
        future = self._sounds.get(item_id)
        if future is not None and not future.done():
            future.set_result(tuple(tokens))

    def words(self, item_id: str, text: str) -> None:
        """Keep what was recognised in the sound of this item."""
        if item_id in self._sounds:
            self._words[item_id] = text

    def answer(self, item_id: str, ids: list[int], speed: float) -> None:
        """Keep the ids of an answer: a list that may still grow."""
        self._answers[item_id] = _KeptAnswer(ids, speed)

    def cut(self, item_id: str, heard_ms: int) -> None:
        """Only so much of the answer was heard, rounded up to a whole group."""
        answer = self._answers.get(item_id)
        if answer is not None:
            groups = math.ceil(heard_ms / 1000 * answer.speed / GROUP_SECONDS)
            answer.heard = groups * GROUP_TOKENS

    def forget(self, item_id: str) -> None:
        """Forget an item that left the conversation."""
        future = self._sounds.pop(item_id, None)
        if future is not None and not future.done():
            future.set_result(())  # an answer may wait for it
        self._words.pop(item_id, None)
        self._answers.pop(item_id, None)

    async def ready(self, items: Iterable[ConversationItem]) -> None:
        """Wait until all sound of these items is tokenised."""
        waiting = [self._sounds[item.id] for item in items if item.id in self._sounds]
        if waiting:
            await asyncio.wait(waiting)

    def turns(
        self,
        items: Iterable[ConversationItem],
        instructions: str,
        speaking: Sequence[int] = (),
    ) -> list[Turn]:
        """The conversation for the prompt; `speaking`: what the user is saying just now.

        Before anybody has said anything it is a greeting, for the assistant to greet back.

        Function calls and their outputs are left out: this model was never taught them.
        """
        turns: list[Turn] = [SystemTurn(instructions)] if instructions else []
        for item in items:
            if isinstance(item, Message) and item.id is not None:
                turns += self._message(item.id, item)
        if speaking:
            turns.append(UserTurn((tuple(speaking),)))
        return turns or [GREETED]

    def _message(self, item_id: str, item: Message) -> list[Turn]:
        answer = self._answers.get(item_id)
        if answer is not None:
            ids = tuple(answer.ids)
            if answer.heard is not None:
                ids = cut_answer(ids, answer.heard, self._tokens, self._text)
            return [AssistantTurn(ids)] if ids else []
        words = "\n".join(text for part in item.content if (text := _text(part)))
        match item.role:
            case "system":
                return [SystemTurn(words)] if words else []
            case "assistant":
                return [AssistantTurn(words)] if words else []
            case "user":
                return self._user(item_id, item, words)

    def _user(self, item_id: str, item: Message, words: str) -> list[Turn]:
        sound = self._sounds.get(item_id)
        spoken = sound.result() if sound is not None and sound.done() else ()
        if not spoken:
            return [UserTurn((words,))] if words else []
        written = tuple(part.text for part in item.content if not isinstance(part, Sounds))
        said = " ".join(part.transcript or "" for part in item.content if isinstance(part, Sounds))
        return [UserTurn((*written, spoken), words=said.strip() or self._words.get(item_id, ""))]


Sounds = InputSound | OutputSound


def _text(part: Content) -> str:
    return (part.transcript or "") if isinstance(part, Sounds) else part.text
