"""The decoder's stream of ids as typed events, as they come.

    [audio_start] T*10 A*15 T*10 A*15 ... A*15 A*15 ... [audio_end] [call_start] T* [call_end] [eot]

The lengths of the blocks are not checked: text and audio may come in any proportion. Audio itself
is strict: two linguistic and three semantic tokens make a group. Whatever breaks a group is
reported, with all that follows it up to the next whole group, and never becomes sound.

A call of a function is an event once it is whole and legal; nothing of it is text or sound. After
calls there are only calls. Where functions may be called, what looks like JSON (a brace, or a quote
outside of speech) is a call whose mark the model forgot, and no text either.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aqaa.models.bundle import TokensConfig, ToolsConfig
from aqaa.models.errors import CallError, StreamClosedError, TokenError
from aqaa.models.groups import GROUP_TOKENS, may_stand
from aqaa.server.dialogue.call_reader import CallReader, ToolCall
from aqaa.server.dialogue.speaking_rate import spoken_groups
from aqaa.server.dialogue.text_codec import TextCodec, TextStream
from aqaa.server.dialogue.tools import Calling

NEVER_SAID = frozenset("{")
NEVER_WRITTEN = frozenset('{"')  # outside of speech


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text.

    Attributes:
        text: whole characters; never empty.
        tokens: the ids that it took.
        group: about where it is spoken: the index of the audio group, from the answer's start.
    """

    text: str
    tokens: int
    group: float


@dataclass(frozen=True, slots=True)
class AudioGroup:
    """120 ms of sound: five audio tokens as the vocoder takes them; `index` counts from 0."""

    tokens: tuple[int, ...]
    index: int


@dataclass(frozen=True, slots=True)
class VoiceSwitch:
    """From here on the answer is spoken in another of the bundle's voices."""

    voice: str


@dataclass(frozen=True, slots=True)
class SegmentStart:
    """`<audio_start>`."""


@dataclass(frozen=True, slots=True)
class SegmentEnd:
    """`<audio_end>`."""


@dataclass(frozen=True, slots=True)
class End:
    """The model ended its answer (eot), or has made the one call that it may."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """Decoder ids that make no sense where they stand; they were dropped."""

    ids: tuple[int, ...]
    reason: str


ParsedEvent = (
    TextDelta | AudioGroup | VoiceSwitch | SegmentStart | SegmentEnd | ToolCall | End | Malformed
)


@dataclass(slots=True)
class _OpenCall:
    reader: CallReader
    text: TextStream
    tokens: int = 1  # its ids so far, the marker among them


class AnswerParser:
    """The state of one answer.

    Attributes:
        groups: whole audio groups so far.
        malformed: ids dropped so far.
    """

    def __init__(
        self,
        tokens: TokensConfig,
        text: TextCodec,
        tools: ToolsConfig | None = None,
        calling: Calling | None = None,
    ) -> None:
        """A new answer. `tools`: the bundle's; `calling`: what may be called, None: nothing."""
        self.groups = 0
        self.malformed = 0
        self._codec = text
        self._tools = tools
        self._calling = calling
        self._call: _OpenCall | None = None
        self._calls = 0
        self._tokens = tokens
        self._voices = {token: voice for voice, token in tokens.voice_markers.items()}
        self._misplaced = {tokens.bos, tokens.bot, tokens.pad}
        self._marks = {*self._misplaced, tokens.eot, tokens.audio_start, tokens.audio_end}
        if tools is not None:
            self._misplaced.add(tools.call_end)
            self._marks.add(tools.call_start)
        self._text = text.stream()
        self._text_tokens = 0  # ids taken since the last TextDelta
        self._spoken = 0.0  # the group where the text so far has been spoken
        self._group: list[int] = []  # a group that is not whole yet, as audio tokens
        self._broken: list[int] = []  # a malformed run of audio that goes on
        self._speaks = tokens.audio_start is None  # whether text is spoken here
        self._over = False

    def anew(self) -> AnswerParser:
        """A parser of another answer to the same."""
        return AnswerParser(self._tokens, self._codec, self._tools, self._calling)

    def push(self, ids: Iterable[int]) -> list[ParsedEvent]:
        """The events that `ids` complete.

        Raises:
            StreamClosedError: the answer is over.
            CallError: what the model began to call is no legal call, or may not be called.
        """
        events: list[ParsedEvent] = []
        for token in ids:
            if self._over:
                raise StreamClosedError("the answer is over: make a new parser for the next one")
            if self._call is not None:
                events += self._continue_call(self._call, token)
            elif self._calls and not (self._starts_call(token) or token == self._tokens.eot):
                events.append(self._drop((token,), "speech after a call"))
            elif self._tokens.audio_offset <= token < self._tokens.audio_end_id:
                events += self._audio(token - self._tokens.audio_offset)
            else:
                events += self._end_audio()
                events += self._other(token)
        return events

    @property
    def over(self) -> bool:
        """Whether the answer has ended: nothing more may be pushed."""
        return self._over

    def finish(self) -> list[ParsedEvent]:
        """The rest, when no more ids come; also after `End`.

        A group that is open then was cut by a limit: it is not spoken, and nobody's mistake. So is
        a call.
        """
        if self._over:
            return []
        self._over = True
        return [*self._report(), *self._say(self._text.flush())]

    def is_said(self, token: int) -> bool:
        """Whether this id, which is pushed next, is of the answer: of no call, nor behind one."""
        return token == self._tokens.eot or not (self._calls or self._starts_call(token))

    def _starts_call(self, token: int) -> bool:
        return self._tools is not None and token == self._tools.call_start

    def _audio(self, token: int) -> list[ParsedEvent]:
        if not may_stand(token, len(self._group)):
            self._broken += self._group
            self._group.clear()
            if not may_stand(token, 0):
                self._broken.append(token)
                return []
        self._group.append(token)
        if len(self._group) < GROUP_TOKENS:
            return []
        group = AudioGroup(tuple(self._group), self.groups)
        self.groups += 1
        self._group.clear()
        return [*self._report(), group]

    def _end_audio(self) -> list[ParsedEvent]:
        """Text or the end comes: a group that is open stays open for ever."""
        self._broken += self._group
        self._group.clear()
        return self._report()

    def _report(self) -> list[ParsedEvent]:
        if not self._broken:
            return []
        ids = tuple(self._tokens.audio_offset + token for token in self._broken)
        self._broken.clear()
        return [self._drop(ids, "audio that is not two linguistic and three semantic tokens")]

    def _other(self, token: int) -> list[ParsedEvent]:
        tokens = self._tokens
        if token == tokens.eot:
            return [*self.finish(), End()]
        if self._starts_call(token):
            return self._begin_call()
        if token == tokens.audio_start:
            self._spoken = max(self._spoken, float(self.groups))
            self._speaks = True
            return [SegmentStart()]
        if token == tokens.audio_end:
            self._speaks = False
            return [SegmentEnd()]
        if token in self._voices:
            return [VoiceSwitch(self._voices[token])]
        if token in self._misplaced:
            return [self._drop((token,), "a control id inside an answer")]
        try:
            text = self._text.push(token)
        except TokenError:
            return [self._drop((token,), "neither a text id nor an audio id")]
        never = NEVER_SAID if self._speaks else NEVER_WRITTEN
        if self._calling is not None and not never.isdisjoint(text):
            raise CallError("a call without the mark that begins one")
        self._text_tokens += 1
        return self._say(text)

    def _begin_call(self) -> list[ParsedEvent]:
        calling = self._calling
        if calling is None or not calling.allowed:
            raise CallError("a call where nothing may be called")
        self._call = _OpenCall(CallReader(calling.allowed), self._codec.stream())
        self._calls += 1
        return self._say(self._text.flush())

    def _continue_call(self, call: _OpenCall, token: int) -> list[ParsedEvent]:
        call.tokens += 1
        if self._tools is not None and token == self._tools.call_end:
            call.reader.push(call.text.flush())
            self._call = None
            made: list[ParsedEvent] = [call.reader.finish(call.tokens)]
            if self._calling is not None and not self._calling.parallel:
                made += [*self.finish(), End()]  # it was to call once
            return made
        if token in self._voices or token in self._marks:
            raise CallError(f"a call with the control id {token} in it")
        try:
            call.reader.push(call.text.push(token))
        except TokenError:
            raise CallError(f"a call with the id {token} in it, which is no text") from None
        return []

    def _say(self, text: str) -> list[ParsedEvent]:
        if not text:
            return []
        # A text comes before its sound: it cannot be spoken in a group that is already there.
        group = max(self._spoken, float(self.groups))
        self._spoken = group + spoken_groups(text)
        delta = TextDelta(text, self._text_tokens, group)
        self._text_tokens = 0
        return [delta]

    def _drop(self, ids: tuple[int, ...], reason: str) -> Malformed:
        self.malformed += len(ids)
        return Malformed(ids, reason)
