"""What a decoder already says: the audio tokens of its answers, for the next one to go on from.

Its vocoder was fitted to these renderings, which its teacher need not give again on another
machine, and a decoder that goes on from its weights has nothing of them to learn anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from aqaa.models.bundle import Bundle
from aqaa.recipe.decoder.clips import Tokens
from aqaa.recipe.domain.load import Domain, Fact
from aqaa.server.dialogue.answer_parser import AnswerParser, AudioGroup, TextDelta
from aqaa.server.dialogue.prompt import AssistantTurn, PromptBuilder, Turn, UserTurn
from aqaa.server.engine.contract import SamplingParams
from aqaa.server.engine.embedded.engine import EmbeddedEngine
from aqaa.server.engine.settings import EmbeddedSettings
from aqaa.tokenizers.text import TextTokenizer

TRIES = 4  # phrasings of a question that are tried, in writing


def recite(bundle: Bundle, domain: Domain) -> dict[str, Tokens]:
    """The audio tokens of every answer of `domain` that the bundle's decoder gives in its words.

    It is asked in writing; the tokens count from 0 and are whole groups.
    """
    return asyncio.run(_recite(bundle, domain))


async def _recite(bundle: Bundle, domain: Domain) -> dict[str, Tokens]:
    engine = EmbeddedEngine(bundle.decoder.path, EmbeddedSettings(), bundle.decoder.context)
    await engine.start()
    speaker = _Speaker(bundle, engine)
    known: dict[str, Tokens] = {}
    courses: list[tuple[Fact, ...]] = [(fact,) for fact in domain.facts]
    courses += [
        tuple(dialogue.turns[: n + 1])
        for dialogue in domain.dialogues
        for n in range(len(dialogue.turns))
    ]
    for course in courses:
        answer = course[-1].answer
        for attempt in range(TRIES):
            if answer in known:
                break
            spoken = await speaker.answers(course, attempt)
            if spoken is not None:
                known[answer] = spoken
    await engine.close()
    return known


class _Speaker:
    """A decoder that is asked in writing."""

    def __init__(self, bundle: Bundle, engine: EmbeddedEngine) -> None:
        self._bundle, self._engine = bundle, engine
        self._text = TextTokenizer.of(bundle)
        self._prompts = PromptBuilder.of(bundle, self._text)
        self._params = SamplingParams.of(bundle, seed=0)

    async def answers(self, course: Sequence[Fact], attempt: int) -> Tokens | None:
        """The last answer's tokens; None where one of the course has other words."""
        turns: list[Turn] = []
        groups: list[int] = []
        for fact in course:
            turns.append(UserTurn((fact.ask[attempt % len(fact.ask)],)))
            prompt = self._prompts.finished(turns)
            ids = [i async for i in self._engine.generate("reciting", prompt, self._params)]
            parser, text, groups = AnswerParser(self._bundle.tokens, self._text), "", []
            for event in (*parser.push(ids), *parser.finish()):
                match event:
                    case TextDelta(words):
                        text += words
                    case AudioGroup(tokens):
                        groups += tokens
            if text != fact.answer or not groups:
                return None
            turns.append(AssistantTurn(tuple(ids)))
        return np.asarray(groups, np.uint16)
