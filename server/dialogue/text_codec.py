"""What prompts and answers need of a text tokenizer (`aqaa.tokenizers.text.TextTokenizer`)."""

from __future__ import annotations

from typing import Protocol


class TextStream(Protocol):
    """Ids to text, one at a time."""

    def push(self, token: int, /) -> str:
        """The whole characters that `token` completes.

        Raises:
            TokenError: not a text id.
        """

    def flush(self) -> str:
        """What is left of a character that was cut."""


class TextCodec(Protocol):
    """Text to ids and back."""

    def encode(self, text: str, /) -> list[int]:
        """The ids of `text`, without control ids."""

    def knows(self, text: str, /) -> bool:
        """Whether ids can write all of `text` as it stands."""

    def stream(self) -> TextStream:
        """A new incremental decoder."""
