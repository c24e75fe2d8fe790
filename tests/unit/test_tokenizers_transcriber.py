"""The user's words: the CTC head as a stream, the spelling of pieces, and what a bundle may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from aqaa.models.errors import BundleError, StreamClosedError
from aqaa.tokenizers.funasr_encoder import EncoderState, import_funasr
from aqaa.tokenizers.language_model import LanguageModel
from aqaa.tokenizers.prefix_beam import PrefixBeam, Weighing
from aqaa.tokenizers.transcriber import (
    Piece,
    Tail,
    TranscriptStream,
    Window,
    WindowOrTail,
    Word,
    text_of,
    words_of,
)
from aqaa.tokenizers.transcriber_ctc import SILENCE, CtcHead, CtcTranscriber
from aqaa.tokenizers.transcriber_paraformer import PieceSpelling

WIDTH = 16  # of a frame: of these the first are the state, the others what was heard
STATE = 10
NOWHERE = EncoderState(0, torch.zeros(5, WIDTH), 0, torch.zeros(0))  # that nobody should read
PIECES = ["<blank>", "\u2581what", "\u2581is", "s", "it", "\u2581"]
WEIGHING = Weighing(language=0.5, piece=0.2)


@pytest.fixture(scope="module")
def head() -> CtcHead:
    torch.manual_seed(3)
    return CtcHead(WIDTH, inner=12, kernel=5, blocks=2, rows=2, pieces=len(PIECES))


@pytest.fixture(scope="module")
def language() -> LanguageModel:
    torch.manual_seed(4)
    return LanguageModel(len(PIECES), width=6, hidden=8).eval()


@pytest.fixture(scope="module")
def transcriber(head: CtcHead, language: LanguageModel) -> CtcTranscriber:
    return CtcTranscriber(head, language, PIECES, WEIGHING)


def windows_of(frames: torch.Tensor) -> list[WindowOrTail]:
    """The encoder's windows over `frames` [T, WIDTH], whose 5 older states nobody should read."""
    parts = frames.split(4) if len(frames) else ()
    windows: list[WindowOrTail] = [window_of(part) for part in parts]
    if len(frames) % 4:
        return [*windows[:-1], window_of(parts[-1], last=True)]
    return [*windows, Tail(NOWHERE)]


def window_of(new: torch.Tensor, *, last: bool = False) -> Window:
    """A window whose new frames are `new` [t, WIDTH]."""
    back = torch.full((5, STATE), torch.nan)
    return Window(torch.cat([back, new[:, :STATE]]), new[:, STATE:], last)


@torch.inference_mode()
def spelled_whole(head: CtcHead, language: LanguageModel, frames: torch.Tensor) -> list[int]:
    """The search over a whole utterance's rows, as a trainer sees them."""
    rows, _ = head(torch.cat([frames, torch.zeros(SILENCE, WIDTH)])[None])
    beam = PrefixBeam(language, WEIGHING)
    return [spelt.piece for spelt in beam.push(rows[0].numpy(), last=True)]


@pytest.mark.parametrize("count", [1, 3, 4, 8, 29, 40])
def test_a_streamed_ctc_head_says_what_it_says_of_the_whole(
    head, language, transcriber, count: int
) -> None:
    frames = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(count)) * 4
    stream = transcriber.stream()
    pieces = [piece for window in windows_of(frames) for piece in stream.push(window)]
    whole = "".join(PIECES[index] for index in spelled_whole(head, language, frames))
    assert "".join(piece.text for piece in pieces) == " ".join(whole.replace("\u2581", " ").split())
    assert count < 8 or pieces, "nothing was recognised: the test shows nothing"
    starts = [piece.start for piece in pieces]
    assert starts == sorted(starts)
    assert all(piece.end - piece.start == pytest.approx(0.03) for piece in pieces)
    assert all(piece.logprob <= 0 for piece in pieces)


def test_a_forked_transcript_goes_its_own_way(transcriber) -> None:
    frames = torch.randn(24, WIDTH, generator=torch.Generator().manual_seed(1)) * 4
    windows = windows_of(frames)
    alone, forked = transcriber.stream(), transcriber.stream()
    expected = [piece for window in windows for piece in alone.push(window)]
    got = [piece for window in windows[:3] for piece in forked.push(window)]
    other = forked.fork()
    other.push(window_of(torch.randn(4, WIDTH), last=True))
    got += [piece for window in windows[3:] for piece in forked.push(window)]
    assert got == expected
    with pytest.raises(StreamClosedError):
        other.push(windows[0])
    with pytest.raises(StreamClosedError):
        forked.fork()


def test_silence_alone_has_no_words(transcriber) -> None:
    assert transcriber.stream().push(Tail(NOWHERE)) == []


def write(folder: Path, head: CtcHead, language: LanguageModel, pieces: str) -> None:
    for network, file in ((head, "model.safetensors"), (language, "language.safetensors")):
        save_file({name: t.half() for name, t in network.state_dict().items()}, folder / file)
    (folder / "pieces.json").write_text(pieces, encoding="utf-8")


def test_a_ctc_head_is_read_from_its_files(
    tmp_path: Path, head: CtcHead, language: LanguageModel
) -> None:
    write(tmp_path, head, language, json.dumps(PIECES))
    read = CtcTranscriber.load(tmp_path, WEIGHING, WIDTH)
    assert read.texts[1] == " what"
    frames = torch.randn(1, 8, WIDTH)
    with torch.inference_mode():
        torch.testing.assert_close(read.head(frames)[0], head(frames)[0], atol=0.02, rtol=0)
        said = torch.tensor([[0, 3, 1]])
        torch.testing.assert_close(read.language(said)[0], language(said)[0], atol=0.02, rtol=0)
    with pytest.raises(BundleError, match="width 16, not 17"):
        CtcTranscriber.load(tmp_path, WEIGHING, WIDTH + 1)


def test_a_language_model_that_does_not_fit_is_named(
    tmp_path: Path, head: CtcHead, language: LanguageModel
) -> None:
    write(tmp_path, head, LanguageModel(5, 6, 8), json.dumps(PIECES))
    with pytest.raises(BundleError, match="knows 5 pieces, not 6"):
        CtcTranscriber.load(tmp_path, WEIGHING, WIDTH)
    save_file({"x": torch.zeros(1)}, tmp_path / "language.safetensors")
    with pytest.raises(BundleError, match="holds no language model"):
        CtcTranscriber.load(tmp_path, WEIGHING, WIDTH)
    (tmp_path / "language.safetensors").unlink()
    with pytest.raises(BundleError, match="language model is missing"):
        CtcTranscriber.load(tmp_path, WEIGHING, WIDTH)


@pytest.mark.parametrize(
    ("pieces", "says"),
    [
        (None, "is missing"),
        ("[1, 2]", "not a list of strings"),
        ("{", "not JSON"),
        (json.dumps(["<blank>", "a", "b", "c", "d"]), "12 outputs for 5 pieces"),
    ],
)
def test_pieces_that_do_not_fit_are_named(
    tmp_path: Path, head: CtcHead, pieces: str | None, says: str
) -> None:
    save_file(head.state_dict(), tmp_path / "model.safetensors")
    if pieces is not None:
        (tmp_path / "pieces.json").write_text(pieces, encoding="utf-8")
    with pytest.raises(BundleError, match=says):
        CtcTranscriber.load(tmp_path, WEIGHING, WIDTH)


def written(tokens: list[str]) -> str:
    spelling = PieceSpelling()
    pieces = [p for token in tokens for p in spelling.push(Piece(token, 0, 0, 0))]
    return text_of(pieces + spelling.end())


WORDS = ["lo", "i", "b", "m", "it's", "the", "c", "你", "好", "hel@@ lo", "hel@@ i", "a@@ b@@ c"]


@given(words=st.lists(st.sampled_from(WORDS), max_size=12))
def test_pieces_are_written_as_funasr_writes_them(words: list[str]) -> None:
    theirs = import_funasr("funasr.utils.postprocess_utils").sentence_postprocess
    tokens = " ".join(words).split()
    assert written(tokens) == theirs(tokens)[0]


def test_a_word_is_written_as_soon_as_it_is_known() -> None:
    spelling = PieceSpelling()
    said = [
        "".join(piece.text for piece in spelling.push(Piece(token, 0, 0, 0)))
        for token in ["the", "a", "hel@@", "lo", "i", "b", "m"]
    ]
    assert said == ["the", "", " a hel", "lo", "", " IB", "M"]


def test_words_have_the_times_of_their_pieces() -> None:
    pieces = [
        Piece("hel", 0.1, 0.2, -1.0),
        Piece("lo", 0.2, 0.3, -1.0),
        Piece(" you", 0.5, 0.6, -1.0),
        Piece("你", 0.7, 0.8, -1.0),
        Piece("好", 0.8, 0.9, -1.0),
    ]
    assert words_of(pieces) == [
        Word("hello", 0.1, 0.3),
        Word("you", 0.5, 0.6),
        Word("你", 0.7, 0.8),
        Word("好", 0.8, 0.9),
    ]
    assert text_of(pieces) == "hello you你好"


class Given(TranscriptStream):
    """A recogniser that says what it was given."""

    def __init__(self, *windows: list[str]) -> None:
        super().__init__()
        self._windows = iter(windows)

    def _copy_state(self, original: Self) -> None:
        self._windows = original._windows

    def _recognise(self, window: WindowOrTail) -> list[Piece]:
        return [Piece(text, 1.0, 1.1, -0.5) for text in next(self._windows)]


def test_a_blank_alone_belongs_to_the_piece_that_follows_it() -> None:
    stream = Given([" ", "so", " "], ["it", "'s", " "], [" ", " on", " "])
    windows = [window_of(torch.zeros(4, WIDTH)) for _ in range(2)]
    said = [stream.push(window) for window in [*windows, Tail(NOWHERE)]]
    assert [[piece.text for piece in pieces] for pieces in said] == [["so"], [" it", "'s"], [" on"]]
    assert [piece.logprob for pieces in said for piece in pieces] == [-1.0, -1.0, -0.5, -1.5]
    pieces = [piece for pieces in said for piece in pieces]
    assert "".join(piece.text for piece in pieces) == text_of(pieces) == "so it's on"
    assert [word.text for word in words_of(pieces)] == ["so", "it's", "on"]
