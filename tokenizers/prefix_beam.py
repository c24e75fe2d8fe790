"""CTC prefix beam search with a language model: row by row, it gives out what has settled.

A spelling's score is the log probability of all its alignments (Hannun et al. 2014, "First-pass
large vocabulary continuous speech recognition using bi-directional recurrent DNNs"), to which are
added the language model's of its pieces times a weight, and a bonus for every piece, without which
short spellings would win.

A piece settles when all spellings that may yet win agree on it, or when the best of them has had
it for so many rows: then those that disagree are dropped. So nobody waits for a better spelling
forever, and what is kept is bounded however long somebody speaks. How sure it is by then is a
`Settling`: who reads along wants pieces `SOON`, who reads the whole wants few errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from aqaa.tokenizers.language_model import END, Following, LanguageModel

BLANK = 0
WIDTH = 24  # spellings
UNLIKELY = 8.0  # nats below a row's best piece, from where others are not considered
HOPELESS = 12.0  # nats below the best spelling, from where others are dropped
NEVER = -math.inf

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Weighing:
    """How much the language model counts beside the sound."""

    language: float  # what its log probabilities are multiplied by
    piece: float  # nats for every piece


@dataclass(frozen=True)
class Settling:
    """When a piece is given out."""

    certain: float  # nats below the best spelling, from where others may win no more
    rows: int  # from when on the best spelling is right


SOON = Settling(certain=3.0, rows=16)  # others have a chance of 5 %
SURE = Settling(certain=HOPELESS, rows=100)


@dataclass(frozen=True)
class Spelt:
    """A piece, the row in which it began, and its natural log probability there."""

    piece: int
    row: int
    logprob: float


@dataclass(frozen=True, eq=False)
class Spelling:
    """What may have been said since the last piece that settled.

    `blank` and `spoken` are log probabilities: of all alignments that end in a blank, and of those
    that end in the last piece. `worth` is what the language model and the bonuses add.
    """

    said: tuple[Spelt, ...]
    last: int  # the last piece, settled or not; `BLANK`: none yet
    following: Following
    blank: float
    spoken: float
    worth: float

    @property
    def heard(self) -> float:
        """The log probability of all alignments."""
        return _sum(self.blank, self.spoken)

    @property
    def score(self) -> float:
        """What spellings are compared by."""
        return self.heard + self.worth


class PrefixBeam:
    """The search in one utterance."""

    def __init__(
        self, language: LanguageModel, weighing: Weighing, settling: Settling = SURE
    ) -> None:
        self._language = language
        self._weighing = weighing
        self._settling = settling
        self._beam = [Spelling((), BLANK, language.begin(), 0.0, NEVER, 0.0)]
        self._rows = 0

    def fork(self) -> PrefixBeam:
        """An independent search in the same state."""
        other = PrefixBeam.__new__(PrefixBeam)
        other.__dict__.update(self.__dict__)  # every value is replaced, never written to
        return other

    def push(self, rows: Rows, *, last: bool = False) -> list[Spelt]:
        """What settles by the natural log probabilities `rows` [T, V], however they are cut.

        `last`: the utterance ends with them, and all that is left settles.
        """
        said: list[Spelt] = []
        for row in rows:
            self._beam = self._followed(self._heard(row))
            self._rows += 1
            best = self._beam[0]
            said += self._settle(best, self._settled(best))
        if last:
            best = max(self._beam, key=self._whole)
            said += self._settle(best, len(best.said))
        return said

    def _settle(self, best: Spelling, count: int) -> tuple[Spelt, ...]:
        """`best`'s first `count` pieces, which no spelling has any longer."""
        settled = _pieces(best.said[:count])
        self._beam = [
            replace(
                one,
                said=one.said[count:],
                blank=one.blank - best.heard,  # else they would fall without end
                spoken=one.spoken - best.heard,
                worth=one.worth - best.worth,
            )
            for one in self._beam
            if _pieces(one.said[:count]) == settled
        ]
        return best.said[:count]

    def _settled(self, best: Spelling) -> int:
        """How many of `best`'s pieces have settled."""
        least = best.score - self._settling.certain
        rivals = [_pieces(one.said) for one in self._beam if one.score > least]
        columns = zip(*rivals, strict=False)
        agreed = sum(1 for _ in takewhile(lambda column: len({*column}) == 1, columns))
        return max(agreed, sum(self._rows - one.row > self._settling.rows for one in best.said))

    def _whole(self, spelling: Spelling) -> float:
        """The score if nothing follows."""
        end = float(spelling.following.logprobs[END])
        return spelling.score + self._weighing.language * end

    def _heard(self, row: NDArray[np.float32]) -> list[Spelling]:
        """The best spellings when `row` is heard; longer ones have their parents' `following`."""
        likely = np.flatnonzero(row > row.max() - UNLIKELY)
        found: dict[tuple[int, ...], Spelling] = {}
        for one in self._beam:
            again = one.spoken + float(row[one.last]) if one.last != BLANK else NEVER
            _add(found, replace(one, blank=one.heard + float(row[BLANK]), spoken=again))
        for one in self._beam:
            for piece in map(int, likely):
                if piece == BLANK:
                    continue
                logprob = float(row[piece])
                before = one.blank if piece == one.last else one.heard
                worth = self._weighing.language * float(one.following.logprobs[piece])
                _add(
                    found,
                    Spelling(
                        (*one.said, Spelt(piece, self._rows, logprob)),
                        piece,
                        one.following,
                        NEVER,
                        before + logprob,
                        one.worth + self._weighing.piece + worth,
                    ),
                )
        best = sorted(found.values(), key=lambda one: -one.score)[:WIDTH]
        return [one for one in best if one.score > best[0].score - HOPELESS]

    def _followed(self, spellings: Sequence[Spelling]) -> list[Spelling]:
        """`spellings`, the language model having read the pieces of this row."""
        new = [k for k, one in enumerate(spellings) if one.said and one.said[-1].row == self._rows]
        after = list(spellings)
        if new:
            read = self._language.follow([(after[k].following, after[k].last) for k in new])
            for k, following in zip(new, read, strict=True):
                after[k] = replace(after[k], following=following)
        return after


def _add(found: dict[tuple[int, ...], Spelling], one: Spelling) -> None:
    """Alignments of the same spelling are one; it began where it did before."""
    key = _pieces(one.said)
    if (same := found.get(key)) is not None:
        one = replace(same, blank=_sum(same.blank, one.blank), spoken=_sum(same.spoken, one.spoken))
    found[key] = one


def _pieces(said: Iterable[Spelt]) -> tuple[int, ...]:
    return tuple(one.piece for one in said)


def _sum(a: float, b: float) -> float:
    """log(exp a + exp b)."""
    high, low = max(a, b), min(a, b)
    return high if low == NEVER else high + math.log1p(math.exp(low - high))
