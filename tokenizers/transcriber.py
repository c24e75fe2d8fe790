"""The user's words, from the ears that also make the linguistic tokens.

The published linguistic tokenizer is the encoder of a whole recogniser. A transcriber is what goes
on from there: it takes the encoder's windows as they come and gives pieces of text. So the words
are of what the model heard, at the cost of a small network, and off the way to the answer.

    LinguisticStream ─ windows ─> TranscriptStream ─ pieces ─> whoever wants words

Two kinds: `transcriber_paraformer` (the published predictor and decoder) and `transcriber_ctc` (a
network that also hears what the encoder heard). A bundle's `[transcriber]` says which; a bundle
without one has no words. `transcriber_loading` makes the one that it asks for.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from aqaa.models.errors import BundleError, StreamClosedError
from aqaa.models.weights import require_file

if TYPE_CHECKING:  # sessions handle windows without torch
    from torch import Tensor

    from aqaa.tokenizers.funasr_encoder import EncoderState

FRAME_SECONDS = 0.06  # of one encoder state


@dataclass(frozen=True)
class Window:
    """One step of the encoder: `states` float32 [5 + new, width], the new frames last.

    `heard` float32 [new, 560], on the CPU: the normalised features that the new states are of.
    `last`: the audio ended in it.
    """

    states: Tensor
    heard: Tensor
    last: bool = False

    @property
    def new(self) -> int:
        """How many frames are new."""
        return len(self.heard)


@dataclass(frozen=True)
class Tail:
    """The audio ended between two windows; `state` is what the encoder would go on from."""

    state: EncoderState


WindowOrTail = Window | Tail


@dataclass(frozen=True)
class Piece:
    """A piece of recognised text.

    `text` begins with a blank where a new word does, but for the first; it is never a blank alone,
    so that pieces add up to the text. Times are seconds since the stream's start; `logprob` is the
    recogniser's natural log probability of the piece.
    """

    text: str
    start: float
    end: float
    logprob: float


class TranscriptStream(ABC):
    """One utterance's recogniser: `push` the encoder's windows, the last one closes it.

    Belongs to one session, shares its weights, is not thread-safe.
    """

    def __init__(self) -> None:
        self._closed = False
        self._begun = False  # whether anything has been said
        self._blanks: tuple[Piece, ...] = ()  # that nothing has followed yet

    @abstractmethod
    def _recognise(self, window: WindowOrTail) -> list[Piece]: ...

    @abstractmethod
    def _copy_state(self, original: Self) -> None:
        """Take `original`'s state; nothing that changes later may be shared."""

    def push(self, window: WindowOrTail) -> list[Piece]:
        """The pieces that `window` completes; often none.

        Raises:
            StreamClosedError: the last window has been pushed, or a fault closed the stream.
        """
        if self._closed:
            raise StreamClosedError("this transcript has ended: open a new one")
        self._closed = True
        pieces = self._recognise(window)
        self._closed = isinstance(window, Tail) or window.last
        said: list[Piece] = []
        for piece in pieces:
            if not (text := piece.text.lstrip()):  # a blank alone belongs to what it precedes
                self._blanks = (*self._blanks, piece)
                continue
            whole = [*self._blanks, piece]
            blank = self._begun and any(one.text[0] == " " for one in whole)
            logprob = sum(one.logprob for one in whole)
            said.append(replace(piece, text=" " * blank + text, logprob=logprob))
            self._begun, self._blanks = True, ()
        return said

    def fork(self) -> Self:
        """An independent stream in the same state: end the copy, go on with the original."""
        if self._closed:
            raise StreamClosedError("this transcript has ended: open a new one")
        other = self.__class__.__new__(self.__class__)
        other._closed, other._begun, other._blanks = False, self._begun, self._blanks
        other._copy_state(self)
        return other


class Transcriber(Protocol):
    """A recogniser's weights; opens streams."""

    def stream(self, *, live: bool = False) -> TranscriptStream:
        """A new stream; cheap.

        `live`: somebody reads along; a piece that comes soon is worth more than the odd error.
        """


@dataclass(frozen=True)
class Word:
    """A word and when it was said, in seconds since the stream's start."""

    text: str
    start: float
    end: float


def words_of(pieces: Iterable[Piece]) -> list[Word]:
    """The words that `pieces` spell: a piece that begins with a blank begins a word.

    Chinese characters, which no blanks separate, are a word each.
    """
    words: list[Word] = []
    for piece in pieces:
        text = piece.text.strip()
        if not text:
            continue
        begins = not words or piece.text[0] == " " or is_han(text[0]) or is_han(words[-1].text[-1])
        if begins:
            words.append(Word(text, piece.start, piece.end))
        else:
            words[-1] = Word(words[-1].text + text, words[-1].start, piece.end)
    return words


def text_of(pieces: Iterable[Piece]) -> str:
    """What `pieces` say."""
    return "".join(piece.text for piece in pieces).strip()


def is_han(character: str) -> bool:
    """Whether this is a Chinese character."""
    return "\u4e00" <= character <= "\u9fff"


def read_pieces(path: Path) -> Sequence[str]:
    """The pieces of a recogniser: a JSON list of strings; the first is the blank.

    Raises:
        BundleError: the file is missing, or is no such list.
    """
    require_file(path, "the transcriber's pieces")
    try:
        pieces = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not JSON: {error}") from error
    if not isinstance(pieces, list) or not all(isinstance(one, str) for one in pieces):
        raise BundleError(f"{path} is not a list of strings")
    return pieces
