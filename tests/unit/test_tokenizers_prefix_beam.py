"""The search for words: what it finds, when it says so, and that the cut of its rows is nothing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from aqaa.tokenizers import prefix_beam
from aqaa.tokenizers.language_model import END, LanguageModel
from aqaa.tokenizers.prefix_beam import BLANK, SOON, SURE, PrefixBeam, Rows, Settling, Weighing

PIECES = 4  # beside them no spelling is longer than a few rows: all can be tried
ALONE = Weighing(language=0.0, piece=0.0)
BOTH = Weighing(language=0.7, piece=0.3)
NEVER = Settling(certain=math.inf, rows=10**9)


@pytest.fixture(scope="module")
def language() -> LanguageModel:
    torch.manual_seed(5)
    model = LanguageModel(PIECES, width=6, hidden=8).eval()
    with torch.no_grad():  # untrained, it would favour nothing
        model.embed.weight.mul_(4)
    return model


def rows_of(count: int, seed: int, sharp: float = 2.0) -> Rows:
    """Log probabilities [count, PIECES], the surer the sharper."""
    scores = np.random.default_rng(seed).normal(size=(count, PIECES)) * sharp
    rows: Rows = (scores - np.log(np.exp(scores).sum(1, keepdims=True))).astype(np.float32)
    return rows


def surely(*pieces: int) -> Rows:
    """Rows in which there is no doubt about what is heard."""
    rows = np.full((len(pieces), PIECES), -20.0, np.float32)
    rows[range(len(pieces)), pieces] = 0.0
    return rows


def found(beam: PrefixBeam, rows: Rows) -> list[int]:
    return [spelt.piece for spelt in beam.push(rows, last=True)]


def tried(language: LanguageModel, rows: Rows, weighing: Weighing) -> list[int]:
    """The best spelling by its definition: every alignment, its spelling scored as a whole."""
    heard: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(PIECES), repeat=len(rows)):
        spelling = tuple(k for k, _ in itertools.groupby(path) if k != BLANK)
        logprob = float(sum(row[piece] for row, piece in zip(rows, path, strict=True)))
        heard[spelling] = np.logaddexp(heard.get(spelling, -math.inf), logprob)

    def score(spelling: tuple[int, ...]) -> float:
        with torch.inference_mode():
            read = torch.tensor([[END, *spelling]])
            logprobs = language(read)[0][0].gather(1, torch.tensor([[*spelling, END]]).T)
        worth = weighing.language * float(logprobs.sum()) + weighing.piece * len(spelling)
        return heard[spelling] + worth

    return list(max(heard, key=score))


either = pytest.mark.parametrize("settling", [SOON, SURE], ids=["soon", "sure"])


@pytest.mark.parametrize("weighing", [ALONE, BOTH], ids=["sound alone", "language too"])
@pytest.mark.parametrize("seed", range(8))
def test_it_finds_what_trying_everything_finds(
    language: LanguageModel, weighing: Weighing, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bound in ("WIDTH", "UNLIKELY", "HOPELESS"):
        monkeypatch.setattr(prefix_beam, bound, 10**9)
    rows = rows_of(6, seed)
    assert found(PrefixBeam(language, weighing, NEVER), rows) == tried(language, rows, weighing)


def test_the_language_decides_where_the_sound_does_not(language: LanguageModel) -> None:
    first = language.begin().logprobs
    likely, unlikely = 1 + int(first[1:].argmax()), 1 + int(first[1:].argmin())
    rows = surely(BLANK, unlikely, BLANK)
    rows[1, [likely, unlikely]] = math.log(0.45), math.log(0.55)
    assert found(PrefixBeam(language, ALONE), rows) == [unlikely]
    assert found(PrefixBeam(language, Weighing(1.0, 0.0)), rows) == [likely]


def test_the_cut_of_the_rows_changes_nothing(language: LanguageModel) -> None:
    rows = rows_of(60, seed=1)
    whole = PrefixBeam(language, BOTH).push(rows, last=True)
    assert len(whole) > 10, "too little was said to show anything"
    for size in (1, 7, 8):
        beam = PrefixBeam(language, BOTH)
        parts = [rows[k : k + size] for k in range(0, len(rows), size)]
        said = [spelt for part in parts[:-1] for spelt in beam.push(part)]
        assert [*said, *beam.push(parts[-1], last=True)] == whole


def test_a_piece_without_doubt_is_said_at_once_and_begins_where_it_was_heard(
    language: LanguageModel,
) -> None:
    (spelt,) = PrefixBeam(language, BOTH, SOON).push(surely(BLANK, BLANK, 2, 2, BLANK))
    assert (spelt.piece, spelt.row, spelt.logprob) == (2, 2, 0.0)


def test_the_same_piece_twice_needs_a_blank_between(language: LanguageModel) -> None:
    assert found(PrefixBeam(language, ALONE), surely(2, 2, BLANK, 2)) == [2, 2]
    assert found(PrefixBeam(language, ALONE), surely(2, 2, 2, 3)) == [2, 3]


@either
def test_nobody_waits_longer_for_a_piece_in_doubt(
    language: LanguageModel, settling: Settling
) -> None:
    """Two pieces are as likely, and nothing that follows will decide between them."""
    rows = surely(2, *[BLANK] * 3 * settling.rows)
    rows[0, [2, 3]] = math.log(0.51), math.log(0.49)
    beam = PrefixBeam(language, ALONE, settling)
    said = [[spelt.piece for spelt in beam.push(row[None])] for row in rows]
    assert said[: settling.rows] == [[]] * settling.rows
    assert said[settling.rows] == [2]
    assert not any(said[settling.rows + 1 :])


def test_a_piece_is_said_once_others_have_little_chance(language: LanguageModel) -> None:
    rows = surely(BLANK, 2, BLANK)
    for chance, said in ((0.9, []), (0.96, [2])):
        rows[1, [2, 3]] = math.log(chance), math.log(1 - chance)
        assert [spelt.piece for spelt in PrefixBeam(language, ALONE, SOON).push(rows)] == said


def test_who_wants_few_errors_waits_for_what_may_yet_decide(language: LanguageModel) -> None:
    rows = surely(BLANK, 2, BLANK)
    rows[1, [2, 3]] = math.log(0.96), math.log(0.04)
    assert [spelt.piece for spelt in PrefixBeam(language, ALONE, SOON).push(rows)] == [2]
    assert PrefixBeam(language, ALONE, SURE).push(rows) == []


@either
def test_what_is_kept_does_not_grow(language: LanguageModel, settling: Settling) -> None:
    beam = PrefixBeam(language, BOTH, settling)
    for seed in range(40):
        beam.push(rows_of(50, seed, sharp=1.0))
        assert len(beam._beam) <= prefix_beam.WIDTH
        assert max(len(one.said) for one in beam._beam) <= settling.rows
        assert all(abs(one.score) < 2 * prefix_beam.HOPELESS for one in beam._beam)


def test_forks_search_on_by_themselves(language: LanguageModel) -> None:
    rows, others = rows_of(40, seed=2), rows_of(20, seed=3)
    alone, beam = PrefixBeam(language, BOTH), PrefixBeam(language, BOTH)
    expected = [*alone.push(rows[:20]), *alone.push(rows[20:], last=True)]
    said = beam.push(rows[:20])
    beam.fork().push(others, last=True)
    assert [*said, *beam.push(rows[20:], last=True)] == expected


def test_the_language_model_reads_piece_by_piece_what_it_reads_at_once(
    language: LanguageModel,
) -> None:
    said = [2, 1, 3, 3]
    with torch.inference_mode():
        whole = language(torch.tensor([[END, *said]]))[0][0].numpy()
    place = language.begin()
    for number, piece in enumerate(said):
        np.testing.assert_allclose(place.logprobs, whole[number], atol=1e-5)
        place, _ = language.follow([(place, piece), (place, 1)])
    np.testing.assert_allclose(place.logprobs, whole[-1], atol=1e-5)
