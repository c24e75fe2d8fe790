"""The decoder's text pieces: a small sentencepiece model whose control ids are the bundle's."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

from aqaa.models.bundle import TokensConfig
from aqaa.models.groups import AUDIO_CODES
from aqaa.recipe.domain.commands import draw_commands
from aqaa.recipe.domain.load import Domain, Style
from aqaa.recipe.domain.replies import all_answers, draw_reply
from aqaa.recipe.domain.tools import COFFEE, COFFEE_SHORT, HEADING, STRANGERS, TOOLS
from aqaa.recipe.speech.voices import TEACHER

PIECES = 1280  # text ids 0..1279; whole words of the domain for the most part
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
ROLES = ("human\n", "assistant\n", "system\n", "tool\n", "\n")  # a piece each: turns begin so
CALL_MARKERS = ("<|CALL_START|>", "<|CALL_END|>")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,?!'-\"{}[]():_/+°%"
DRAWN_CALLS = 3000  # whose values the pieces learn to spell
VOCABULARY = -(-(PIECES + AUDIO_CODES) // 64) * 64


def call_symbols() -> list[str]:
    """What calls and declarations have in common, a piece each, the longest first.

    `{"name":"set_timer","arguments":{"minutes":5}}` is six pieces. None of them can be met in plain
    text, which they would cut up: each has a quote, an underline, a bracket or a comma before a
    letter.
    """
    symbols = {HEADING, '{"name":"', '","arguments":{', '"}}', "}}", '",', "()"}
    for tool in (*TOOLS.values(), COFFEE.renamed(COFFEE_SHORT)):
        symbols.add(tool.name)
        for place, (name, kind) in enumerate(tool.parameters):
            symbols |= {f'"{name}":', f"{',' if place else '('}{name}"}
            if "string" in kind:
                symbols.add(f'"{name}":"')
    return sorted(symbols, key=lambda symbol: (-len(symbol), symbol))


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


def has_pieces(path: Path) -> bool:
    """Whether `path` is a text model that can spell calls, as this recipe's can."""
    if not path.exists():
        return False
    pieces = Pieces.load(path)
    return not any(pieces.model.is_unknown(pieces.control(marker)) for marker in CALL_MARKERS)


def household_texts() -> list[str]:
    """What the household's tools are told, give back, and make nano say."""
    rng = random.Random(17)
    texts = [*all_answers(), *(tool.signature() for tool in (*TOOLS.values(), *STRANGERS))]
    for command in draw_commands(DRAWN_CALLS):
        call = command.missing.call if command.missing else command.call
        short = call.renamed(COFFEE_SHORT)
        texts += [command.said, call.spelt(), short.spelt(), draw_reply(call, rng).result]
        if command.missing:
            texts += [command.missing.asks, command.missing.reply]
    return texts


def train_pieces(domain: Domain, path: Path) -> Pieces:
    """Learns the pieces from the domain's texts and writes `path` (tokenizer.model)."""
    texts = [*domain.answers()] * 20 + [*domain.questions()] + household_texts()
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
        required_chars=LETTERS,
        pad_id=0,
        bos_id=1,
        unk_id=2,
        eos_id=-1,
        control_symbols=[
            "<|EOT|>",
            "<|BOT|>",
            *MARKERS,
            *STYLE_MARKERS.values(),
            *CALL_MARKERS,
        ],
        user_defined_symbols=[*ROLES, *call_symbols()],
        minloglevel=2,
        hard_vocab_limit=False,
        num_threads=1,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out.getvalue())
    return Pieces.load(path)
