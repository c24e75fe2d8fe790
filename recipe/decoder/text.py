"""The decoder's text pieces: a small sentencepiece model whose control ids are the bundle's."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

from aqaa.models.bundle import TokensConfig
from aqaa.models.groups import AUDIO_CODES
from aqaa.recipe.domain.load import Domain, Style
from aqaa.recipe.speech.voices import TEACHER

PIECES = 1024  # text ids 0..1023; whole words of the domain for the most part
OTHER_VOICE = "ada"
HAPPY_VOICE, SAD_VOICE = f"{TEACHER}_happy", f"{TEACHER}_sad"  # a mood is a voice of the vocoder's
STYLE_MARKERS: dict[Style, str] = {
    "slow": "<slow>", "fast": "<fast>", "happy": "<happy>", "sad": "<sad>",
}  # fmt: skip
VOICE_MARKERS = {
    TEACHER: f"<voice_{TEACHER}>",
    OTHER_VOICE: f"<voice_{OTHER_VOICE}>",
    HAPPY_VOICE: STYLE_MARKERS["happy"],
    SAD_VOICE: STYLE_MARKERS["sad"],
}
MARKERS = ("<audio_start>", "<audio_end>", VOICE_MARKERS[TEACHER], VOICE_MARKERS[OTHER_VOICE])
ROLES = ("human\n", "assistant\n", "system\n", "\n")  # one piece each: they begin every turn
VOCABULARY = -(-(PIECES + AUDIO_CODES) // 64) * 64


@dataclass(frozen=True)
class Pieces:
    """The trained text model and the control ids in it."""

    model: sentencepiece.SentencePieceProcessor

    @classmethod
    def load(cls, path: Path) -> Pieces:
        """The pieces of a trained `tokenizer.model`."""
        return cls(sentencepiece.SentencePieceProcessor(model_file=str(path)))

    def encode(self, text: str) -> list[int]:
        """Ids of plain text."""
        ids: list[int] = self.model.encode(text, out_type=int)
        return ids

    def control(self, name: str) -> int:
        """Id of a control piece."""
        return int(self.model.piece_to_id(name))

    @property
    def tokens(self) -> TokensConfig:
        """The `tokens` section of the bundle that goes with these pieces."""
        return TokensConfig(
            audio_offset=PIECES,
            bos=1,
            eot=self.control("<|EOT|>"),
            bot=self.control("<|BOT|>"),
            pad=0,
            audio_start=self.control("<audio_start>"),
            audio_end=self.control("<audio_end>"),
            voice_markers={name: self.control(marker) for name, marker in VOICE_MARKERS.items()},
        )


def train_pieces(domain: Domain, path: Path) -> Pieces:
    """Learns the pieces from the domain's texts and writes `path` (tokenizer.model)."""
    texts = [*domain.answers()] * 20 + [*domain.questions()]
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=out,
        vocab_size=PIECES,
        model_type="bpe",
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        split_digits=True,
        required_chars="ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,?!'-",
        pad_id=0,
        bos_id=1,
        unk_id=2,
        eos_id=-1,
        control_symbols=["<|EOT|>", "<|BOT|>", *MARKERS, *STYLE_MARKERS.values()],
        user_defined_symbols=list(ROLES),
        minloglevel=2,
        hard_vocab_limit=False,
        num_threads=1,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out.getvalue())
    return Pieces.load(path)
