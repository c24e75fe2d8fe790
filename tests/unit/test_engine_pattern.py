"""The pattern of an answer: what keeps it is never forbidden, what breaks it is never drawn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aqaa.models.bundle import TokensConfig, ToolsConfig, load_bundle, nano_path
from aqaa.models.groups import AUDIO_CODES, GROUP_TOKENS
from aqaa.recipe.decoder.layout import weave
from aqaa.recipe.evaluate.pipeline import is_legal
from aqaa.server.engine.contract import SamplingParams
from aqaa.server.engine.embedded.sampling import Sampler
from aqaa.server.engine.pattern import AnswerPattern
from aqaa.server.engine.pattern_mask import PatternMask

NANO = TokensConfig(
    audio_offset=20, audio_start=5, audio_end=6, voice_markers={"joe": 7}, text_block=4,
    audio_block=10,
)  # fmt: skip
BARE = NANO.model_copy(update={"audio_start": None, "audio_end": None})
VOCABULARY = NANO.audio_offset + AUDIO_CODES
GROUP = (0, 1, 1024, 1025, 1026)


def woven(tokens: TokensConfig, text: int, groups: int) -> list[int]:
    """An answer of so many text ids and audio groups."""
    audio = [tokens.audio_offset + code for code in GROUP * groups]
    marks = [m for m in (tokens.audio_start,) if m is not None]
    ends = [m for m in (tokens.audio_end, tokens.eot) if m is not None]
    return [*marks, *weave([9] * text, audio, tokens.text_block, tokens.audio_block), *ends]


def allows(mask: PatternMask, token: int) -> bool:
    logits = torch.zeros(VOCABULARY)
    mask.apply(logits)
    allowed = not logits[token].isneginf()
    assert not allowed or token in range(VOCABULARY)[mask.span(VOCABULARY)]
    return allowed


@pytest.mark.parametrize("tokens", [NANO, BARE], ids=["markers", "no markers"])
@given(text=st.integers(1, 14), groups=st.integers(1, 12))
def test_no_id_of_a_woven_answer_is_ever_forbidden(tokens, text, groups):
    groups = max(groups, 2 * -(-text // tokens.text_block))  # a text's sound is longer than it
    mask = PatternMask(AnswerPattern.of(tokens))
    for token in woven(tokens, text, groups):
        assert allows(mask, token), token
        mask.push([token])


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), repetition_aware=st.booleans())
def test_whatever_the_decoder_says_the_answer_is_legal(seed, repetition_aware):
    params = SamplingParams(
        temperature=1.0,
        top_p=1.0,
        seed=seed,
        pattern=AnswerPattern.of(NANO),
        repetition_aware=repetition_aware,
    )
    sampler = Sampler(params)
    torch.manual_seed(seed)
    liked = torch.randn(VOCABULARY)
    liked[[*range(NANO.audio_offset), NANO.audio_end, NANO.eot]] += 7  # else it would never end
    ids: list[int] = []
    while NANO.eot not in ids and len(ids) < 3000:
        ids.append(sampler.pick(liked.clone(), ids))
    assert is_legal(ids, NANO)
    assert not {NANO.bos, NANO.bot, NANO.pad} & set(ids)


def test_an_answer_of_the_published_vocabulary_may_not_leave_it():
    tokens = TokensConfig()
    mask = PatternMask(AnswerPattern.of(tokens))
    logits = torch.zeros(74_752)
    mask.apply(logits)
    kept = (~logits.isneginf()).nonzero().flatten().tolist()
    assert kept == [i for i in range(65_536) if i not in (tokens.bos, tokens.bot, tokens.pad, 3)]
    mask.push([7] * tokens.text_block)
    logits = torch.zeros(74_752)
    mask.apply(logits)
    assert (~logits.isneginf()).nonzero().flatten().tolist() == list(range(65_536, 65_536 + 1024))


def test_text_does_not_come_back_once_the_voice_goes_on_alone():
    mask = PatternMask(AnswerPattern.of(NANO))
    group = [NANO.audio_offset + code for code in GROUP]
    mask.push([NANO.audio_start, 9, 9, *group, *group])  # two of four: the text is over
    assert not allows(mask, 9)
    assert allows(mask, group[0])
    assert allows(mask, NANO.audio_end)
    mask.push(group[:2])
    assert not allows(mask, NANO.audio_end)


def test_only_a_bundle_that_asks_for_it_is_held_to_the_pattern():
    bundle = load_bundle(nano_path())
    assert SamplingParams.of(bundle).pattern == AnswerPattern.of(bundle.tokens, bundle.tools)
    free = bundle.model_copy(
        update={"sampling": bundle.sampling.model_copy(update={"keep_pattern": False})}
    )
    assert SamplingParams.of(free) == replace(SamplingParams.of(bundle), pattern=None)


TOOLS = ToolsConfig(call_start=8, call_end=10)
CALLED = [8, 9, 11, 10]


def masked(*ids: int, tokens: TokensConfig = NANO, **kind: bool) -> PatternMask:
    return PatternMask(AnswerPattern.of(tokens, TOOLS, **kind), ids)


@pytest.mark.parametrize("tokens", [NANO, BARE], ids=["markers", "no markers"])
def test_an_answer_may_be_a_call_or_end_with_calls(tokens: TokensConfig) -> None:
    spoken = woven(tokens, 3, 2)[:-1]
    for answer in ([*CALLED, 3], [*CALLED, *CALLED, 3], [*spoken, *CALLED, 3]):
        mask = masked(tokens=tokens, may_call=True)
        for token in answer:
            assert allows(mask, token), answer
            mask.push([token])


def test_a_call_holds_text_and_is_followed_by_nothing_but_calls() -> None:
    mask = masked(8, 9, may_call=True)
    assert [i for i in range(30) if allows(mask, i)] == [2, 7, 9, 10, *range(11, 20)]
    mask.push([10])
    assert [i for i in range(30) if allows(mask, i)] == [NANO.eot, 8]
    mask = masked(*CALLED, may_call=True, parallel_calls=False)
    assert [i for i in range(30) if allows(mask, i)] == [NANO.eot]


def test_a_call_does_not_begin_amid_what_is_said() -> None:
    group = [NANO.audio_offset + code for code in GROUP]
    for begun in ([5], [5, 9], [5, 9, 9, *group[:2]], [5, 9, 9, *group]):
        assert not allows(masked(*begun, may_call=True), 8), begun
    assert allows(masked(5, 9, 9, *group, 6, may_call=True), 8)


def test_where_nothing_may_be_called_the_marks_are_never_drawn() -> None:
    group = [NANO.audio_offset + code for code in GROUP]
    for begun in ([], [5], [5, 9], [5, 9, 9, *group, 6]):
        assert not allows(masked(*begun), 8), begun
        assert not allows(masked(*begun), 10), begun


def test_only_an_answer_that_may_call_has_the_marks_in_its_pattern() -> None:
    bundle = load_bundle(nano_path()).model_copy(update={"tools": TOOLS})
    assert SamplingParams.of(bundle).pattern == AnswerPattern.of(bundle.tokens, TOOLS)
    may = SamplingParams.of(bundle, may_call=True).pattern
    assert may == AnswerPattern.of(bundle.tokens, TOOLS, may_call=True)
    assert may != SamplingParams.of(bundle).pattern


def test_a_group_is_what_the_vocoder_takes():
    assert len(GROUP) == GROUP_TOKENS
