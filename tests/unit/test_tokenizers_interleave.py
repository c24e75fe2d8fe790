"""The weaving of linguistic and semantic codes, and its inverse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqaa.models.errors import TokenError
from aqaa.tokenizers.interleave import Interleaver, deinterleave, interleave

linguistic_codes = st.lists(st.integers(0, 1023), max_size=40)
semantic_codes = st.lists(st.integers(0, 4095), max_size=60)


def test_a_group_is_two_linguistic_and_three_semantic_ids() -> None:
    assert interleave([0, 1023], [0, 1, 4095], 65_536) == [65_536, 66_559, 66_560, 66_561, 70_655]


@given(linguistic_codes, semantic_codes, st.integers(1, 10**6))
def test_taking_apart_gives_back_the_whole_groups(linguistic, semantic, offset) -> None:
    groups = min(len(linguistic) // 2, len(semantic) // 3)
    ids = interleave(linguistic, semantic, offset)
    assert deinterleave(ids, offset) == (linguistic[: 2 * groups], semantic[: 3 * groups])


@given(linguistic_codes, semantic_codes, st.data())
def test_codes_that_arrive_out_of_step_weave_the_same(linguistic, semantic, data) -> None:
    weave = Interleaver(100)
    ids: list[int] = []
    first, second = iter(linguistic), iter(semantic)
    for _ in range(30):
        take = data.draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
        ids += weave.push(*([c for _, c in zip(range(n), s, strict=False)]
                            for n, s in zip(take, (first, second), strict=True)))  # fmt: skip
    ids += weave.copy().push(first, second)
    assert ids == interleave(linguistic, semantic, 100)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([100, 101, 1124], "whole groups"),
        ([100, 101, 1124, 1125, 99], "at index 4 should be a semantic"),
        ([100, 1124, 1124, 1125, 1126], "at index 1 should be a linguistic"),
        ([100, 101, 102, 1125, 1126], "at index 2 should be a semantic"),
        ([100, 101, 1124, 1125, 100 + 5120], "at index 4 should be a semantic"),
    ],
)
def test_ids_out_of_phase_are_refused(ids: list[int], message: str) -> None:
    with pytest.raises(TokenError, match=message):
        deinterleave(ids, 100)


def test_a_code_outside_its_codebook_is_refused_and_changes_nothing() -> None:
    weave = Interleaver(100)
    for codes in (([1024], []), ([-1], []), ([0, 1], [4096])):
        with pytest.raises(TokenError):
            weave.push(*codes)
    assert weave.push([5, 6], [7, 8, 9]) == [105, 106, 1131, 1132, 1133]
