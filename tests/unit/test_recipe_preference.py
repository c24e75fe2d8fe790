"""Preference: whose words are compared, what the loss moves, and how weights are merged."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from aqaa.recipe.__main__ import STAGES, wanted
from aqaa.recipe.decoder import preference
from aqaa.recipe.decoder.layout import Talk
from aqaa.recipe.decoder.model import NANO, Decoder
from aqaa.recipe.decoder.preference import (
    Pair,
    draw_pairs,
    merge,
    prefer,
    preference_loss,
    sample,
    serving,
    share_right,
    split,
    text_log_probabilities,
    text_of,
)
from aqaa.recipe.decoder.sampler import Sampler

OFFSET = 20  # ids from here on are audio
SHAPE = replace(
    NANO,
    vocab_size=40,
    hidden_size=32,
    intermediate_size=32,
    num_attention_heads=2,
    num_attention_groups=1,
    num_hidden_layers=1,
)
PAIR = Pair((1, 4, 25, 3), (5, 30, 6, 31), (7, 30, 6, 32))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def a_decoder() -> Decoder:
    return Decoder(SHAPE, letters=1, ear_layer=1).eval()


def a_talk(answer: list[int]) -> Talk:
    talk = Talk()
    talk.add([1, 4])
    talk.add([8, 9], 1.0)  # an answer before the last question
    talk.add(PAIR.prompt[2:])
    talk.add(answer, 1.0)
    return talk


def test_the_last_answer_is_what_is_predicted_at_the_end() -> None:
    prompt, answer = split(a_talk([5, 30, 6]))
    assert prompt == [1, 4, 8, 9, 25, 3]
    assert answer == [5, 30, 6]


def test_only_text_ids_count() -> None:
    model = a_decoder()
    scores = model.logits(torch.tensor([[*PAIR.prompt, *PAIR.chosen]]))[0].log_softmax(-1)
    by_hand = scores[3, 5] + scores[5, 6]  # the places before the ids 5 and 6
    found = text_log_probabilities(model, [PAIR.prompt], [PAIR.chosen], OFFSET)
    assert found.tolist() == pytest.approx([by_hand.item()], abs=1e-5)


def test_padding_changes_nothing() -> None:
    model = a_decoder()
    longer = (*PAIR.chosen, 9, 33, 2)
    both = text_log_probabilities(model, [PAIR.prompt] * 2, [PAIR.chosen, longer], OFFSET)
    alone = text_log_probabilities(model, [PAIR.prompt], [PAIR.chosen], OFFSET)
    assert both[0].item() == pytest.approx(alone[0].item(), abs=1e-5)


def test_at_the_reference_nothing_is_preferred() -> None:
    model = a_decoder()
    found = preference_loss(model, model, [PAIR], OFFSET)
    assert found["preference"].item() == pytest.approx(0.6931, abs=1e-3)


def test_preference_moves_from_the_rejected_words_to_the_chosen(tmp_path: Path) -> None:
    model = a_decoder()

    @torch.no_grad()
    def margin(decoder: Decoder) -> float:
        good, bad = (
            float(text_log_probabilities(decoder, [PAIR.prompt], [answer], OFFSET)[0])
            for answer in (PAIR.chosen, PAIR.rejected)
        )
        return good - bad

    before = margin(model)
    after = prefer(model, [PAIR], OFFSET, 60, tmp_path / "preferred.pt")
    assert margin(after) > before + 0.2
    assert margin(model) == before


def test_samples_have_their_length_and_the_likeliest_is_one() -> None:
    model = a_decoder()
    served = serving(model)
    answers = sample(served, PAIR.prompt, 5, 6, 1.0)
    assert [len(answer) for answer in answers] == [6] * 5
    assert len({tuple(answer) for answer in answers}) > 1
    likeliest = sample(served, PAIR.prompt, 2, 4, 0.0)
    assert likeliest[0] == likeliest[1]
    whole = model.logits(torch.tensor([[*PAIR.prompt, *likeliest[0]]]))[0].argmax(-1)
    assert whole[len(PAIR.prompt) - 1 : -1].tolist() == likeliest[0]
    assert text_of([5, 30, 6, 31], OFFSET) == [5, 6]


def test_the_most_frequent_of_wrong_words_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [[5, 30, 6, 31], [7, 33, 6, 31], [8, 30, 9, 31], [7, 34, 6, 32]]
    answers = iter([said, [said[0]] * 4])
    monkeypatch.setattr(preference, "sample", lambda *_: next(answers))
    sampler = SimpleNamespace(
        layout=SimpleNamespace(tokens=SimpleNamespace(audio_offset=OFFSET)),
        talk=lambda: a_talk([5, 30, 6, 32]),
    )
    (pair,) = draw_pairs(a_decoder(), cast(Sampler, sampler), 2)  # none of what is all right
    assert (pair.chosen, pair.rejected) == ((5, 30, 6, 32), (7, 33, 6, 31))


def test_it_runs_only_where_it_is_named() -> None:
    assert "preference" not in wanted([])
    assert wanted(["pack", "preference"]) == ["preference", "pack"]
    assert len(wanted([])) == len(STAGES) - 1


def test_the_merge_that_answers_best_is_taken() -> None:
    before, after = a_decoder(), a_decoder()
    likeliest = [
        sample(serving(model), [1, 4, 8, 9, 25, 3], 1, 3, 0.0)[0] for model in (before, after)
    ]
    assert text_of(likeliest[0], OFFSET) != text_of(likeliest[1], OFFSET)
    talks = [a_talk(likeliest[0])]
    assert share_right(before, talks, OFFSET) == 1.0
    assert share_right(merge(before, after, talks, OFFSET), talks, OFFSET) == 1.0


def test_of_merges_that_answer_alike_nothing_of_the_after_is_taken() -> None:
    before, after = a_decoder(), a_decoder()
    merged = merge(before, after, [], OFFSET)
    assert torch.equal(merged.lm_head.weight, before.lm_head.weight)
