"""What the transcriber spells with: pieces of words, learned once from what the corpus says."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass

import sentencepiece

from aqaa.recipe.decoder.corpus import question_plan
from aqaa.recipe.domain.load import load_domain
from aqaa.recipe.speech.cache import work_dir
from aqaa.recipe.speech.texts import sentences

COUNT = 400  # pieces beside the blank: at 33 rows a second short ones are fast enough
BLANK = "<blank>"


def written(text: str) -> str:
    """The words of `text` as a transcript has them: small letters and apostrophes alone."""
    return " ".join(re.sub(r"[^a-z' ]+", " ", text.lower().replace("’", "'")).split())


@dataclass(frozen=True)
class Spelling:
    """Trained pieces; number 0 is the blank."""

    model: sentencepiece.SentencePieceProcessor

    @property
    def pieces(self) -> list[str]:
        """What `pieces.json` holds."""
        size = self.model.get_piece_size()
        return [BLANK, *(self.model.id_to_piece(i) for i in range(1, size))]

    def encode(self, text: str) -> list[int]:
        """Numbers from 1 of the words of `text`."""
        ids: list[int] = self.model.encode(written(text), out_type=int)
        return ids


def learn(texts: Iterable[str]) -> Spelling:
    """Pieces for `texts`; the same for the same texts."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([written(text) for text in texts]),
        model_writer=out,
        vocab_size=COUNT + 1,
        model_type="unigram",
        character_coverage=1.0,
        normalization_rule_name="identity",
        required_chars="abcdefghijklmnopqrstuvwxyz'",
        unk_id=0,  # its place is the blank's: with all letters known it is never used
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
    )
    return Spelling(sentencepiece.SentencePieceProcessor(model_proto=out.getvalue()))


def corpus_pieces() -> Spelling:
    """Pieces for all that is said in the corpus; they stay as they are in the work directory."""
    file = work_dir() / "transcriber" / "pieces.model"
    if not file.exists():
        planned = {utterance.text for utterance in question_plan(load_domain())}
        learned = learn([*sorted(planned), *sentences(6000)])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(learned.model.serialized_model_proto())
    return Spelling(sentencepiece.SentencePieceProcessor(model_file=str(file)))


def joined(pieces: Iterable[str]) -> str:
    """The words that `pieces` spell."""
    return "".join(pieces).replace("▁", " ").strip()
