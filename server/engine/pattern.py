"""The shape of an answer as a constraint on sampling: which ids may come next.

    [audio_start] T*10 A*15 T*10 A*15 ... A*15 A*15 ... [audio_end] eot

A small decoder sometimes loses its place in this shape, and its ids are then neither sound nor
text. A bundle with `sampling.keep_pattern` is sampled under the constraint, so that cannot happen.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, auto

from aqaa.models.bundle import TokensConfig
from aqaa.models.groups import (
    AUDIO_CODES,
    GROUP_TOKENS,
    is_linguistic,
    takes_linguistic,
)


class IdKind(Flag):
    """What an id of an answer is."""

    START = auto()
    TEXT = auto()  # voice and style markers too
    LINGUISTIC = auto()
    SEMANTIC = auto()
    END = auto()
    EOT = auto()


@dataclass(frozen=True, slots=True)
class AnswerPattern:
    """The ids and block sizes of the pattern; see `TokensConfig`."""

    audio_offset: int
    text_block: int
    audio_block: int
    eot: int
    audio_start: int | None
    audio_end: int | None
    never: tuple[int, ...]  # ids that have no place in an answer

    @classmethod
    def of(cls, tokens: TokensConfig) -> AnswerPattern:
        """The pattern of the answers of a bundle with `tokens`."""
        return cls(
            tokens.audio_offset,
            tokens.text_block,
            tokens.audio_block,
            tokens.eot,
            tokens.audio_start,
            tokens.audio_end,
            (tokens.bos, tokens.bot, tokens.pad),
        )

    def kind(self, token: int) -> IdKind:
        """The kind of `token`."""
        code = token - self.audio_offset
        if 0 <= code < AUDIO_CODES:
            return IdKind.LINGUISTIC if is_linguistic(code) else IdKind.SEMANTIC
        marks = {self.audio_start: IdKind.START, self.audio_end: IdKind.END, self.eot: IdKind.EOT}
        return marks.get(token, IdKind.TEXT)


class AnswerPlace:
    """The position of an answer in its pattern."""

    def __init__(self, pattern: AnswerPattern) -> None:
        self._pattern = pattern
        self._started = pattern.audio_start is None
        self._ended = False
        self._text = 0  # ids of the current text block
        self._audio = 0  # ids of the current audio block
        self._text_over = False

    def push(self, token: int) -> None:
        """Move on by the answer's next id, `token`."""
        match self._pattern.kind(token):
            case IdKind.START:
                self._started = True
            case IdKind.TEXT:
                self._text = 1 if self._audio else self._text + 1
                self._audio = 0
            case IdKind.LINGUISTIC | IdKind.SEMANTIC:
                full = self._audio == self._pattern.audio_block
                if full or (self._audio == 0 and self._text < self._pattern.text_block):
                    self._text_over = True
                self._audio = 1 if full else self._audio + 1
            case IdKind.END:
                self._ended = True

    def allowed(self) -> IdKind:
        """The kinds that may come next."""
        if not self._started:
            return IdKind.START
        if self._ended:
            return IdKind.EOT
        within = self._audio % GROUP_TOKENS
        if within:
            return IdKind.LINGUISTIC if takes_linguistic(within) else IdKind.SEMANTIC
        if self._audio == 0:
            if self._text == 0:
                return IdKind.TEXT
            full = self._text == self._pattern.text_block
            return IdKind.LINGUISTIC if full else IdKind.TEXT | IdKind.LINGUISTIC
        end = IdKind.EOT if self._pattern.audio_end is None else IdKind.END
        if self._audio == self._pattern.audio_block and not self._text_over:
            return IdKind.TEXT | IdKind.LINGUISTIC | end
        return IdKind.LINGUISTIC | end
