"""Token sequences as the served model meets them: turns of the chat template, woven answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from aqaa.recipe.decoder.text import CALL_MARKERS, STYLE_MARKERS, Pieces
from aqaa.recipe.domain.load import Style

TEXT_WEIGHT = 4.0  # a text token decides the answer; there are ten audio tokens to each
AUDIO_WEIGHT = 1.0


@dataclass
class Talk:
    """A conversation as ids, with the loss weight of *predicting* each id, and what was heard.

    `heard` holds (start, end, words) of every spoken question, for the ear's loss.
    """

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    heard: list[tuple[int, int, str]] = field(default_factory=list)

    def add(self, ids: Sequence[int], weight: float = 0.0) -> None:
        """Append ids that are predicted with `weight`."""
        self.ids.extend(ids)
        self.weights.extend([weight] * len(ids))

    def cut(self, length: int) -> None:
        """Forget what follows the first `length` ids, which end inside an answer."""
        del self.ids[length:], self.weights[length:]


def weave(
    text: Sequence[int], audio: Sequence[int], text_block: int, audio_block: int
) -> list[int]:
    """`text_block` text ids, `audio_block` audio ids, and so on; at the end what is left."""
    ids: list[int] = []
    blocks = max(-(-len(text) // text_block), -(-len(audio) // audio_block))
    for block in range(blocks):
        ids.extend(text[block * text_block : (block + 1) * text_block])
        ids.extend(audio[block * audio_block : (block + 1) * audio_block])
    return ids


class Layout:
    """Builds sequences with one set of pieces."""

    def __init__(self, pieces: Pieces) -> None:
        self.pieces = pieces
        self.tokens = pieces.tokens
        self._human = [self.tokens.bot, *pieces.encode("human\n")]
        self._assistant = [self.tokens.bot, *pieces.encode("assistant\n")]

    def start(self) -> Talk:
        """An empty conversation."""
        sequence = Talk()
        sequence.add([self.tokens.bos])
        return sequence

    def ask_aloud(self, sequence: Talk, audio: Sequence[int], words: str) -> None:
        """A spoken user turn; `audio` are audio tokens (not yet offset), `words` what they say."""
        sequence.add(self._human)
        start = len(sequence.ids)
        sequence.add([self.tokens.audio_offset + token for token in audio])
        sequence.heard.append((start, len(sequence.ids), words))
        sequence.add([self.tokens.eot])

    def ask_in_writing(self, sequence: Talk, text: str) -> None:
        """A written user turn."""
        sequence.add([*self._human, *self.pieces.encode(text), self.tokens.eot])

    def declare(self, sequence: Talk, text: str) -> None:
        """The system's turn: instructions, and the tools that there are."""
        header = [self.tokens.bot, *self.pieces.encode("system\n")]
        sequence.add([*header, *self.pieces.encode(text), self.tokens.eot])

    def call(self, sequence: Talk, spelt: str) -> None:
        """The assistant's turn that is a call: no sound, JSON between the call's markers."""
        sequence.add(self._assistant)
        begin, end = (self.pieces.control(marker) for marker in CALL_MARKERS)
        called = [begin, *self.pieces.encode(spelt), end, self.tokens.eot]
        sequence.add(called, TEXT_WEIGHT)

    def result(self, sequence: Talk, text: str) -> None:
        """The tool's turn: what it gave back."""
        header = [self.tokens.bot, *self.pieces.encode("tool\n")]
        sequence.add([*header, *self.pieces.encode(text), self.tokens.eot])

    def answer(
        self,
        sequence: Talk,
        text: str,
        audio: Sequence[int],
        style: Style = "plain",
        voice: str | None = None,
        *,
        text_weight: float = TEXT_WEIGHT,
    ) -> None:
        """The assistant's turn, woven, with its markers; this is what is learned.

        With a `text_weight` of 0 its words are given, and only their sound is learned.
        """
        sequence.add(self._assistant)
        controls = [self.tokens.voice_markers[voice]] if voice else []
        if style != "plain":
            controls.append(self.pieces.control(STYLE_MARKERS[style]))
        spoken = [self.tokens.audio_offset + token for token in audio]
        written = [*controls, *self.pieces.encode(text)]
        woven = weave(written, spoken, self.tokens.text_block, self.tokens.audio_block)
        sequence.add([self.pieces.control("<audio_start>")], text_weight)
        for token in woven:
            speech = token >= self.tokens.audio_offset
            sequence.add([token], AUDIO_WEIGHT if speech else text_weight)
        sequence.add([self.pieces.control("<audio_end>"), self.tokens.eot], TEXT_WEIGHT)

    def begin_answer(self, sequence: Talk, text: str) -> None:
        """Of an answer in words that nobody has spoken the first block of text, and no more."""
        sequence.add(self._assistant)
        start = self.pieces.control("<audio_start>")
        written = self.pieces.encode(text)[: self.tokens.text_block]
        sequence.add([start, *written], TEXT_WEIGHT)
