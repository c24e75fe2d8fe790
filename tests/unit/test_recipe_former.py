"""A decoder of new pieces goes on from a former one: its weights, and what it says."""

import multiprocessing.dummy
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sentencepiece
import soundfile
import torch

from aqaa.models.bundle import load_bundle, nano_path
from aqaa.models.groups import AUDIO_CODES, GROUP_TOKENS, may_stand
from aqaa.recipe.decoder.clips import load_material, rows_of, save, tokenised
from aqaa.recipe.decoder.corpus import question_plan
from aqaa.recipe.decoder.model import NANO, Decoder, save_decoder
from aqaa.recipe.decoder.prepare import (
    NOISES,
    RENDERED_NOW,
    folder,
    former,
    hear_more,
    hear_noises,
    make_pieces,
    prepare,
    recited,
    render_more,
)
from aqaa.recipe.decoder.recite import recite
from aqaa.recipe.decoder.text import CALL_MARKERS, Pieces, has_pieces, train_pieces
from aqaa.recipe.decoder.train import LETTERS, inherit
from aqaa.recipe.domain.load import Domain, load_domain
from aqaa.recipe.domain.replies import all_answers
from aqaa.recipe.speech.cache import cached_path
from aqaa.recipe.speech.corpus import untold

SPEECH = [3, 4, 1024, 1025, 1026] * 7  # audio tokens of 0.84 s


@pytest.fixture(scope="module")
def domain() -> Domain:
    return load_domain()


@pytest.fixture(scope="module")
def pieces(domain: Domain, tmp_path_factory: pytest.TempPathFactory) -> Pieces:
    return train_pieces(domain, tmp_path_factory.mktemp("pieces") / "tokenizer.model")


def other_pieces(tmp_path: Path) -> Path:
    """A folder with a text model of 300 pieces that cannot spell calls, as a former edition's."""
    tmp_path.mkdir(exist_ok=True)
    texts = ["The capital of France is Paris.", "What is two plus three?", "a cappuccino, please"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 30),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=60,
        model_type="bpe",
        add_dummy_prefix=False,
        control_symbols=["<|EOT|>", "<|BOT|>"],
        user_defined_symbols=["human\n"],
        minloglevel=2,
    )
    return tmp_path


def test_new_pieces_go_on_from_what_the_former_ones_had_learned(
    pieces: Pieces, tmp_path: Path
) -> None:
    known = Pieces.load(other_pieces(tmp_path) / "tokenizer.model")
    offset = known.model.get_piece_size()
    small = replace(
        NANO,
        vocab_size=offset + AUDIO_CODES,
        hidden_size=64,
        intermediate_size=96,
        num_attention_heads=4,
        num_hidden_layers=2,
    )
    former = Decoder(small, letters=3, ear_layer=1)
    save_decoder(former, tmp_path, bos=1, eos=3, pad=0)
    model = Decoder(replace(small, vocab_size=NANO.vocab_size), len(LETTERS) + 1, ear_layer=1)
    before = model.model.embed_tokens.weight.clone()
    inherit(model, tmp_path, pieces)

    rows, old = model.model.embed_tokens.weight, former.model.embed_tokens.weight.half().float()
    begin = pieces.tokens.audio_offset
    assert torch.equal(rows[begin : begin + AUDIO_CODES], old[offset:])
    assert torch.equal(rows[pieces.tokens.bot], old[known.control("<|BOT|>")])
    assert torch.equal(rows[pieces.control("human\n")], old[known.control("human\n")])
    spelt = known.encode(" cappuccino")
    assert len(spelt) > 1
    whole = rows[pieces.control("\u2581cappuccino")]
    assert torch.allclose(whole, old[spelt].mean(0))
    marker = pieces.control(CALL_MARKERS[0])
    assert torch.equal(rows[marker], before[marker])
    head, its = model.lm_head.weight, former.lm_head.weight.half().float()
    assert torch.equal(head[begin : begin + AUDIO_CODES], its[offset:])
    layer, its_layer = model.model.layers[1].mlp, former.model.layers[1].mlp
    assert torch.equal(layer.up_proj.weight, its_layer.up_proj.weight.half().float())


def test_replaced_pieces_are_kept_with_what_their_decoder_says(
    domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQAA_NANO_WORK", str(tmp_path / "work"))
    said = {"Hello.": np.array(SPEECH, np.uint16)}
    monkeypatch.setattr("aqaa.recipe.decoder.prepare.recite", lambda bundle, domain: said)
    monkeypatch.setattr("aqaa.recipe.decoder.prepare.load_bundle", lambda path: path)
    path = other_pieces(tmp_path / "decoder") / "tokenizer.model"
    before = path.read_bytes()
    make_pieces(domain, tmp_path)
    assert has_pieces(path)
    assert (former() / path.name).read_bytes() == before
    assert [(text, [*codes]) for text, _, codes in rows_of(recited())] == [("Hello.", SPEECH)]

    made = path.read_bytes()
    make_pieces(domain, tmp_path)
    assert (path.read_bytes(), (former() / path.name).read_bytes()) == (made, before)


def test_nano_recites_its_answers_in_whole_groups(domain: Domain) -> None:
    capital = next(fact for fact in domain.facts if fact.intent == "capital")
    silent = replace(capital, answer="Nobody ever taught it this.")
    said = recite(load_bundle(nano_path()), replace(domain, facts=(capital, silent), dialogues=()))
    assert said.keys() == {capital.answer}
    codes = said[capital.answer]
    assert len(codes) > 20
    assert len(codes) % GROUP_TOKENS == 0
    assert all(may_stand(int(code), place) for place, code in enumerate(codes))


def test_a_training_hears_more_as_it_goes_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQAA_NANO_WORK", str(tmp_path))
    heard: list[int] = []

    def encode(waves: Sequence[np.ndarray]) -> list[list[int]]:
        heard.append(len(waves))
        return [SPEECH] * len(waves)

    monkeypatch.setattr("aqaa.recipe.decoder.prepare.encode_all", encode)
    monkeypatch.setattr("aqaa.recipe.decoder.prepare.SPOKEN_NOW", 0)
    folder().mkdir()
    spoken = untold([])[:3]
    for utterance in spoken:
        cached_path(utterance).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(cached_path(utterance), np.sin(np.arange(16_000) / 9), 16_000)
    hear_more()
    hear_more()

    assert heard == [3]
    assert tokenised(folder()) == Counter(spoken)


def test_a_preparation_that_was_stopped_goes_on_beside_the_shards_that_it_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQAA_NANO_WORK", str(tmp_path))
    module = "aqaa.recipe.decoder.prepare"
    for name in ("make_pieces", "wanted_answers", "tokenise_answers", "hear_noises"):
        monkeypatch.setattr(f"{module}.{name}", lambda *_: None)
    asked = untold([])[:4]
    monkeypatch.setattr(f"{module}.spoken", lambda: asked)
    monkeypatch.setattr(f"{module}.SHARD", 1)
    monkeypatch.setattr(f"{module}.encode_all", lambda waves: [SPEECH] * len(waves))
    threads = SimpleNamespace(get_context=lambda _: multiprocessing.dummy)
    monkeypatch.setattr(f"{module}.multiprocessing", threads)
    folder().mkdir()
    for utterance in asked:
        cached_path(utterance).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(cached_path(utterance), np.sin(np.arange(16_000) / 9), 16_000)
    for utterance, number in zip(asked, (0, 2), strict=False):  # 1 was being made
        who = f"{utterance.voice} {utterance.rate}"
        save([(utterance.text, who, SPEECH)], folder() / f"questions-{number:03}.npz")
    prepare(1, takes=1)

    assert tokenised(folder()) == Counter(asked)


def test_answers_to_tools_get_their_sound_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQAA_NANO_WORK", str(tmp_path))
    monkeypatch.setattr("aqaa.recipe.decoder.prepare.encode", lambda wave: SPEECH)
    monkeypatch.setattr("aqaa.recipe.decoder.clips.as_answer", lambda said: said)
    folder().mkdir()
    known = [("Hello.", "plain", np.array(SPEECH[:5], np.uint16))]
    save(known, folder() / "answers.npz")
    render_more()
    render_more()

    rows = rows_of(folder() / "answers.npz")
    texts = [text for text, _, _ in rows]
    assert rows[0][2].tolist() == SPEECH[:5]
    assert len({*texts}) == len(texts) == 1 + 2 * RENDERED_NOW
    assert {*texts[1:]} <= {*all_answers()}


def test_noises_are_heard_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQAA_NANO_WORK", str(tmp_path))
    loudest: list[float] = []

    def encode(waves: Sequence[np.ndarray]) -> list[list[int]]:
        loudest.extend(float(np.abs(wave).max()) for wave in waves)
        return [SPEECH] * len(waves)

    monkeypatch.setattr("aqaa.recipe.decoder.prepare.encode_all", encode)
    folder().mkdir()
    hear_noises()
    hear_noises()

    assert len(loudest) == NOISES
    assert min(loudest) < 1e-4  # silence, as 16 bits hold it
    assert max(loudest) > 0.1
    save([("Hello.", "plain", SPEECH)], folder() / "answers.npz")
    assert len(load_material(folder()).noises) == NOISES


def test_questions_come_before_commands_to_a_decoder_that_lacks_both(
    domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQAA_NANO_WORK", str(tmp_path))
    done = question_plan(domain)[:1000]
    left = untold(done)

    assert set(left) == set(question_plan(domain)) - set(done)
    asked = [utterance.text in domain.questions() for utterance in left]
    assert asked == sorted(asked, reverse=True)
