"""Calls as they are declared, as a mask on logits, the same for every engine.

The functions' schemas become a grammar, and of the text ids only those are left that some legal
call goes on with. llguidance does it on the decoder's own pieces.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from torch import Tensor

from aqaa.models.errors import BundleError
from aqaa.server.engine.call_shape import CallPlace, CallShape
from aqaa.tokenizers.text import TextTokenizer

log = logging.getLogger(__name__)

PIECES = "tokenizer.model"  # beside the decoder's weights, as published
SCHEMAS_KEPT = 64  # grammars that were made of schemas; 128 functions take 0.2 s
_UNKNOWN = "\ufffd".encode()  # what a tokenizer's unknown piece stands for


class CallGrammars:
    """Makes the masks of one decoder's answers. Safe to share between threads."""

    def __init__(self, text: TextTokenizer) -> None:
        """Index the pieces of `text`; takes 1.5 s for 65,000."""
        self.end = text.vocabulary  # the id that stands for the end in llguidance's masks
        pieces = TokenizerWrapper(_Pieces(text, self.end))
        self._pieces = LLTokenizer(pieces, slices=LLTokenizer.json_slices())
        self._begun = functools.lru_cache(SCHEMAS_KEPT)(self._begin)

    @classmethod
    def beside(cls, decoder: Path) -> CallGrammars | None:
        """Of the tokenizer in the folder `decoder`; None where there is none."""
        try:
            return cls(TextTokenizer.load(decoder / PIECES))
        except BundleError as error:
            log.info("calls of functions are checked, but not steered: %s", error)
            return None

    def matcher(self, schema: str) -> LLMatcher | None:
        """Follows a text of `schema` from its beginning; None for one that cannot be followed."""
        begun = self._begun(schema)
        return None if begun is None else begun.deep_copy()

    def _begin(self, schema: str) -> LLMatcher | None:
        try:
            grammar = LLMatcher.grammar_from_json_schema(
                schema, overrides={"whitespace_flexible": False}
            )
        except ValueError as error:
            log.warning("a schema of calls is no JSON object: %s", error)
            return None
        matcher = LLMatcher(self._pieces, grammar, log_level=0)
        if matcher.is_error():
            log.warning("calls are checked, but not steered: %s", matcher.get_error())
            return None
        return matcher


class CallMask:
    """Masks the logits of one answer so that each of its calls is as declared."""

    def __init__(
        self, grammars: CallGrammars, shape: CallShape, answer: Iterable[int] = ()
    ) -> None:
        """`answer`: the ids of it that are there already."""
        self._grammars = grammars
        self._shape = shape
        self._place = CallPlace(shape)
        self._matcher: LLMatcher | None = None  # of the call that is open, if it can be followed
        self.push(answer)

    def push(self, tokens: Iterable[int]) -> None:
        """Move on by the answer's next ids, `tokens`."""
        for token in tokens:
            was_inside = self._place.inside
            self._place.push(token)
            if not self._place.inside:
                self._matcher = None
            elif not was_inside:
                self._matcher = self._grammars.matcher(self._shape.schema)
            elif self._matcher is not None and not self._matcher.consume_token(token):
                self._matcher = None  # it has left the schema: the parser will give it up

    def apply(self, logits: Tensor) -> None:
        """Put -inf on the ids that may not come next; `logits` float `[vocabulary]`, in place."""
        if self._matcher is None:
            return
        packed = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        forbidden = ~np.unpackbits(packed, bitorder="little").astype(np.bool_)
        end = self._grammars.end
        mask = torch.ones(len(logits), dtype=torch.bool)
        mask[:end] = torch.from_numpy(forbidden[:end])
        mask[self._shape.call_end] = bool(forbidden[end])
        logits.masked_fill_(mask.to(logits.device), -torch.inf)


class _Pieces:
    """A text tokenizer as llguidance wants it."""

    bos_token_id = None

    def __init__(self, text: TextTokenizer, end: int) -> None:
        pieces = [text.piece(token) for token in range(text.vocabulary)]
        self.eos_token_id = end
        self.special_token_ids = [i for i, piece in enumerate(pieces) if piece in (b"", _UNKNOWN)]
        self.special_token_ids.append(end)
        self.tokens = [piece or b"<|%d|>" % i for i, piece in enumerate([*pieces, b""])]
        self._text = text
        self._newline = len(text.encode("\n"))

    def __call__(self, text: str) -> list[int]:
        """The ids of `text` amid a text, without sentencepiece's dummy prefix."""
        return self._text.encode("\n" + text)[self._newline :]
