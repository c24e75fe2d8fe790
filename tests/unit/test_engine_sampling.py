"""How the next id is drawn."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from aqaa.models.errors import InputError
from aqaa.server.engine.contract import SamplingParams
from aqaa.server.engine.embedded.sampling import CANDIDATE_MIN_SHARE, Sampler, repeated_id


def draws(logits: list[float], count: int = 400, **params: object) -> Counter[int]:
    sampler = Sampler(SamplingParams(**{"seed": 1, **params}))  # type: ignore[arg-type]
    return Counter(sampler.pick(torch.tensor(logits), []) for _ in range(count))


def test_temperature_0_takes_the_likeliest_id() -> None:
    assert draws([0.0, 3.0, 2.9], temperature=0.0) == {1: 400}


def test_ids_are_drawn_as_often_as_they_are_likely() -> None:
    logits = [math.log(0.1), math.log(0.6), math.log(0.3)]
    seen = draws(logits, 4000, temperature=1.0, top_p=1.0)
    for token, share in enumerate((0.1, 0.6, 0.3)):
        # five standard deviations of a binomial
        assert abs(seen[token] - 4000 * share) < 5 * math.sqrt(4000 * share * (1 - share))


def test_a_low_temperature_sharpens() -> None:
    logits = [math.log(0.4), math.log(0.6)]
    assert draws(logits, temperature=0.1)[1] > draws(logits, temperature=1.0)[1]


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    logits = [math.log(0.5), math.log(0.3), math.log(0.15), math.log(0.05)]
    assert set(draws(logits, temperature=1.0, top_p=0.79)) == {0, 1}
    assert set(draws(logits, temperature=1.0, top_p=0.81)) == {0, 1, 2}


def test_top_p_reaches_the_unlikely_ids_that_are_not_looked_at_first() -> None:
    unlikely = 2000
    share = CANDIDATE_MIN_SHARE / 2
    logits = [0.0] + [math.log(share)] * unlikely
    seen = draws(logits, 1000, temperature=1.0, top_p=1.0)
    # Half of all draws fall on one of the many; five standard deviations of a binomial.
    assert abs(seen[0] - 500) < 5 * math.sqrt(1000 / 4)


def test_the_same_seed_draws_the_same_ids() -> None:
    first, second = (Sampler(SamplingParams(seed=5)) for _ in range(2))
    logits = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert [first.pick(logits.clone(), []) for _ in range(20)] == [
        second.pick(logits.clone(), []) for _ in range(20)
    ]


def test_a_repeated_last_id_may_not_come_again() -> None:
    assert repeated_id([1, 2, 3, 4, 5, 6, 7, 8, 4, 4]) == 4
    assert repeated_id([4, 2, 3, 9, 5, 6, 7, 8, 1, 4]) == 4


def test_only_the_last_ten_ids_count() -> None:
    assert repeated_id([4, 1, 2, 3, 9, 5, 6, 7, 8, 0, 4]) is None


def test_fewer_than_ten_ids_are_left_alone() -> None:
    assert repeated_id([4] * 9) is None


def test_an_id_that_is_repeated_but_not_last_may_come() -> None:
    assert repeated_id([4, 4, 4, 4, 4, 4, 4, 4, 4, 1]) is None


def test_the_repetition_rule_overrules_the_likeliest_id() -> None:
    logits = [0.0, 2.0, 1.0]
    for aware, expected in ((False, 1), (True, 2)):
        sampler = Sampler(SamplingParams(temperature=0.0, repetition_aware=aware))
        assert sampler.pick(torch.tensor(logits), [1] * 10) == expected


@pytest.mark.parametrize(
    "values",
    [{"temperature": -0.1}, {"top_p": 0.0}, {"top_p": 1.1}, {"max_tokens": 0}],
    ids=str,
)
def test_values_outside_their_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(InputError):
        SamplingParams(**values)  # type: ignore[arg-type]
