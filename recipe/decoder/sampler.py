"""Draws conversations: facts, follow-ups, dialogues, voice control, tools, spoken or written."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass

from aqaa.recipe.decoder.clips import STRETCH, Material, Tokens, blurred, paced, roughen
from aqaa.recipe.decoder.corpus import commands
from aqaa.recipe.decoder.household import at_home, machine, scene
from aqaa.recipe.decoder.layout import Layout, Talk
from aqaa.recipe.decoder.text import OTHER_VOICE
from aqaa.recipe.domain.commands import Command
from aqaa.recipe.domain.load import Control, Dialogue, Domain, Fact, Style
from aqaa.recipe.domain.numbers import normalise
from aqaa.recipe.domain.replies import Reply, draw_reply
from aqaa.recipe.domain.tools import COFFEE

BRIEF = 40  # ids of a brief answer: its header, two text blocks, the audio block between them
LONGEST = 420  # ids; a conversation gets no further turn beyond this
WEIGHTS = {"refuse": 40.0}  # of one fact; others 1.0
SINGLE_WEIGHT = 4.0  # of a fact that is alone in its intent: nothing else teaches its words
DIALOGUE_WEIGHTS = {"my_name": 5.0, "my_animal": 3.0, "pirate": 4.0, "robot": 4.0}  # others 1.0
ROLES = ("pirate", "robot")  # dialogues of which any turn may follow the first


@dataclass(frozen=True)
class Mix:
    """How often what is drawn; shares of conversations or of turns."""

    written: float = 0.12
    brief: float = 0.5  # one question, or a dialogue, and of its last answer only the words
    brief_written: float = 0.375  # of the brief ones: they cost a quarter, and teach what is meant
    another_turn: float = 0.4
    dialogue: float = 0.3
    follow: float = 0.35
    control: float = 0.5
    rough: float = 0.02
    paced: float = 0.0  # of what is asked aloud, said slower or faster
    blurred: float = 0.0  # of the same, with a stretch of it not understood
    human: float = 0.0  # of draws that seek what a voice like a person's says
    as_people: float = 0.4  # questions that are said as people say them
    tools: float = 0.35  # conversations in which tools are declared
    command: float = 0.75  # of these, that begin with a command; others with a fact
    command_written: float = 0.3
    undeclared: float = 0.05  # turns without tools that are commands: refused
    noise: float = 0.02  # conversations in which nobody speaks: refused as well
    recital: float = 0.0  # conversations that are an answer to a tool alone: its sound
    reply: float = 0.0  # conversations with tools that are a command in writing and a whole reply


CLOSING_MIX = Mix(brief=0.65, brief_written=0.15)
# From a decoder that knows the questions and calls tools. How thousands of answers sound is learned
# for the least ids where nothing is asked; hearing commands takes the time that is left, and a call
# alone costs a fifth of a conversation. Written ones cost half of that, and teach to copy.
FURTHER_MIX = Mix(
    brief=0.65,
    brief_written=0.2,
    written=0.5,  # of whole answers: how they sound is learned as well without hearing
    another_turn=0.2,
    tools=0.66,
    command=0.58,
    command_written=0.25,
    rough=0.06,
    paced=0.5,
    blurred=0.4,
    human=0.5,
    undeclared=0.08,
    recital=0.18,
    reply=0.2,
)
NOISE_AT_HOME = 0.8  # of noises, with tools declared: to call one is the worse mistake
STRANGE = 0.5  # of what is asked among tools and is no command: that nothing and nobody can do
OUTSIDE = 0.5  # of what is refused: that no phrasing of the domain comes near
REPLIES = {"get_time": 4.0, "get_weather": 4.0, "set_timer": 2.0, "set_light": 2.0}  # others 1.0
TRIES = 4  # draws of a reply until one that has its sound
PACES = (17, 24)  # codes for twenty: a seventh faster, a fifth slower
BLURRED = 20  # ids, half a second, that are not understood
ORDERS = 0.38  # of spoken commands: an order has six arguments, any other command one or two


def courses(dialogue: Dialogue) -> list[tuple[Fact, ...]]:
    """The turns that may come of `dialogue`: all of them, or a role and one thing asked in it."""
    first, *others = dialogue.turns
    if dialogue.name in ROLES:
        return [(first, other) for other in others]
    return [dialogue.turns]


class Sampler:
    """Endless conversations from the training phrasings."""

    def __init__(
        self, domain: Domain, material: Material, layout: Layout, mix: Mix, seed: int
    ) -> None:
        self.domain, self.material, self.layout, self.mix = domain, material, layout, mix
        self.rng = random.Random(seed)
        heard = [c for c in commands() if c.said in material.questions] or [*commands()]
        self._outside = [text for text in domain.outside if text in material.questions]
        orders = [c for c in heard if c.call.name == COFFEE.name]
        self._heard = [orders or heard, [c for c in heard if c.call.name != COFFEE.name] or heard]
        self._by_tool: dict[str, list[Command]] = defaultdict(list)
        for command in commands():
            if command.missing is None:
                self._by_tool[command.call.name].append(command)
        own = {*domain.answers()}
        self._recitals = [
            text for text, style in material.answers if style == "plain" and text not in own
        ]
        self._refusal = next(fact.answer for fact in domain.facts if fact.intent == "refuse")
        families: dict[str, list[Fact]] = defaultdict(list)
        for fact in domain.facts:
            families[fact.intent].append(fact)
        self._families = families
        self._weights = [
            WEIGHTS.get(fact.intent, SINGLE_WEIGHT if len(families[fact.intent]) == 1 else 1.0)
            for fact in domain.facts
        ]
        self._by_dialogue = defaultdict(list)
        for dialogue in domain.dialogues:
            self._by_dialogue[dialogue.name].append(dialogue)
        # What is asked briefly: a fact, or a dialogue up to some turn of it.
        self._openings: list[tuple[Fact, ...]] = [(fact,) for fact in domain.facts]
        self._opening_weights = [*self._weights]
        for dialogue in domain.dialogues:
            weight = SINGLE_WEIGHT / len(self._by_dialogue[dialogue.name]) ** 0.5
            for course in courses(dialogue):
                for turns in range(1, len(course) + 1):
                    self._openings.append(course[:turns])
                    self._opening_weights.append(weight)

    def talk(self) -> Talk:
        """One conversation."""
        talk = self.layout.start()
        if self._recitals and self.rng.random() < self.mix.recital:
            text = self.rng.choice(self._recitals)
            audio = self.material.answers[(text, "plain")].tolist()
            self.layout.answer(talk, text, audio, text_weight=0.0)
            return talk
        if self.material.noises and self.rng.random() < self.mix.noise:
            return self._nobody(talk)
        if self.rng.random() < self.mix.tools:
            return self._household(talk)
        if self.rng.random() < self.mix.brief:
            if self.rng.random() < self.mix.undeclared:
                if self._strange(talk, brief=True):
                    return talk
                self._ask(talk, self._spoken_command().said, self.mix.brief_written)
                self._answer(talk, self._refusal, brief=True)
                return talk
            (opening,) = self.rng.choices(self._openings, self._opening_weights)
            *before, last = opening
            for turn in before:
                self._turn(talk, turn)
            self._ask(talk, self._said(last), self.mix.brief_written)
            self._answer(talk, last.answer, brief=True)
            return talk
        while True:
            if self.rng.random() < self.mix.undeclared:
                self._ask(talk, self._spoken_command().said, self.mix.written)
                self._answer(talk, self._refusal)
            elif self.rng.random() < self.mix.dialogue:
                self._dialogue(talk)
            else:
                self._facts(talk)
            if len(talk.ids) > LONGEST or self.rng.random() > self.mix.another_turn:
                return talk

    def _household(self, talk: Talk) -> Talk:
        """A conversation with tools: a command, or a fact, and perhaps a fact after it."""
        if self.rng.random() < self.mix.reply:
            return self._reply(talk)
        brief = self.rng.random() < self.mix.brief
        if self.rng.random() < self.mix.command:
            whole = self._command(talk, brief)
        else:
            self.layout.declare(talk, at_home(self.rng))
            if self.rng.random() < STRANGE:
                if self._strange(talk, brief):
                    return talk
                self._turn(talk, self.rng.choice(self._families["refuse"]), brief)
            else:
                self._any_fact(talk, brief)
            whole = not brief
        if whole and self.rng.random() < self.mix.another_turn:
            self._any_fact(talk)
        return talk

    def _strange(self, talk: Talk, brief: bool) -> bool:
        """Sometimes what is outside all that it knows, which is refused; whether it is."""
        if not self._outside or self.rng.random() >= OUTSIDE:
            return False
        text = self.rng.choice(self._outside)
        self._ask(talk, text, written=0.0)
        self._answer(talk, self._refusal, brief=brief)
        return True

    def _nobody(self, talk: Talk) -> Talk:
        """Noise where a question should be, mostly with tools declared; it is refused."""
        if self.rng.random() < NOISE_AT_HOME:
            self.layout.declare(talk, at_home(self.rng))
        self.layout.ask_aloud(talk, self.rng.choice(self.material.noises).tolist(), "")
        self._answer(talk, self._refusal, brief=True)
        return talk

    def _reply(self, talk: Talk) -> Talk:
        """A command in writing, its call, its result, and what is said of that to its end."""
        names = [*self._by_tool]
        (name,) = self.rng.choices(names, [REPLIES.get(name, 1.0) for name in names])
        command = self.rng.choice(self._by_tool[name])
        for _ in range(TRIES):
            reply = draw_reply(command.call, self.rng)
            if (reply.answer, "plain") in self.material.answers:
                break
        self.layout.declare(talk, machine(command.call, self.rng))
        self.layout.ask_in_writing(talk, command.said)
        self.layout.call(talk, command.call.spelt())
        self.layout.result(talk, reply.result)
        self._reply_answer(talk, reply, brief=False)
        return talk

    def _reply_answer(self, talk: Talk, reply: Reply, *, brief: bool) -> bool:
        """What is said of a result; only its first words where the teacher has not said it.

        Returns whether it is whole.
        """
        if (reply.answer, "plain") in self.material.answers:
            self._answer(talk, reply.answer, brief=brief)
            return not brief
        self.layout.begin_answer(talk, reply.answer)
        return False

    def _any_fact(self, talk: Talk, brief: bool = False) -> None:
        (fact,) = self.rng.choices(self.domain.facts, self._weights)
        self._turn(talk, fact, brief)

    def _command(self, talk: Talk, brief: bool) -> bool:
        """A command, what is missing of it, the call, its result and what is said of it.

        Returns whether its last answer is whole, so that something may follow.
        """
        chance = (
            self.mix.command_written if brief else max(self.mix.written, self.mix.command_written)
        )
        written = self.rng.random() < chance
        command = self.rng.choice(commands()) if written else self._spoken_command()
        said = scene(command, self.rng)
        self.layout.declare(talk, said.text)
        self._ask(talk, command.said, float(written))
        if said.missing is not None:
            self._answer(talk, said.missing.asks, brief=brief)
            if brief and self.rng.random() < 0.5:
                return False
            self._ask(talk, said.missing.reply, self.mix.command_written)
        if said.call is None:
            self._answer(talk, self._refusal, brief=brief)
            return not brief
        self.layout.call(talk, said.call.spelt())
        if brief and self.rng.random() < 0.5:
            return False
        done = command.missing.call if said.missing and command.missing else command.call
        reply = draw_reply(done, self.rng)
        self.layout.result(talk, reply.result)
        return self._reply_answer(talk, reply, brief=brief)

    def _spoken_command(self) -> Command:
        """A command that somebody has said, if any."""
        orders, others = self._heard
        among = orders if self.rng.random() < ORDERS else others
        command = self.rng.choice(among)
        if command.said not in self.material.human and self.rng.random() < self.mix.human:
            return self.rng.choice(among)
        return command

    def _dialogue(self, talk: Talk) -> None:
        name = self.rng.choices(
            [*self._by_dialogue], [DIALOGUE_WEIGHTS.get(name, 1.0) for name in self._by_dialogue]
        )[0]
        dialogue = self.rng.choice(self._by_dialogue[name])
        for turn in self.rng.choice(courses(dialogue)):
            self._turn(talk, turn)

    def _facts(self, talk: Talk) -> None:
        (fact,) = self.rng.choices(self.domain.facts, self._weights)
        self._turn(talk, fact)
        if fact.follow and self.rng.random() < self.mix.follow:
            fact = self.rng.choice(self._families[fact.intent])
            self._ask(talk, self.rng.choice(fact.follow), self.mix.written)
            self._answer(talk, fact.answer)
        if self.rng.random() < self.mix.control:
            control = self.rng.choice(self.domain.controls)
            self._control(talk, fact, control)

    def _turn(self, talk: Talk, fact: Fact, brief: bool = False) -> None:
        self._ask(talk, self._said(fact), self.mix.brief_written if brief else self.mix.written)
        self._answer(talk, fact.answer, brief=brief)

    def _said(self, fact: Fact) -> str:
        """One of its phrasings, or what people make of one; one that somebody has said, if any."""
        as_people = fact.said and self.rng.random() < self.mix.as_people
        ways = fact.said if as_people else fact.ask
        heard = [said for said in ways if said in self.material.questions]
        human = [said for said in heard if said in self.material.human]
        return self.rng.choice((self.rng.random() < self.mix.human and human) or heard or ways)

    def _control(self, talk: Talk, fact: Fact, control: Control) -> None:
        self._ask(talk, self.rng.choice(control.ask), self.mix.written)
        self._answer(talk, fact.answer, control.style, OTHER_VOICE if control.other_voice else None)

    def _ask(self, talk: Talk, text: str, written: float) -> None:
        """Ask `text` aloud, or in writing where it was never spoken or with chance `written`."""
        takes = self.material.questions.get(text)
        if takes is None or self.rng.random() < written:
            self.layout.ask_in_writing(talk, text)
        else:
            self.layout.ask_aloud(talk, self._worn(self.rng.choice(takes)), normalise(text))

    def _worn(self, take: Tokens) -> list[int]:
        """`take` as others might say it, or a worse microphone hear it."""
        if self.rng.random() < self.mix.paced:
            take = paced(take, 20, self.rng.randint(*PACES))
        audio = roughen(take, self.rng, self.rng.random() * 2 * self.mix.rough)
        if self.rng.random() < self.mix.blurred:
            audio = blurred(audio, self.rng, BLURRED)
        return audio

    def _answer(
        self,
        talk: Talk,
        text: str,
        style: Style = "plain",
        voice: str | None = None,
        *,
        brief: bool = False,
    ) -> None:
        tempo = style if style in STRETCH else "plain"  # a mood is a voice: its codes are plain
        audio = self.material.answers[(text, tempo)]
        start = len(talk.ids)
        self.layout.answer(talk, text, audio.tolist(), style, voice)
        if brief:
            talk.cut(start + BRIEF)
