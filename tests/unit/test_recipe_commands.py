"""The household: what is said means its call, and the evaluation's words are not in it."""

import json
import random
from collections import Counter
from pathlib import Path
from string import Formatter

import pytest
import yaml

from aqaa.recipe.domain.asking import aside, hesitate, restart, shorten, variants
from aqaa.recipe.domain.commands import Command, draw_commands
from aqaa.recipe.domain.grammar import draw
from aqaa.recipe.domain.load import load_domain
from aqaa.recipe.domain.numbers import normalise
from aqaa.recipe.domain.replies import FAILURE, all_answers, done, draw_reply, time_words
from aqaa.recipe.domain.tools import COFFEE, COFFEE_SHORT, TOOLS, Call, shown
from aqaa.recipe.evaluate import questions
from aqaa.recipe.evaluate.household import PEOPLE_SAID
from aqaa.recipe.evaluate.questions import as_people_open, held_out_questions

EVALUATED = Path(questions.__file__).parent


@pytest.fixture(scope="module")
def commands() -> list[Command]:
    return draw_commands(6000)


def calls(command: Command) -> list[Call]:
    """The call at once, or after the question back, or either."""
    whole = [command.missing.call] if command.missing else []
    return whole if command.missing and command.missing.always else [command.call, *whole]


def test_a_grammar_draws_its_parts_and_nothing_else() -> None:
    rng = random.Random(0)
    drawn = {draw("(set|start) a timer [please|(now|later)].", rng) for _ in range(300)}
    verbs, ends = ("set", "start"), ("", " please", " now", " later")
    assert drawn == {f"{verb} a timer{end}." for verb in verbs for end in ends}


@pytest.mark.parametrize("line", ["(a|b", "a]", "[a)"])
def test_a_bracket_without_its_partner_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"bracket|opens"):
        draw(line, random.Random(0))


def test_what_people_say_about_a_question_leaves_its_words_in_order() -> None:
    rng = random.Random(1)
    assert restart("what is the moon", rng).endswith("what is the moon")
    assert [w for w in hesitate("what is the moon", rng).replace(",", "").split()
            if w in ("what", "is", "the", "moon")] == ["what", "is", "the", "moon"]  # fmt: skip
    assert shorten("what is the moon", rng) == "what's the moon"
    said, end = aside("how many legs does a dog have", "?", rng)
    assert said.endswith("how many legs a dog has")
    assert end in ".?"


def test_there_are_nearly_three_times_the_phrasings_that_are_written_down() -> None:
    domain = load_domain()
    facts = [*domain.facts, *(turn for dialogue in domain.dialogues for turn in dialogue.turns)]
    written = {ask for fact in facts for ask in fact.ask}
    assert len(written | set(domain.variants())) >= 2.8 * len(written)
    assert variants("What is the moon?", 2) == variants("What is the moon?", 2)


def test_no_two_commands_have_the_same_words_and_every_tool_is_asked_for(
    commands: list[Command],
) -> None:
    assert len({normalise(command.said) for command in commands}) == len(commands)
    assert Counter(command.call.name for command in commands).keys() == TOOLS.keys()


def test_no_slot_or_bracket_is_left_in_what_is_said(commands: list[Command]) -> None:
    said = [c.said for c in commands] + [c.missing.reply for c in commands if c.missing]
    assert [text for text in said if any(f for _, f, _, _ in Formatter().parse(text))] == []
    assert [text for text in said if set(text) & set("[]()|") or ",." in text] == []


def test_a_call_has_only_declared_arguments_in_their_order_and_kind(
    commands: list[Command],
) -> None:
    kinds = {"string": str, "integer": int, "boolean": bool, "integer or string": (int, str)}
    for command in commands:
        for call in calls(command):
            declared = dict(TOOLS[call.name].parameters)
            given = [name for name, _ in call.arguments]
            assert given == [name for name in declared if name in given]
            for name, value in call.arguments:
                assert isinstance(value, kinds[declared[name]])
            assert json.loads(call.spelt())["arguments"] == dict(call.arguments)


def test_the_words_of_a_call_were_said(commands: list[Command]) -> None:
    """Strings of a call are the user's words; up, down and days may be said in another way."""
    for command in commands:
        if command.call.name in ("set_volume", "get_time", "cancel_timer"):
            continue
        said = normalise(f"{command.said} {command.missing.reply if command.missing else ''}")
        for call in calls(command):
            for _, value in call.arguments:
                if isinstance(value, str) and not said_with_fillers(value, said):
                    raise AssertionError(f"{value!r} is not in {said!r}")


def said_with_fillers(value: str, said: str) -> bool:
    """Whether the words of `value` come in `said` in their order, fillers between them allowed."""
    words = iter(said.split())
    return all(any(word == heard for heard in words) for word in normalise(value).split())


def test_what_is_missing_is_in_the_call_after_the_reply(commands: list[Command]) -> None:
    lacking = [c for c in commands if c.missing]
    assert len(lacking) > 300
    for command in lacking:
        assert command.missing is not None
        before, after = dict(command.call.arguments), dict(command.missing.call.arguments)
        assert before.items() <= after.items()
        assert command.missing.parameter not in before
        named = {"duration": {"hours", "minutes", "seconds"}}
        wanted = named.get(command.missing.parameter, {command.missing.parameter})
        assert wanted & after.keys()


def test_every_answer_to_a_result_is_among_those_that_are_spoken(commands: list[Command]) -> None:
    spoken = set(all_answers())
    rng = random.Random(0)
    for command in commands:
        for call in calls(command):
            assert draw_reply(call, rng).answer in spoken


def test_answers_say_times_durations_and_orders_as_people_do() -> None:
    assert [time_words(*t) for t in ((16, 10), (0, 0), (12, 30), (23, 45), (9, 52))] == [
        "ten past four", "twelve o'clock", "half past twelve", "quarter to twelve", "eight to ten",
    ]  # fmt: skip
    hour = Call("set_timer", (("hours", 1), ("minutes", 30)))
    assert done(hour) == "The timer is set for one hour and thirty minutes."
    order = Call("order_coffee", (("coffeeDrink", "espresso"),))
    assert done(order) == "An espresso is coming."


def test_a_failed_tool_is_told_honestly() -> None:
    answers = [draw_reply(Call("cancel_timer"), random.Random(n)) for n in range(200)]
    failed = [reply for reply in answers if reply.answer == FAILURE]
    assert failed
    assert all("rr" in reply.result or "false" in reply.result for reply in failed)


def test_a_declared_tool_is_shown_by_its_signature() -> None:
    coffee = COFFEE.renamed(COFFEE_SHORT).requiring(["drink", "size"])
    assert shown([TOOLS["get_time"], coffee]) == (
        "tools: get_time() order_coffee(drink,size,roast?,shots?,milk?,sugar?)"
    )
    assert COFFEE.declaration()["parameters"]["required"] == ["coffeeDrink"]


def test_nothing_that_the_evaluation_says_is_trained_on(commands: list[Command]) -> None:
    domain = load_domain()
    said = (*domain.questions(), *domain.variants(), *domain.outside)
    trained = {normalise(text) for text in said}
    assert {normalise(text) for text in PEOPLE_SAID}.isdisjoint(map(normalise, domain.outside))
    trained |= {normalise(c.said) for c in commands}
    trained |= {normalise(c.missing.reply) for c in commands if c.missing}
    people = yaml.safe_load((EVALUATED / "people.yaml").read_text())
    asked = yaml.safe_load((EVALUATED / "commands.yaml").read_text())
    held_out = {normalise(text) for text in people["outside"]}
    held_out |= {normalise(row["said"]) for row in asked}
    opened = as_people_open(held_out_questions(domain))
    assert {normalise(talk.turns[0].said) for talk in opened} & trained == set()
    assert len(held_out) == len(people["outside"]) + len(asked) >= 160
    assert held_out & trained == set()


def test_the_evaluation_calls_only_what_is_declared() -> None:
    for row in yaml.safe_load((EVALUATED / "commands.yaml").read_text()):
        assert row["with"].keys() <= dict(TOOLS[row["call"]].parameters).keys()


def test_an_opening_stands_before_the_question_and_changes_nothing_else() -> None:
    talks = held_out_questions(load_domain())[:16]
    for before, after in zip(talks, as_people_open(talks), strict=True):
        said, opened = before.turns[0].said, after.turns[0].said
        assert opened.lower().endswith(said.lower())
        assert len(opened) > len(said)
        assert after.turns[1:] == before.turns[1:]
        assert after.turns[0].right == before.turns[0].right
