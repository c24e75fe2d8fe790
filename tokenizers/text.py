"""The decoder's text ids: sentencepiece `tokenizer.model` beside the Step-1 weights."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import sentencepiece

from aqaa.models.bundle import Bundle
from aqaa.models.errors import BundleError, TokenError
from aqaa.models.weights import require_file

_SPACE = "\u2581"  # sentencepiece's mark of a space before a piece
_MOST_KEPT = 0x10000  # characters of which a tokenizer remembers whether it has them
_REPLACEMENT = "\ufffd"  # Unicode's mark of what cannot be decoded


# What phones and word processors write for what keyboards have, and what stands for it: of those,
# the first that the tokenizer knows. What is not named here is read as Unicode takes it apart.
_TYPOGRAPHY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4\u02bc\u2039\u203a`", ("'", "")),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", ('"', "")),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", ("-", " ")),
    **dict.fromkeys("\u2028\u2029", (" ",)),
    **dict.fromkeys("\u200b\u2060\ufeff\u00ad", ("",)),
    "\u2026": ("...", "."),
}


class _Plain(dict[int, str]):
    """A table for `str.translate`: what stands for each character that a tokenizer lacks."""

    def __init__(self, knows: Callable[[str], bool]) -> None:
        self._knows = knows

    def __missing__(self, code: int) -> str:
        mark = chr(code)
        others = _stands_for(mark)
        plain = mark
        if others and not self._knows(mark):
            plain = next((one for one in others if self._knows(one)), mark)
        if code < _MOST_KEPT:
            self[code] = plain
        return plain


def _stands_for(mark: str) -> tuple[str, ...]:
    if mark in _TYPOGRAPHY:
        return _TYPOGRAPHY[mark]
    if unicodedata.category(mark) == "Cf":  # which way a line is read, what is one picture
        return ("",)
    parts = unicodedata.normalize("NFKD", mark)
    bare = "".join(part for part in parts if not unicodedata.combining(part))
    return (bare,) if bare != mark else ()


class TextTokenizer:
    """Text to ids and back; safe to share between threads."""

    def __init__(self, processor: sentencepiece.SentencePieceProcessor) -> None:
        self._processor = processor
        self._plain = _Plain(self.knows)
        self.vocabulary: int = processor.get_piece_size()

    @classmethod
    def load(cls, path: Path) -> TextTokenizer:
        """Read a sentencepiece model.

        Raises:
            BundleError: the file is missing or damaged; the message names it.
        """
        require_file(path, "the decoder's text tokenizer")
        try:
            processor = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
        except (RuntimeError, ValueError) as error:
            raise BundleError(
                f"the decoder's text tokenizer is not a sentencepiece model: {path}: {error}"
            ) from error
        return cls(processor)

    @classmethod
    def of(cls, bundle: Bundle) -> TextTokenizer:
        """The text tokenizer of `bundle`'s decoder.

        Raises:
            BundleError: missing or damaged, or its pieces reach into the audio ids.
        """
        path = bundle.decoder.path / bundle.decoder.text_tokenizer
        tokenizer = cls.load(path)
        if tokenizer.vocabulary > bundle.tokens.audio_offset:
            raise BundleError(
                f"{path} has {tokenizer.vocabulary} pieces, but tokens.audio_offset is "
                f"{bundle.tokens.audio_offset}: text and audio ids would overlap"
            )
        return tokenizer

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; no control id is added, and none can be written as text.

        Typographic quotes, dashes and spaces that the tokenizer lacks are plain ones, and letters
        with accents, wide or joined ones are plain letters.
        """
        ids: list[int] = self._processor.encode(text.translate(self._plain), out_type=int)
        return ids

    def knows(self, text: str) -> bool:
        """Whether it can write all of `text` as it stands."""
        characters = "".join(set(text))  # whether one has ids does not hang on its neighbours
        return self._processor.unk_id() not in self._processor.encode(characters, out_type=int)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; control ids are silent.

        Raises:
            TokenError: an id is not one of the text tokenizer's.
        """
        stream = self.stream()
        return "".join([stream.push(token) for token in ids]) + stream.flush()

    def stream(self) -> TextStream:
        """A new incremental decoder."""
        return TextStream(self)

    def piece(self, token: int) -> bytes:
        """The UTF-8 bytes that `token` stands for, a space before it included; b"" for controls.

        Raises:
            TokenError: not an id of this tokenizer.
        """
        if not 0 <= token < self.vocabulary:
            raise TokenError(f"{token} is not a text id in [0, {self.vocabulary})")
        processor = self._processor
        if processor.is_control(token) or processor.is_unused(token):
            return b""
        piece: str = processor.id_to_piece(token)
        if processor.is_byte(token):  # written <0x41>
            return bytes([int(piece[3:-1], 16)])
        if processor.is_unknown(token):
            return _REPLACEMENT.encode()
        return piece.replace(_SPACE, " ").encode()


class TextStream:
    """Text as ids come: whole characters only, and no space before the first word."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._pending = b""  # the bytes of a character that is not whole yet
        self._begun = False

    def push(self, token: int) -> str:
        """The text that `token` completes; "" for controls and parts of a character.

        Raises:
            TokenError: not an id of this tokenizer; the stream is as it was.
        """
        data = self._pending + self._tokenizer.piece(token)
        whole = _whole_characters(data)
        self._pending = data[whole:]
        return self._emit(data[:whole])

    def flush(self) -> str:
        """What is left, with U+FFFD for a character that was cut."""
        data, self._pending = self._pending, b""
        return self._emit(data)

    def _emit(self, data: bytes) -> str:
        text = data.decode("utf-8", errors="replace")
        if text and not self._begun:
            self._begun = True
            text = text.removeprefix(" ")
        return text


def _whole_characters(data: bytes) -> int:
    """How many leading bytes of `data` hold no beginning of a character that is cut at the end."""
    for back in range(1, min(4, len(data)) + 1):
        lead = data[-back]
        if lead & 0xC0 == 0x80:
            continue  # a continuation byte: look further back for its lead
        length = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
        return len(data) - back if length > back else len(data)
    return len(data)
