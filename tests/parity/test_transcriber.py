"""The transcriber of the published folder against FunASR's own streaming recogniser: ids equal.

No trained recogniser is at hand: its folder is written here with random weights. Ours ends as the
tokenizer's stream ends, which differs where that takes a frame more from the last 60 ms (880 to 960
samples) or has a window already (3,760 to 3,840).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from bundles import fixture_bundle
from paraformer import funasr_streams, write_paraformer

from aqaa.models.bundle import TokenizerConfig, load_bundle
from aqaa.tokenizers.dual import DualTokenizer
from aqaa.tokenizers.linguistic import LinguisticTokenizer
from aqaa.tokenizers.transcriber import Piece
from aqaa.tokenizers.transcriber_loading import load_transcriber
from aqaa.tokenizers.transcriber_paraformer import ParaformerTranscriber


@pytest.fixture(scope="module")
def folder(fixtures_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    published = fixtures_dir / "checkpoints" / "Step-Audio-Tokenizer"
    root = tmp_path_factory.mktemp("tokenizer")
    for file in ("linguistic_tokenizer.npy", "speech_tokenizer_v1.onnx"):
        (root / file).symlink_to(published / file)
    return write_paraformer(root / "recogniser", next((published / "dengcunqin").iterdir()))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> LinguisticTokenizer:
    return LinguisticTokenizer.load(TokenizerConfig(path=folder.parent, linguistic=folder.name))


@pytest.fixture(scope="module")
def transcriber(folder: Path, tokenizer: LinguisticTokenizer) -> ParaformerTranscriber:
    return ParaformerTranscriber.load(folder, tokenizer.encoder)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Callable[[np.ndarray], list[int]]:
    return funasr_streams(folder)


@pytest.fixture(scope="module")
def recording(fixtures_dir: Path) -> np.ndarray:
    return soundfile.read(fixtures_dir / "wavs" / "ex_zhaobenshan.wav", dtype="float32")[0]


def pieces_of(tokenizer: Any, transcriber: Any, wav: np.ndarray, cut: int) -> list[Piece]:
    stream, words = tokenizer.stream(keep_windows=True), transcriber.stream()
    pieces: list[Piece] = []
    for begin in range(0, wav.size, cut):
        stream.push(wav[begin : begin + cut])
        pieces += [piece for window in stream.take_windows() for piece in words.push(window)]
    stream.flush()
    return pieces + [piece for window in stream.take_windows() for piece in words.push(window)]


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param(3840 * 9, id="ends between two windows"),
        pytest.param(3840 * 9 + 500, id="a tail too short for a frame"),
        pytest.param(3840 * 9 + 1100, id="a tail of one frame"),
        pytest.param(3840 * 9 + 3700, id="a tail of four frames"),
        pytest.param(2000, id="less than one window"),
        pytest.param(None, id="all"),
    ],
)
def test_ids_equal_funasrs_streaming(
    tokenizer, transcriber, theirs, recording, samples: int | None
) -> None:
    wav = recording[:samples]
    expected = [transcriber.pieces[index] for index in theirs(wav)]
    expected = [text for text in expected if text != "<unk>"]
    pieces = pieces_of(tokenizer, transcriber, wav, 1600)
    assert [piece.text.strip() for piece in pieces] == expected
    assert wav.size < 10_000 or len(set(expected)) > 3, "too little to tell anything by"
    ends = [piece.end for piece in pieces]
    assert ends == sorted(ends)
    assert all(0 <= piece.start <= piece.end <= wav.size / 16_000 + 0.12 for piece in pieces)


def test_text_does_not_depend_on_how_the_sound_was_cut(tokenizer, transcriber, recording) -> None:
    wav = recording[: 3840 * 12 + 777]
    whole = pieces_of(tokenizer, transcriber, wav, wav.size)
    assert pieces_of(tokenizer, transcriber, wav, 333) == whole


def test_a_fork_leaves_the_original(tokenizer, transcriber, recording) -> None:
    """The fork is ended at a pause; what the original says later is as if nobody had forked."""
    wav = recording[: 3840 * 14]
    expected = pieces_of(tokenizer, transcriber, wav, 3840)
    stream, words = tokenizer.stream(keep_windows=True), transcriber.stream()
    stream.push(wav[: 3840 * 7 + 1200])
    got = [piece for window in stream.take_windows() for piece in words.push(window)]
    pause, forked = stream.fork(), words.fork()
    pause.flush()
    for window in pause.take_windows():
        forked.push(window)
    stream.push(wav[3840 * 7 + 1200 :])
    stream.flush()
    got += [piece for window in stream.take_windows() for piece in words.push(window)]
    assert got == expected


def test_a_bundle_that_names_its_recogniser_hears_words(
    tmp_path: Path, fixtures_dir: Path, folder: Path, recording
) -> None:
    keys = f'linguistic = "{folder}"\n[transcriber]\nkind = "paraformer"\n'
    bundle = load_bundle(fixture_bundle(tmp_path / "bundle", fixtures_dir, tokenizer=keys))
    dual = DualTokenizer.load(bundle)
    transcriber = load_transcriber(bundle, dual.linguistic)
    assert transcriber is not None
    words, whole = transcriber.stream(), dual.encode_fully(recording)
    pieces = [piece for window in whole.windows for piece in words.push(window)]
    assert len(pieces) > 20
    parts = [window for windows in dual.windows_of(recording) for window in windows]
    words = transcriber.stream()
    assert [piece for window in parts for piece in words.push(window)] == pieces
    live = dual.stream()
    live.push(recording)
    live.flush()
    assert len(live.take_windows()) == len(whole.windows)
    assert live.take_windows() == []


def test_a_bundle_without_a_transcriber_keeps_no_steps(
    tmp_path: Path, fixtures_dir: Path, recording
) -> None:
    bundle = load_bundle(fixture_bundle(tmp_path / "bundle", fixtures_dir))
    dual = DualTokenizer.load(bundle)
    assert load_transcriber(bundle, dual.linguistic) is None
    assert dual.encode_fully(recording).windows == []
