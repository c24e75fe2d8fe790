"""The shape of an answer as a constraint on sampling: which ids may come next.

    [audio_start] T*10 A*15 T*10 A*15 ... A*15 A*15 ... [audio_end] eot

A small decoder sometimes loses its place in this shape, and its ids are then neither sound nor
text. A bundle with `sampling.keep_pattern` is sampled under the constraint, so that cannot happen.

Where functions may be called, calls may stand in the answer's place or behind it:

    [call_start] text [call_end] [call_start] ... [call_end] eot
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, auto

from aqaa.models.bundle import TokensConfig, ToolsConfig
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
    CALL = auto()  # a call begins
    CALLED = auto()  # a call ends


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
    call_start: int | None = None  # None: it may not call
    call_end: int | None = None
    parallel_calls: bool = True  # whether a call may follow a call

    @classmethod
    def of(
        cls,
        tokens: TokensConfig,
        tools: ToolsConfig | None = None,
        *,
        may_call: bool = False,
        parallel_calls: bool = True,
    ) -> AnswerPattern:
        """The pattern of the answers of a bundle with `tokens` and `tools`."""
        marks = None if tools is None else (tools.call_start, tools.call_end)
        start, end = marks if marks is not None and may_call else (None, None)
        forbidden = () if marks is None or may_call else marks
        return cls(
            tokens.audio_offset,
            tokens.text_block,
            tokens.audio_block,
            tokens.eot,
            tokens.audio_start,
            tokens.audio_end,
            (tokens.bos, tokens.bot, tokens.pad, *forbidden),
            start,
            end,
            parallel_calls,
        )

    def kind(self, token: int) -> IdKind:
        """The kind of `token`."""
        code = token - self.audio_offset
        if 0 <= code < AUDIO_CODES:
            return IdKind.LINGUISTIC if is_linguistic(code) else IdKind.SEMANTIC
        return self.marks.get(token, IdKind.TEXT)

    @property
    def marks(self) -> dict[int, IdKind]:
        """The ids that are neither text nor audio, and what they are."""
        marks = {
            self.audio_start: IdKind.START,
            self.audio_end: IdKind.END,
            self.eot: IdKind.EOT,
            self.call_start: IdKind.CALL,
            self.call_end: IdKind.CALLED,
        }
        return {token: kind for token, kind in marks.items() if token is not None}


class AnswerPlace:
    """The position of an answer in its pattern."""

    def __init__(self, pattern: AnswerPattern) -> None:
        self._pattern = pattern
        self._started = pattern.audio_start is None
        self._ended = False
        self._text = 0  # ids of the current text block
        self._audio = 0  # ids of the current audio block
        self._text_over = False
        self._calling = False
        self._called = False

    def push(self, token: int) -> None:
        """Move on by the answer's next id, `token`."""
        kind = self._pattern.kind(token)
        if self._calling:
            self._calling = kind is not IdKind.CALLED
            return
        match kind:
            case IdKind.CALL:
                self._calling = self._called = True
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
        call = IdKind(0) if self._pattern.call_start is None else IdKind.CALL
        if self._calling:
            return IdKind.TEXT | IdKind.CALLED
        if self._called:
            return IdKind.EOT | (call if self._pattern.parallel_calls else IdKind(0))
        if not self._started:
            return IdKind.START | call
        if self._ended:
            return IdKind.EOT | call
        within = self._audio % GROUP_TOKENS
        if within:
            return IdKind.LINGUISTIC if takes_linguistic(within) else IdKind.SEMANTIC
        if self._audio == 0:
            if self._text == 0:
                return IdKind.TEXT | (call if self._pattern.audio_start is None else IdKind(0))
            full = self._text == self._pattern.text_block
            return IdKind.LINGUISTIC if full else IdKind.TEXT | IdKind.LINGUISTIC
        end = IdKind.EOT | call if self._pattern.audio_end is None else IdKind.END
        if self._audio == self._pattern.audio_block and not self._text_over:
            return IdKind.TEXT | IdKind.LINGUISTIC | end
        return IdKind.LINGUISTIC | end
