"""The decoder's training: what it is shown is what is served, and its network is the server's."""

import io
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch

from aqaa.models.step1 import Step1Config
from aqaa.recipe.decoder.clips import Material, blurred, paced, roughen, stretch
from aqaa.recipe.decoder.corpus import (
    ALONE_CHEAP,
    ALONE_NATURAL,
    CHEAP_TAKES,
    NATURAL_TAKES,
    commands,
    question_plan,
    said_once,
)
from aqaa.recipe.decoder.household import scene
from aqaa.recipe.decoder.layout import Layout, Talk, weave
from aqaa.recipe.decoder.model import NANO, Decoder, save_decoder
from aqaa.recipe.decoder.sampler import BRIEF, ROLES, Mix, Sampler, courses
from aqaa.recipe.decoder.text import CALL_MARKERS, PIECES, Pieces, has_pieces, train_pieces
from aqaa.recipe.decoder.train import losses, make_batch
from aqaa.recipe.domain.load import Domain, load_domain
from aqaa.recipe.domain.numbers import normalise
from aqaa.recipe.domain.replies import all_answers
from aqaa.recipe.domain.tools import STRANGERS, TOOLS, Call, shown
from aqaa.recipe.evaluate.pipeline import is_legal
from aqaa.recipe.optimiser import orthogonalise
from aqaa.recipe.training import between
from aqaa.server.dialogue.answer_parser import AnswerParser, AudioGroup, End, Malformed, TextDelta
from aqaa.server.dialogue.prompt import AssistantTurn, PromptBuilder, UserTurn
from aqaa.server.engine.embedded.step1 import Step1
from aqaa.tokenizers.text import TextTokenizer

SPEECH = [3, 4, 1024, 1025, 1026] * 7  # audio tokens of 0.84 s


def a_shape(hidden: int, heads: int, groups: int) -> Step1Config:
    """A decoder of two small layers."""
    return replace(
        NANO,
        hidden_size=hidden,
        intermediate_size=96,
        num_attention_heads=heads,
        num_attention_groups=groups,
        num_hidden_layers=2,
    )


@pytest.fixture(scope="module")
def domain() -> Domain:
    return load_domain()


@pytest.fixture(scope="module")
def pieces_path(domain: Domain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pieces") / "tokenizer.model"
    train_pieces(domain, path)
    return path


@pytest.fixture(scope="module")
def layout(pieces_path: Path) -> Layout:
    return Layout(Pieces.load(pieces_path))


def sampler_of(domain: Domain, layout: Layout, mix: Mix) -> Sampler:
    """Draws what `mix` says, every clip of it the same."""
    speech = np.array(SPEECH, np.uint16)
    said = (*domain.questions(), *domain.variants(), *domain.outside, *said_once())
    questions = {text: [speech] for text in said}
    plain = {(text, "plain"): speech for text in (*domain.answers(), *all_answers())}
    styled = {(text, s): speech for text in domain.answers() for s in ("slow", "fast")}
    return Sampler(domain, Material(questions, plain | styled), layout, mix, seed=3)


@pytest.fixture(scope="module")
def sampler(domain: Domain, layout: Layout) -> Sampler:
    return sampler_of(domain, layout, Mix(brief=0.0))


def test_questions_are_set_apart_for_judging() -> None:
    codes = np.array(SPEECH, np.uint16)
    questions = {f"Question {number}?": [codes] for number in range(400)}
    material = Material(questions, {("Yes.", "plain"): codes}, human={*list(questions)[:200]})

    learned, judged = material.apart(0.1, seed=1)

    assert learned.questions.keys() | judged.questions.keys() == questions.keys()
    assert not learned.questions.keys() & judged.questions.keys()
    assert 20 < len(judged.questions) < 60
    assert judged.human == material.human & judged.questions.keys()
    assert judged.answers == material.answers


def test_a_plan_grows_with_the_domain_and_keeps_what_is_planned(
    domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQAA_NANO_WORK", str(tmp_path))
    smaller = replace(domain, dialogues=(), controls=())

    first, then = question_plan(smaller), question_plan(domain)

    assert then[: len(first)] == first
    once = {*said_once(), *domain.outside}
    assert {u.text for u in first} == {*smaller.questions(), *smaller.variants()} | once
    assert {u.text for u in then} == {*domain.questions(), *domain.variants()} | once
    assert question_plan(domain) == then


def test_a_question_that_stands_in_no_table_is_said_by_more_voices(
    domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQAA_NANO_WORK", str(tmp_path))

    times = Counter(u.text for u in question_plan(domain))

    assert times["Hello there."] == ALONE_CHEAP + ALONE_NATURAL
    assert times["What is the capital of France?"] == CHEAP_TAKES + NATURAL_TAKES


def test_of_an_answer_that_was_never_rendered_only_the_first_words_are_learned(
    domain: Domain, layout: Layout
) -> None:
    sampler = sampler_of(domain, layout, Mix(tools=1.0, command=1.0, brief=0.0))
    answers = sampler.material.answers
    sampler.material.answers = {k: v for k, v in answers.items() if "The timer is" not in k[0]}
    silent = 0
    for talk in (sampler.talk() for _ in range(300)):
        said = layout.pieces.model.decode(text_ids(talk, layout))
        if "The timer is" in said:
            last = talk.ids[-1]
            assert last < layout.tokens.audio_offset
            assert last != layout.tokens.eot
            assert talk.weights[-1] > 0
            silent += 1
    assert silent > 10


def test_spoken_commands_come_of_those_that_somebody_has_said(
    domain: Domain, layout: Layout
) -> None:
    mix = Mix(tools=1.0, command=1.0, brief=1.0, command_written=0.0)
    spoken = {command.said for command in commands()[:40]}
    material = sampler_of(domain, layout, mix).material
    material.questions = {
        text: takes for text, takes in material.questions.items() if text in spoken
    }
    sampler = Sampler(domain, material, layout, mix, seed=4)
    firsts = [talk.heard for talk in (sampler.talk() for _ in range(60))]
    assert all(firsts)


def test_among_tools_much_is_asked_that_none_is_for(domain: Domain, layout: Layout) -> None:
    sampler = sampler_of(domain, layout, Mix(tools=1.0, command=0.0, brief=1.0))
    talks = [layout.pieces.model.decode(text_ids(sampler.talk(), layout)) for _ in range(100)]
    refused = sum("Sorry, I am too small" in text for text in talks)
    assert 25 < refused < 65
    assert not any('{"name":"' in text for text in talks)


def test_half_of_what_is_refused_among_tools_is_outside_the_domain(
    domain: Domain, layout: Layout
) -> None:
    sampler = sampler_of(domain, layout, Mix(tools=1.0, command=0.0, brief=1.0, another_turn=0.0))
    outside = {normalise(text) for text in domain.outside}
    talks = [
        t for t in (sampler.talk() for _ in range(400)) if t.heard and t.heard[0][2] in outside
    ]
    assert 70 < len(talks) < 130
    texts = [layout.pieces.model.decode(text_ids(talk, layout)) for talk in talks]
    assert all("Sorry, I am too small" in text for text in texts)


def test_what_a_person_may_have_said_is_drawn_more_often(domain: Domain, layout: Layout) -> None:
    def shares(human: float) -> int:
        mix = Mix(tools=1.0, command=1.0, brief=1.0, command_written=0.0, human=human)
        sampler = sampler_of(domain, layout, mix)
        sampler.material.human = {c.said for c in commands()[::2]}
        spoken = {normalise(said) for said in sampler.material.human}
        talks = [sampler.talk() for _ in range(300)]
        return sum(talk.heard[0][2] in spoken for talk in talks if talk.heard)

    assert shares(0.0) + 20 < shares(1.0)


def test_a_take_is_paced_and_blurred_in_whole_groups_of_its_books() -> None:
    rng = random.Random(2)
    take = np.array(SPEECH * 4, np.uint16)
    assert len(paced(take, 20, 17)) < len(take) < len(paced(take, 20, 24))
    for _ in range(50):
        worn = np.array(blurred(take, rng, 20))
        assert len(worn) == len(take)
        assert ((worn < 1024) == (take < 1024)).all()
        changed = np.flatnonzero(worn != take)
        assert len(changed) == 0 or changed[-1] - changed[0] < 20


def test_dropout_is_of_training_alone() -> None:
    config = a_shape(64, 4, 2)
    torch.manual_seed(1)
    model = Decoder(config, 27, ear_layer=1, dropout=0.5)
    ids = torch.arange(24)[None]

    def hidden() -> torch.Tensor:
        with torch.no_grad():
            return model.hidden(ids, model.attention_bias(24))[0]

    assert not torch.equal(hidden(), hidden())
    model.eval()
    assert torch.equal(hidden(), hidden())


def test_of_a_recital_the_sound_and_its_end_are_learned_and_no_word(
    domain: Domain, layout: Layout
) -> None:
    sampler = sampler_of(domain, layout, Mix(recital=1.0))
    own = {*domain.answers()}
    for talk in (sampler.talk() for _ in range(20)):
        words = layout.pieces.model.decode(text_ids(talk, layout)).removeprefix("assistant\n")
        assert words not in own
        learned = [token for token, weight in zip(talk.ids, talk.weights, strict=True) if weight]
        speech = [layout.tokens.audio_offset + token for token in SPEECH]
        assert learned == [*speech, layout.tokens.audio_end, layout.tokens.eot]


def test_a_reply_is_whole_where_the_teacher_has_said_it(domain: Domain, layout: Layout) -> None:
    sampler = sampler_of(domain, layout, Mix(tools=1.0, reply=1.0))
    tokens, begin = layout.tokens, layout.pieces.control(CALL_MARKERS[0])
    tool_turn = [tokens.bot, *layout.pieces.encode("tool\n")]
    for talk in (sampler.talk() for _ in range(50)):
        called = talk.ids.index(begin)
        start = talk.ids.index(tokens.audio_start)
        assert is_legal(talk.ids[start:], tokens)
        between = talk.ids[called:start]
        assert any(between[i : i + len(tool_turn)] == tool_turn for i in range(len(between)))


def test_where_nobody_speaks_nothing_is_called(domain: Domain, layout: Layout) -> None:
    sampler = sampler_of(domain, layout, Mix(noise=1.0))
    sampler.material.noises = [np.array(SPEECH, np.uint16)]
    talks = [sampler.talk() for _ in range(50)]
    texts = [layout.pieces.model.decode(text_ids(talk, layout)) for talk in talks]
    assert all("Sorry, I am too small" in text for text in texts)
    assert sum("tools: " in text for text in texts) > 30
    assert len(make_batch(talks, pad=0).heard) == 0


def text_ids(talk: Talk, layout: Layout) -> list[int]:
    return [token for token in talk.ids if token < layout.tokens.audio_offset]


def test_text_ids_end_where_audio_ids_begin(layout: Layout) -> None:
    assert layout.pieces.model.get_piece_size() <= PIECES == layout.tokens.audio_offset


def test_a_trained_prompt_is_the_served_prompt(layout: Layout, pieces_path: Path) -> None:
    talk = layout.start()
    layout.ask_in_writing(talk, "What is two plus three?")
    before = len(talk.ids)
    layout.answer(talk, "The answer is five.", SPEECH, "plain", None)
    answer = talk.ids[before + 2 :]
    layout.ask_aloud(talk, SPEECH, "repeat that")
    asked = len(talk.ids)
    layout.answer(talk, "The answer is five.", SPEECH, "slow", "ada")

    builder = PromptBuilder(layout.tokens, TextTokenizer.load(pieces_path), budget=1000)
    heard = tuple(layout.tokens.audio_offset + token for token in SPEECH)
    turns = [
        UserTurn(("What is two plus three?",)),
        AssistantTurn(tuple(answer)),
        UserTurn((heard,)),
    ]
    assert builder.finished(turns) == talk.ids[: asked + 2]


def test_an_answer_is_what_the_servers_parser_takes(layout: Layout, pieces_path: Path) -> None:
    talk = layout.start()
    layout.answer(talk, "Roses are red, violets are blue, and so are you.", SPEECH, "slow", "ada")
    parser = AnswerParser(layout.tokens, TextTokenizer.load(pieces_path))
    events = parser.push(talk.ids[3:])
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    groups = [event.tokens for event in events if isinstance(event, AudioGroup)]
    assert text == "Roses are red, violets are blue, and so are you."
    assert [token for group in groups for token in group] == SPEECH
    assert isinstance(events[-1], End)
    assert not any(isinstance(event, Malformed) for event in events)


def test_every_sampled_answer_is_legal(sampler: Sampler, layout: Layout) -> None:
    tokens = layout.tokens
    for _ in range(50):
        ids = sampler.talk().ids
        starts = [place for place, token in enumerate(ids) if token == tokens.audio_start]
        for start in starts:
            end = ids.index(tokens.eot, start) + 1
            assert is_legal(ids[start:end], tokens)


def test_a_brief_talk_may_be_a_dialogue_and_ends_with_the_words_of_its_last_answer(
    domain: Domain, layout: Layout
) -> None:
    brief, tokens = sampler_of(domain, layout, Mix(brief=1.0, tools=0.0)), layout.tokens

    answers = Counter()
    for _ in range(200):
        ids = brief.talk().ids
        starts = [place for place, token in enumerate(ids) if token == tokens.audio_start]
        answers[len(starts)] += 1
        assert len(ids) - starts[-1] < BRIEF
        for start in starts[:-1]:
            assert is_legal(ids[start : ids.index(tokens.eot, start) + 1], tokens)

    assert answers[1] > answers[2] > 0


def test_in_a_role_anything_of_it_may_be_asked_at_once(domain: Domain) -> None:
    roles = [dialogue for dialogue in domain.dialogues if dialogue.name in ROLES]

    for dialogue in roles:
        role, *asked = dialogue.turns
        assert courses(dialogue) == [(role, turn) for turn in asked]

    assert {dialogue.name for dialogue in roles} == set(ROLES)


def test_pieces_that_cannot_spell_a_call_are_those_of_the_first_edition(
    pieces_path: Path, tmp_path: Path
) -> None:
    assert has_pieces(pieces_path)
    assert not has_pieces(tmp_path / "tokenizer.model")
    first = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["what is the capital of france"] * 9),
        model_writer=first,
        vocab_size=30,
        model_type="bpe",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / "tokenizer.model").write_bytes(first.getvalue())
    assert not has_pieces(tmp_path / "tokenizer.model")


def test_calls_and_declarations_are_spelt_in_few_pieces_and_read_again(layout: Layout) -> None:
    timer = Call("set_timer", (("minutes", 5),))
    assert len(layout.pieces.encode(timer.spelt())) == 6
    assert len(layout.pieces.encode(shown(list(TOOLS.values())))) < 70
    for text in (timer.spelt(), shown(STRANGERS), '{"temperature":-3,"sky":"rain"}', "16:10 °C"):
        assert layout.pieces.model.decode(layout.pieces.encode(text)) == text


def test_with_tools_a_call_is_made_of_what_is_declared_and_then_its_result_is_spoken(
    domain: Domain, layout: Layout
) -> None:
    household = sampler_of(domain, layout, Mix(brief=0.0, tools=1.0, command=1.0, another_turn=0.0))
    markers = [layout.pieces.control(marker) for marker in CALL_MARKERS]
    tool_turn = [layout.tokens.bot, *layout.pieces.encode("tool\n")]
    called = refused = 0
    for _ in range(300):
        talk = household.talk()
        declared = layout.pieces.model.decode(talk.ids[: talk.ids.index(layout.tokens.eot)])
        if markers[0] not in talk.ids:
            refused += 1
            continue
        called += 1
        first, last = (talk.ids.index(marker) for marker in markers)
        call = json.loads(layout.pieces.model.decode(talk.ids[first + 1 : last]))
        signature = declared.split(call["name"])[1].split(")")[0]
        names = [name.rstrip("?") for name in signature.strip("(").split(",")]
        assert set(call["arguments"]) <= set(names)
        assert talk.ids[last + 1] == layout.tokens.eot
        assert talk.ids[last + 2 : last + 2 + len(tool_turn)] == tool_turn
        assert all(weight > 0 for weight in talk.weights[first : last + 2])
        assert layout.tokens.audio_start in talk.ids[last:]
    assert called > 200
    assert refused > 15


def test_a_command_without_its_tool_is_refused_and_a_missing_word_is_asked_for() -> None:
    rng = random.Random(2)
    given = [(command, scene(command, rng)) for command in commands()]
    for command, found in given:
        if found.call is None:
            assert found.missing is None
            assert command.call.name not in found.text
        if found.missing is not None and not found.missing.always:
            assert f"{found.missing.parameter}?" not in found.text
    asked_back = [found for _, found in given if found.missing is not None]
    assert 0.03 < len(asked_back) / len(given) < 0.12


def test_an_answer_out_of_phase_or_without_an_end_is_not_legal(layout: Layout) -> None:
    talk = layout.start()
    layout.answer(talk, "Yes.", SPEECH, "plain", None)
    answer = talk.ids[3:]
    assert is_legal(answer, layout.tokens)
    assert not is_legal(answer[:-1], layout.tokens)
    first_audio = next(i for i, token in enumerate(answer) if token >= PIECES)
    assert not is_legal(answer[:first_audio] + answer[first_audio + 1 :], layout.tokens)


def test_weaving_lets_text_run_out_first() -> None:
    assert weave([1, 2, 3], [7, 8, 9, 7, 8], 2, 3) == [1, 2, 7, 8, 9, 3, 7, 8]


@pytest.mark.parametrize(("style", "longer"), [("slow", 7 / 5), ("fast", 7 / 10)])
def test_a_tempo_changes_the_length_and_keeps_the_phase(style: str, longer: float) -> None:
    groups = np.arange(60)
    plain = np.stack([groups, groups, groups + 1024, groups + 1024, groups + 1024], 1).reshape(-1)
    other = stretch(plain.astype(np.uint16), style).reshape(-1, 5)  # type: ignore[arg-type]
    assert abs(len(other) / 60 - longer) < 0.02
    assert (other[:, :2] < 1024).all()
    assert (other[:, 2:] >= 1024).all()
    assert (np.diff(other[:, 0].astype(int)) >= 0).all()


def test_roughened_codes_stay_in_their_codebook() -> None:
    rough = roughen(np.array(SPEECH, np.uint16), random.Random(0), 1.0)
    assert [token < 1024 for token in rough] == [token < 1024 for token in SPEECH]
    assert rough != SPEECH


def test_the_update_of_a_matrix_has_singular_values_near_one() -> None:
    values = torch.linalg.svdvals(orthogonalise(torch.randn(2, 24, 60)))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_between_two_decoders_each_weight_is_between_theirs() -> None:
    config = replace(NANO, vocab_size=64, hidden_size=32, num_hidden_layers=1)
    one, other = (Decoder(config, 27, ear_layer=1) for _ in range(2))

    middle = between(one, other, 0.25)

    for a, b, m in zip(one.parameters(), other.parameters(), middle.parameters(), strict=True):
        torch.testing.assert_close(m, 0.75 * a + 0.25 * b)


def test_padding_changes_no_loss(sampler: Sampler) -> None:
    torch.manual_seed(0)
    model = Decoder(a_shape(hidden=64, heads=2, groups=2), letters=28, ear_layer=1)
    talks = sorted((sampler.talk() for _ in range(2)), key=lambda talk: len(talk.ids))
    alone = [losses(model, make_batch([talk], pad=0), ear_weight=0.0) for talk in talks]
    both, _ = losses(model, make_batch(talks, pad=0), ear_weight=0.0)
    weights = [sum(talk.weights) for talk in talks]
    expected = sum(w * loss for w, (loss, _) in zip(weights, alone, strict=True)) / sum(weights)
    torch.testing.assert_close(both, expected)


def test_what_the_ear_misspells_is_added_to_the_loss_by_its_weight(sampler: Sampler) -> None:
    torch.manual_seed(0)
    model = Decoder(a_shape(hidden=64, heads=2, groups=2), letters=28, ear_layer=1)
    batch = make_batch([sampler.talk() for _ in range(24)], pad=0)
    deaf, _ = losses(model, batch, ear_weight=0.0)
    half, report = losses(model, batch, ear_weight=0.5)
    assert report["ear"] > 0
    torch.testing.assert_close(half - deaf, 0.5 * report["ear"])


@pytest.mark.parametrize(("heads", "groups"), [(2, 1), (6, 2)])
def test_the_network_trained_is_the_network_served(tmp_path: Path, heads: int, groups: int) -> None:
    torch.manual_seed(1)
    model = Decoder(a_shape(32 * heads, heads, groups), letters=1, ear_layer=1)
    model.half().float()  # what the file can hold
    save_decoder(model, tmp_path, bos=1, eos=3, pad=0)
    served = Step1.load(tmp_path)
    ids = torch.randint(0, 6144, (40,))
    cache = served.empty_cache(64)
    with torch.no_grad():
        expected = model.logits(ids[None])[0]
        torch.testing.assert_close(
            served.logits(served.forward(ids, cache, 0)), expected, rtol=1e-4, atol=1e-4
        )
