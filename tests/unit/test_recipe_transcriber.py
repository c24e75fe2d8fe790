"""The transcriber's pieces, its targets, and that the bundle's reader takes what is exported."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from aqaa.models.bundle import load_bundle, nano_path
from aqaa.recipe.domain.numbers import normalise
from aqaa.recipe.evaluate.household import held_out_texts
from aqaa.recipe.hearing import Hearing
from aqaa.recipe.linguistic.fbank import CHUNK_FRAMES, CHUNK_SAMPLES
from aqaa.recipe.linguistic.train import WIDTH_OUT, Masks, Speller
from aqaa.recipe.speech.batches import Placed, Row
from aqaa.recipe.speech.store import Clip
from aqaa.recipe.transcriber.head import ROWS, spelt, with_silence
from aqaa.recipe.transcriber.language import batch_of, texts, train_language
from aqaa.recipe.transcriber.pieces import BLANK, Spelling, corpus_pieces, joined, learn, written
from aqaa.recipe.transcriber.train import Draws, export, go_on_from, train_head
from aqaa.recipe.word_losses import spelling_loss
from aqaa.tokenizers.linguistic import LinguisticTokenizer
from aqaa.tokenizers.prefix_beam import Weighing
from aqaa.tokenizers.transcriber import Window, text_of
from aqaa.tokenizers.transcriber_ctc import SILENCE, CtcHead, CtcTranscriber

EXAMPLES = nano_path() / "examples"
TEXTS = [f"What's the {a} of {b}?" for a in ("capital", "colour", "weather") for b in
         ("France", "Germany", "milk", "a zebra", "tomorrow")]  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small wait for each other's threads most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def spelling() -> Spelling:
    return learn(TEXTS)


def test_a_transcript_has_small_letters_and_apostrophes() -> None:
    assert (
        written("Um, what's the TIME? It’s ten-past four!")
        == "um what's the time it's ten past four"
    )


def test_what_is_spelt_is_read_again(spelling: Spelling) -> None:
    assert spelling.pieces[0] == BLANK
    for text in [*TEXTS, "Quizzical jays vex bold foxes."]:
        ids = spelling.encode(text)
        assert min(ids) > 0
        assert joined(spelling.pieces[i] for i in ids) == written(text)


def test_a_row_is_spelt_clip_after_clip(spelling: Spelling) -> None:
    clips = [Clip(np.zeros(10, np.int16), (), "joe", text) for text in TEXTS[:2]]
    silence = np.zeros(100, np.float32)
    row = Row(silence, silence, tuple(Placed(clip, 0, 1.0) for clip in clips))
    expected = spelling.encode(TEXTS[0]) + spelling.encode(TEXTS[1])
    assert spelt(row, spelling) == expected


def test_the_bundle_reads_what_is_exported_and_it_spells_what_it_was_taught(
    spelling: Spelling, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    head = CtcHead(16, 48, 9, 1, ROWS, len(spelling.pieces))
    states = torch.randn(1, 40, 16)
    target = spelling.encode(TEXTS[0])
    optimiser = torch.optim.Adam(head.parameters(), 2e-2)
    for _ in range(60):
        rows, _ = head(with_silence(states))
        loss = spelling_loss(rows, [target])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert rows.shape[1] == (40 + SILENCE) * ROWS
    language = train_language([TEXTS] * 3, spelling, tmp_path / "language.pt", steps=2)
    export(head, language, spelling, tmp_path)

    served = CtcTranscriber.load(tmp_path, Weighing(0.5, 0.5), 16)
    stream = served.stream()
    pieces = stream.push(
        Window(torch.cat([torch.zeros(5, 6), states[0, :, :6]]), states[0, :, 6:], last=True)
    )

    assert text_of(pieces) == written(TEXTS[0])

    kept = tmp_path / "kept"
    kept.mkdir()
    go_on_from(tmp_path, kept)
    again = train_language([TEXTS] * 3, spelling, kept / "language.pt", steps=0)
    for weight, before in zip(again.parameters(), language.parameters(), strict=True):
        torch.testing.assert_close(weight, before, atol=1e-2, rtol=0)
    saved = torch.load(kept / "head.pt", weights_only=True)
    assert {name: w.shape for name, w in saved["model"].items()} == {
        name: w.shape for name, w in head.state_dict().items()
    }


def test_the_language_model_guesses_each_piece_and_the_end() -> None:
    read, guessed = batch_of([[5, 6, 7], [8]])
    assert read.tolist() == [[0, 5, 6, 7], [0, 8, 0, 0]]
    assert guessed.tolist() == [[5, 6, 7, 0], [8, 0, -1, -1]]


def test_a_trained_language_model_knows_what_was_said(spelling: Spelling, tmp_path: Path) -> None:
    model = train_language([TEXTS] * 3, spelling, tmp_path / "language.pt", steps=40)
    said, unsaid = (spelling.encode(text) for text in (TEXTS[0], "Bees hum under zinc"))

    def likely(ids: list[int]) -> float:
        read, guessed = batch_of([ids])
        with torch.inference_mode():
            return float(model(read)[0].gather(2, guessed[..., None]).mean())

    assert likely(said) > likely(unsaid) + 1


def test_no_phrasing_of_the_evaluation_is_in_the_language_model() -> None:
    trained = {normalise(text) for kind in texts() for text in kind}
    assert len(held_out_texts()) > 200
    assert not held_out_texts() & trained


def test_it_is_trained_on_what_the_server_gives_it() -> None:
    """Frames of whole waves, as training has them, are those of a stream's windows."""
    folder = load_bundle(nano_path()).tokenizer
    wave, _ = soundfile.read(next(EXAMPLES.glob("*.flac")), dtype="float32")
    whole = wave[: len(wave) // CHUNK_SAMPLES * CHUNK_SAMPLES]
    hearing = Hearing(folder.path)
    frames = hearing.frames(hearing.heard(whole[None]))[0]

    stream = LinguisticTokenizer.load(folder).stream(keep_windows=True)
    stream.push(whole)
    windows = [window for window in stream.take_windows() if isinstance(window, Window)]
    served = [torch.cat([w.states[-w.new :], w.heard], 1) for w in windows]

    assert len(served) * CHUNK_FRAMES == len(frames)
    torch.testing.assert_close(torch.cat(served), frames, atol=2e-2, rtol=0)


def test_beside_the_encoder_the_words_are_those_of_the_row(spelling: Spelling) -> None:
    torch.manual_seed(0)
    speller = Speller(spelling)
    clip = Clip(np.zeros(10, np.int16), (), "joe", TEXTS[0])
    row = Row(np.zeros(100, np.float32), np.zeros(100, np.float32), (Placed(clip, 0, 1.0),))
    emitted = torch.randn(1, 40, WIDTH_OUT, requires_grad=True)
    loss = speller.words_loss(emitted, [row])
    loss.backward()
    assert loss.item() > 0
    assert emitted.grad is not None
    assert emitted.grad.abs().sum() > 0


def test_pieces_are_learned_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQAA_NANO_WORK", str(tmp_path))
    monkeypatch.setattr("aqaa.recipe.transcriber.pieces.sentences", lambda count: TEXTS)
    monkeypatch.setattr("aqaa.recipe.transcriber.pieces.question_plan", lambda domain: [])
    first = corpus_pieces().pieces
    monkeypatch.setattr("aqaa.recipe.transcriber.pieces.sentences", lambda count: TEXTS[:3])
    assert corpus_pieces().pieces == first


def _noise(n: int, seed: int) -> Clip:
    pcm = np.random.default_rng(seed).normal(0, 3000, n).astype(np.int16)
    return Clip(pcm, (), "joe", TEXTS[seed])


def test_a_step_hears_the_same_whichever_process_draws_it(spelling: Spelling) -> None:
    clips = [_noise(30_000, seed) for seed in range(4)]
    draws = Draws(clips, spelling, seconds=12.0, steps=6)
    here = [draws[step] for step in range(3, 6)]
    elsewhere = DataLoader(draws, batch_size=None, sampler=range(3, 6), num_workers=2)
    for one, other in zip(here, elsewhere, strict=True):
        torch.testing.assert_close(one.waves, other.waves, atol=0, rtol=0)
        assert one.spelt == other.spelt
    assert not any(torch.equal(here[0].waves, other.waves) for other in here[1:])


def test_a_head_is_trained_where_the_rows_are_heard_and_is_whole_afterwards(
    spelling: Spelling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aqaa.recipe.transcriber.train.BATCH_SECONDS", 4.0)
    clips = [_noise(30_000, seed) for seed in range(4)]
    hearing = Hearing(load_bundle(nano_path()).tokenizer.path)
    head = train_head(clips, [], hearing, spelling, tmp_path / "head.pt", steps=1)
    assert torch.load(tmp_path / "head.pt", weights_only=True)["step"] == 1
    frames = torch.randn(1, 20, hearing.frame_width)
    with torch.inference_mode():
        once, again = (head(frames)[0] for _ in range(2))
        assert torch.equal(once, again)  # what is dropped in training is not when it serves
        head.train()
        assert not torch.equal(once, head(frames)[0])


def test_masks_blank_what_they_say_and_no_more() -> None:
    masks = Masks(share=1.0, frames=4, mels=14)
    frames, mels = masks.draw(200, 50, np.random.default_rng(0))
    for kept, most in ((frames, 3), (mels, 13)):
        blanked = (kept == 0).sum(1)
        assert 1 <= blanked.min() <= blanked.max() == most
