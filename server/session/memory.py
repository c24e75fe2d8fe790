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
from aqaa.models.errors import NoSpeechError
from aqaa.models.groups import GROUP_SECONDS, GROUP_TOKENS
from aqaa.server.compute.executor import Executor
from aqaa.server.compute.model import work_of
from aqaa.server.dialogue.barge_in import cut_answer, heard_ids
from aqaa.server.dialogue.prompt import (
    AssistantTurn,
    CallTurn,
    PromptBuilder,
    RenderedTurn,
    ResultTurn,
    SystemTurn,
    Turn,
    UserTurn,
)
from aqaa.server.dialogue.text_codec import TextCodec
from aqaa.server.protocol.effects import ConversationItem
from aqaa.server.protocol.types import (
    Content,
    FunctionCall,
    FunctionCallOutput,
    InputSound,
    Message,
    OutputSound,
)
from aqaa.server.urgency import Kind

GREETED = UserTurn(("Hello!",))
INSTRUCTIONS = ""  # the key of the rendered instructions; no item has it


@dataclass
class _KeptAnswer:
    ids: list[int]  # the answer's own list: it grows while the answer does
    speed: float
    heard: int | None = None  # audio tokens; None: all
    before: int = 0  # audio tokens of it that were heard in an item that it goes on from


@dataclass(frozen=True)
class _CutAnswer:
    """An answer of which only `heard` audio tokens were heard."""

    ids: tuple[int, ...]
    heard: int


@dataclass
class _Source:
    """What a turn is rendered from. Two of one key and version are rendered to the same ids."""

    key: str
    version: tuple[object, ...]
    content: Turn | _CutAnswer | None  # None: the item is no turn
    turn: RenderedTurn | None = None
    rendered: bool = False


class Memory:
    """One session's tokens. What leaves the conversation is forgotten here too."""

    def __init__(
        self, tokens: TokensConfig, text: TextCodec, prompts: PromptBuilder, executor: Executor
    ) -> None:
        """An empty memory; it has `prompts` render turns in `executor`."""
        self._tokens = tokens
        self._text = text
        self._prompts = prompts
        self._executor = executor
        self._rendered: dict[str, _Source] = {}
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
        before = self.heard_before(item_id)
        self._answers[item_id] = _KeptAnswer(ids, speed, before=before)

    def resume(self, item_id: str, cut: str | None) -> None:
        """An answer begins in this item: the rest of one that was cut in another, if there is."""
        answer = self._answers.get(cut or "")
        if answer is not None and answer.heard is not None:
            ids = [*heard_ids(answer.ids, answer.heard, self._tokens)]
            self._answers[item_id] = _KeptAnswer(ids, answer.speed, before=answer.heard)

    def begun(self, item_id: str) -> tuple[int, ...]:
        """The ids of an answer so far, which goes on or is about to."""
        answer = self._answers.get(item_id)
        return () if answer is None else tuple(answer.ids)

    def heard_before(self, item_id: str) -> int:
        """How many audio tokens of an answer were heard in the item that it goes on from."""
        answer = self._answers.get(item_id)
        return 0 if answer is None else answer.before

    def cut(self, item_id: str, heard_ms: int) -> None:
        """Only so much of the answer was heard, rounded up to a whole group."""
        answer = self._answers.get(item_id)
        if answer is not None:
            groups = math.ceil(heard_ms / 1000 * answer.speed / GROUP_SECONDS)
            answer.heard = answer.before + groups * GROUP_TOKENS

    def forget(self, item_id: str) -> None:
        """Forget an item that left the conversation."""
        future = self._sounds.pop(item_id, None)
        if future is not None and not future.done():
            future.set_result(())  # an answer may wait for it
        for kept in (self._words, self._answers, self._rendered):
            kept.pop(item_id, None)

    def kept(self) -> set[str]:
        """The items of which something is kept."""
        known = {*self._sounds, *self._words, *self._answers, *self._rendered}
        return known - {INSTRUCTIONS}

    async def ready(self, items: Sequence[ConversationItem], *, asks: bool = True) -> None:
        """Wait until all sound of these items is tokenised; `asks`: the newest is the question.

        Raises:
            NoSpeechError: it is nothing but sound in which nobody speaks.
        """
        waiting = [self._sounds[item.id] for item in items if item.id in self._sounds]
        if waiting:
            await asyncio.wait(waiting)
        newest = items[-1] if items else None
        spoken = isinstance(newest, Message) and newest.id in self._sounds
        if asks and newest is not None and spoken and self._source(newest).content is None:
            raise NoSpeechError(f"nobody speaks in {newest.id}")

    async def turns(
        self,
        items: Iterable[ConversationItem],
        instructions: str,
        speaking: Sequence[int] = (),
    ) -> list[RenderedTurn]:
        """The conversation for the prompt; `speaking`: what the user is saying just now.

        Each item is rendered once and kept, what has text in it in the executor: where no text is
        new, nothing waits. So the words of speech that is to be answered now are left to later.
        Before anybody has said anything the conversation is a greeting, for the assistant to greet
        back. What a function gave back stands behind its call, whenever it came. Calls are left out
        where the model knows of no functions.
        """
        sources = [self._instructions(instructions)]
        sources += [self._source(item) for item in _in_order([*items])]
        if not speaking:
            sources[-1] = _without_words(sources[-1])
        sources = [self._kept(source) for source in sources]
        for source in sources:
            if not source.rendered and _holds_ids_only(source.content):
                source.turn, source.rendered = self._render(source.content), True
        new = [source for source in sources if not source.rendered]
        if new:
            work = work_of(lambda: [self._render(source.content) for source in new])
            for source, turn in zip(new, await self._executor.run(work, Kind.FIRST), strict=True):
                source.turn, source.rendered = turn, True
        turns = [source.turn for source in sources if source.turn is not None]
        if speaking:
            turns.append(self._prompts.render(UserTurn((tuple(speaking),))))
        return turns or [self._prompts.render(GREETED)]

    def _kept(self, source: _Source) -> _Source:
        """The kept source of the same key and version; this one, which is kept from now on, if
        there is none."""
        kept = self._rendered.get(source.key)
        if kept is None or kept.version != source.version:
            self._rendered[source.key] = kept = source
        return kept

    def _instructions(self, text: str) -> _Source:
        return _Source(INSTRUCTIONS, (text,), SystemTurn(text) if text else None)

    def _render(self, content: Turn | _CutAnswer | None) -> RenderedTurn | None:
        """Not for the event loop where it encodes text or, for a cut answer, decodes it."""
        if isinstance(content, _CutAnswer):
            ids = cut_answer(content.ids, content.heard, self._tokens, self._text)
            content = AssistantTurn(ids) if ids else None
        return None if content is None else self._prompts.render(content)

    def _source(self, item: ConversationItem) -> _Source:
        """What an item's turn is made of, and a version that tells whether it has changed."""
        item_id = item.id or ""  # a kept item has one
        match item:
            case Message():
                return self._message(item_id, item)
            case _ if self._prompts.tools is None:
                return _Source(item_id, (), None)
            case FunctionCall():
                call = CallTurn(item.name, item.arguments)
                return _Source(item_id, (call.name, call.arguments), call)
            case FunctionCallOutput():
                return _Source(item_id, (item.output,), ResultTurn(item.output))

    def _message(self, item_id: str, item: Message) -> _Source:
        answer = self._answers.get(item_id)
        if answer is not None:
            version = (len(answer.ids), answer.heard)
            ids = tuple(answer.ids)
            if not ids:
                return _Source(item_id, version, None)
            if answer.heard is None:
                return _Source(item_id, version, AssistantTurn(ids))
            return _Source(item_id, version, _CutAnswer(ids, answer.heard))
        words = "\n".join(text for part in item.content if (text := _text(part)))
        match item.role:
            case "system":
                return _Source(item_id, (words,), SystemTurn(words) if words else None)
            case "assistant":
                return _Source(item_id, (words,), AssistantTurn(words) if words else None)
            case "user":
                return self._user(item_id, item, words)

    def _user(self, item_id: str, item: Message, words: str) -> _Source:
        sound = self._sounds.get(item_id)
        spoken = sound.result() if sound is not None and sound.done() else ()
        if not spoken:
            return _Source(item_id, (words,), UserTurn((words,)) if words else None)
        written = tuple(part.text for part in item.content if not isinstance(part, Sounds))
        said = " ".join(part.transcript or "" for part in item.content if isinstance(part, Sounds))
        said = said.strip() or self._words.get(item_id, "")
        turn = UserTurn((*written, spoken), words=said)
        return _Source(item_id, (len(spoken), written, said), turn)


def _in_order(items: Sequence[ConversationItem]) -> list[ConversationItem]:
    """The items, each output behind its call; one whose call is not among them is left out."""
    outputs: dict[str, list[ConversationItem]] = {}
    for item in items:
        if isinstance(item, FunctionCallOutput):
            outputs.setdefault(item.call_id, []).append(item)
    ordered: list[ConversationItem] = []
    for item in items:
        if not isinstance(item, FunctionCallOutput):
            ordered.append(item)
        if isinstance(item, FunctionCall):
            ordered += outputs.pop(item.call_id or "", [])
    return ordered


def _without_words(source: _Source) -> _Source:
    """The same, but speech has no words to stand for it once it is old."""
    match source.content:
        case UserTurn(parts, words) if words:
            return _Source(source.key, (*source.version, "new"), UserTurn(parts))
        case _:
            return source


def _holds_ids_only(content: Turn | _CutAnswer | None) -> bool:
    """Whether it is rendered without a look at any text, in microseconds."""
    match content:
        case UserTurn(parts, words):
            return not words and all(isinstance(part, tuple) for part in parts)
        case AssistantTurn(answer):
            return isinstance(answer, tuple)
        case None:
            return True
        case _:
            return False


Sounds = InputSound | OutputSound


def _text(part: Content) -> str:
    return (part.transcript or "") if isinstance(part, Sounds) else part.text
