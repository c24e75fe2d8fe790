"""A text tokenizer and the ids around it, small and real: sentencepiece with control pieces."""

from __future__ import annotations

import io

import sentencepiece

from aqaa.models.bundle import TokensConfig
from aqaa.models.groups import LINGUISTIC_CODES
from aqaa.tokenizers.text import TextTokenizer

SENTENCES = ["Hello there, how are you?", "I am well. The weather is fine today.", "One two three."]
CONTROLS = ["<|EOT|>", "<|BOT|>", "<audio_start>", "<audio_end>", "<voice_a>"]


def tiny_text() -> tuple[TextTokenizer, TokensConfig]:
    """The tokenizer, with the published dummy prefix and byte fallback, and a bundle's ids."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4),
        model_writer=model,
        vocab_size=360,
        model_type="bpe",
        byte_fallback=True,
        pad_id=0,
        bos_id=1,
        unk_id=2,
        eos_id=-1,
        control_symbols=CONTROLS,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    eot, bot, start, end, voice = map(pieces.piece_to_id, CONTROLS)
    tokens = TokensConfig(
        audio_offset=400,
        eot=eot,
        bot=bot,
        audio_start=start,
        audio_end=end,
        voice_markers={"a": voice},
    )
    return TextTokenizer(pieces), tokens


def a_group(tokens: TokensConfig, number: int = 0) -> list[int]:
    """The decoder ids of one group of audio: two linguistic, three semantic."""
    base = tokens.audio_offset
    semantic = base + LINGUISTIC_CODES
    return [base + number, base + number + 1, *(semantic + number + i for i in range(3))]


def groups(tokens: TokensConfig, count: int, first: int = 0) -> list[int]:
    """So many groups, all different."""
    return [token for number in range(first, first + count) for token in a_group(tokens, number)]
