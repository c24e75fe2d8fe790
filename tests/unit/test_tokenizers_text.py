"""Text to ids and back, all at once and id by id."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import sentencepiece
from bundles import fixture_bundle
from hypothesis import given
from hypothesis import strategies as st

from aqaa.models.bundle import load_bundle, nano_path
from aqaa.models.errors import BundleError, TokenError
from aqaa.tokenizers.text import TextTokenizer

SENTENCES = [
    "The capital of France is Paris.",
    "What is two plus three?",
    "It is five, of course.",
    "Tell me a short story about a cat.",
    "你好，世界。",
]


@pytest.fixture(scope="module")
def model() -> bytes:
    """A sentencepiece model trained on a few sentences, with byte fallback and control pieces."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4),
        model_writer=written,
        vocab_size=360,
        model_type="bpe",
        byte_fallback=True,
        control_symbols=["<|EOT|>", "<|BOT|>"],
        minloglevel=2,
        normalization_rule_name="identity",
    )
    return written.getvalue()


@pytest.fixture(scope="module")
def text(model: bytes, tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    path = tmp_path_factory.mktemp("text") / "tokenizer.model"
    path.write_bytes(model)
    return TextTokenizer.load(path)


@pytest.mark.parametrize("sentence", [*SENTENCES, "naïve café", "🙂 four bytes", "tabs", ""])
def test_text_survives_the_round_trip(text: TextTokenizer, sentence: str) -> None:
    assert text.decode(text.encode(sentence)) == sentence


@given(st.text(st.sampled_from("aé你🙂 .?"), max_size=30))
def test_text_that_comes_id_by_id_is_the_same_text(text: TextTokenizer, sentence: str) -> None:
    ids = text.encode(sentence)
    stream = text.stream()
    pieces = [stream.push(token) for token in ids] + [stream.flush()]
    assert all("\ufffd" not in piece for piece in pieces)
    assert "".join(pieces) == text.decode(ids)


def test_a_character_of_many_bytes_comes_whole(text: TextTokenizer) -> None:
    stream = text.stream()
    pieces = [stream.push(token) for token in text.encode("🙂")]
    assert pieces[-1] == "🙂"
    assert not any(pieces[:-1])


def test_a_character_cut_at_the_end_is_shown_as_broken(text: TextTokenizer) -> None:
    stream = text.stream()
    for token in text.encode("🙂")[:-1]:
        assert stream.push(token) == ""
    assert stream.flush() == "\ufffd"


def test_control_pieces_are_silent_and_cannot_be_written(text: TextTokenizer) -> None:
    control = text._processor.piece_to_id("<|EOT|>")
    assert text.decode([control, *text.encode("Paris"), control]) == "Paris"
    assert control not in text.encode("<|EOT|>")


@pytest.mark.parametrize("token", [-1, 360, 65_536])
def test_an_id_that_is_not_text_is_refused(text: TextTokenizer, token: int) -> None:
    with pytest.raises(TokenError, match="not a text id"):
        text.decode([token])


def test_a_missing_or_damaged_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    with pytest.raises(BundleError, match=r"tokenizer\.model"):
        TextTokenizer.load(path)
    path.write_bytes(b"\x00 not a model")
    with pytest.raises(BundleError, match=r"tokenizer\.model"):
        TextTokenizer.load(path)


def test_text_ids_may_not_reach_into_the_audio_ids(tmp_path: Path, model: bytes) -> None:
    directory = fixture_bundle(tmp_path / "b", tmp_path)
    (tmp_path / "checkpoints" / "step1").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step1" / "tokenizer.model").write_bytes(model)
    bundle = load_bundle(directory)
    assert TextTokenizer.of(bundle).vocabulary == 360
    tokens = bundle.tokens.model_copy(update={"audio_offset": 300})
    with pytest.raises(BundleError, match="overlap"):
        TextTokenizer.of(bundle.model_copy(update={"tokens": tokens}))


@pytest.mark.parametrize(
    ("typed", "plain"),
    [
        ("What\u2019s two plus five?", "What's two plus five?"),
        ("six\u2013seven \u2014 eight", "six-seven - eight"),
        ("\u201chello\u201d", '"hello"'),
        ("and\u2026 then\u00a0what\u200b?", "and... then what?"),
        ("What\u02bcs two\u2002plus \u2066five\u2069\uff1f", "What's two plus five?"),
        ("caf\u00e9, cafe\u0301, \ufb01ve", "cafe, cafe, five"),
        ("first\u2028second", "first second"),
    ],
)
def test_typography_that_a_tokenizer_lacks_is_read_as_what_stands_for_it(
    typed: str, plain: str
) -> None:
    nano = TextTokenizer.of(load_bundle(nano_path()))
    assert nano.encode(typed) == nano.encode(plain)


def test_typography_that_a_tokenizer_has_stays(text: TextTokenizer) -> None:
    assert text.decode(text.encode("\u201cWhat\u2019s this \u2014 a test\u2026\u201d")) == (
        "\u201cWhat\u2019s this \u2014 a test\u2026\u201d"
    )
