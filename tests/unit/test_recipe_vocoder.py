"""The vocoder's recipe: voices, windows, resuming, packing; no training to speak of."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from aqaa.models.groups import GROUP_TOKENS, LINGUISTIC_CODES
from aqaa.recipe.domain.load import load_domain
from aqaa.recipe.speech.cache import Utterance
from aqaa.recipe.speech.pitch import f0_track, in_step
from aqaa.recipe.speech.voices import TEACHER
from aqaa.recipe.training import cosine_rate, train
from aqaa.recipe.vocoder import corpus, stages, train_flow, train_hift, voicing
from aqaa.recipe.vocoder.corpus import JUDGED, NEW, Corpus, Rendition, Sentence, script
from aqaa.recipe.vocoder.pack import PROMPT_GROUPS, pack, pack_voices
from aqaa.recipe.vocoder.pairs import Piece, pieces
from aqaa.recipe.vocoder.settings import GROUP_FRAMES, layout, settings
from aqaa.recipe.vocoder.stages import Drill, Recipe
from aqaa.recipe.vocoder.voicing import VOICES
from aqaa.vocoder.flow import Flow
from aqaa.vocoder.hift import Hift
from aqaa.vocoder.loading import load_flow, load_hift
from aqaa.vocoder.voices import load_voices


def speechlike_mel(frames: int, seed: int = 0) -> np.ndarray:
    """A mel that changes slowly and never repeats."""
    steps = np.random.default_rng(seed).standard_normal((80, frames))
    return np.cumsum(steps, axis=1).astype(np.float32) * 0.3 - 4.0


def codes(groups: int, seed: int = 0) -> list[int]:
    rng = np.random.default_rng(seed)
    rows = [[*rng.integers(0, 1024, 2), *rng.integers(1024, 5120, 3)] for _ in range(groups)]
    return [int(code) for row in rows for code in row]


def sentence(groups: int = 10, text: str = "Mars is red.") -> Sentence:
    frames = int(groups * GROUP_FRAMES) + 4
    voices = {
        name: Rendition(
            torch.randn(frames * 256) * 0.1,
            torch.from_numpy(speechlike_mel(frames, seed)),
            torch.full((frames,), 120.0),
        )
        for seed, name in enumerate(VOICES)
    }
    return Sentence(text, torch.tensor(codes(groups)), voices)


def test_a_kept_corpus_is_used_again_until_its_texts_or_their_renderings_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = []

    def rows(said: list[Utterance], *_: object) -> list[dict[str, object]]:
        recorded.append([utterance.text for utterance in said])
        return [{"tokens": torch.tensor(codes(2)), "voices": []} for _ in said]

    def corpus_of(training: list[str], clear: dict[str, Utterance]) -> Corpus:
        monkeypatch.setattr(corpus, "script", lambda: (training, ["Two."]))
        monkeypatch.setattr(corpus, "choose", lambda texts: clear)
        return corpus.load_corpus(tmp_path / "corpus.pt", encode=lambda wave: [])

    monkeypatch.setattr(corpus, "_rows", rows)
    first = corpus_of(["One."], {})
    again = corpus_of(["One."], {})
    then = corpus_of(["One.", "Three eggs."], {})
    clearer = corpus_of(
        ["One.", "Three eggs."], {"Three eggs.": Utterance("Three, eggs.", TEACHER)}
    )

    assert recorded == [
        ["One.", "Two."],
        ["One.", "Three eggs.", "Two."],
        ["One.", "Three, eggs.", "Two."],
    ]
    assert [s.text for s in again.training] == [s.text for s in first.training] == ["One."]
    texts = ["One.", "Three eggs."]
    assert [s.text for s in then.training] == [s.text for s in clearer.training] == texts


def test_every_answer_of_the_domain_is_trained_on_and_what_is_judged_is_not() -> None:
    training, judged = script()

    assert set(load_domain().answers()) <= set(training)
    assert len(judged) == JUDGED + NEW
    assert not set(judged) & set(training)


def test_every_voice_has_its_own_mel_for_the_tokens_of_the_teacher() -> None:
    spoken = sentence()

    plain = [p for p in pieces([spoken]) if p.tempo == "plain"]

    assert [p.voice for p in plain] == list(VOICES)
    for piece in plain:
        assert piece.tokens.tolist() == spoken.tokens.tolist()
        assert torch.equal(piece.mel, spoken.voices[piece.voice].mel[:, : piece.mel.shape[1]])


def test_joe_is_also_heard_slower_and_faster_with_the_mel_in_step() -> None:
    tempos = {p.tempo: p for p in pieces([sentence(10)]) if p.voice == "joe"}

    groups = {tempo: len(p.tokens) // GROUP_TOKENS for tempo, p in tempos.items()}
    assert groups == {"plain": 10, "slow": 14, "fast": 7}
    for tempo, piece in tempos.items():
        assert abs(piece.mel.shape[1] - groups[tempo] * GROUP_FRAMES) < 3


def test_raised_formants_are_found_higher_by_their_factor() -> None:
    spectra = np.zeros((3, 513))
    spectra[:, 200] = 1.0

    assert voicing._raise(spectra, 1.15).argmax(1).tolist() == [230, 230, 230]
    assert np.array_equal(voicing._raise(spectra, 1.0), spectra)


def test_each_voice_is_drawn_as_often_as_its_share_and_tempos_as_theirs() -> None:
    data = pieces([sentence(10), sentence(25)])

    weight = train_flow._Windows(data, 1600, prompted=0.0).weight

    for voice, share in train_flow.SHARES.items():
        own = sum(float(weight[i]) for i, p in enumerate(data) if p.voice == voice)
        assert own == pytest.approx(share)
    stretched = sum(float(weight[i]) for i, p in enumerate(data) if p.tempo != "plain")
    assert stretched == pytest.approx(train_flow.SHARES["joe"] * train_flow.TEMPO_SHARE)


def test_a_sentence_under_stress_is_drawn_oftener_than_others_of_its_length_and_voice() -> None:
    two = [sentence(10, "Hard for ada."), sentence(10, "Easy.")]
    data = pieces(two, stress={("Hard for ada.", "ada"): 4.0})

    weight = train_flow._Windows(data, 1000, prompted=0.5).weight

    drawn = {
        voice: [float(w) for p, w in zip(data, weight, strict=True) if p.voice == voice]
        for voice in ("ada", "joe_sad")
    }
    assert drawn["ada"][0] == pytest.approx(4 * drawn["ada"][1])
    assert drawn["joe_sad"][0] == pytest.approx(drawn["joe_sad"][1])


@pytest.mark.whisper
def test_each_round_of_drilling_goes_on_from_the_last_and_keeps_a_share_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = sentence(10, "Nothing of this is heard in noise.")
    monkeypatch.setattr(Recipe, "corpus", lambda self: Corpus([said], []))
    monkeypatch.setattr(stages, "DRILLS", (Drill(1, stress=4.0), Drill(1, stress=16.0, kept=0.25)))

    recipe = Recipe(tmp_path, from_bundle=True)
    stages.drill_stage(recipe)

    misheard = json.loads((tmp_path / "misheard2.json").read_text(encoding="utf-8"))
    assert misheard == [[said.text, voice] for voice in said.voices]
    first, second, shipped = (
        recipe.flow(name).input_embedding.weight for name in ("drill1", "drill2", "drilled")
    )
    assert not torch.equal(first, second)
    assert torch.allclose(shipped, second.lerp(first, 0.25), atol=1e-6)


def test_a_window_shows_each_frame_the_tokens_of_its_own_time() -> None:
    torch.manual_seed(0)
    groups = 30
    tokens = torch.arange(groups * GROUP_TOKENS)
    frames = int(groups * GROUP_FRAMES)
    mel = torch.arange(frames, dtype=torch.float32).expand(80, -1)

    cut, places, window = train_flow._cut(Piece(tokens, mel, "joe"), 6)

    frame_seconds, token_seconds = (window[0] + 0.5) * 256 / 22050, 0.024
    middles = (cut[0] + places + 0.5) * token_seconds
    inside = (places > 0) & (places < len(cut) - 1)
    assert len(cut) == 6 * GROUP_TOKENS
    assert inside.sum() > 50
    assert torch.allclose(middles[inside].float(), frame_seconds[inside], atol=1e-3)


def test_the_first_and_the_last_group_are_seen_as_often_as_the_middle() -> None:
    piece = next(p for p in pieces([sentence(20)]) if p.tempo == "plain")
    numbered = replace(piece, tokens=torch.arange(len(piece.tokens)))
    torch.manual_seed(0)

    seen = torch.zeros(20)
    for _ in range(4000):
        tokens, _, _ = train_flow._cut(numbered, 6)
        seen[tokens[::GROUP_TOKENS] // GROUP_TOKENS] += 1

    assert seen[[0, -1]].min() > 0.8 * seen[6:14].mean()


def test_windows_of_a_batch_have_one_shape_and_prompts_are_known() -> None:
    data = [Piece(torch.tensor(codes(25, i)), torch.randn(80, 258), "joe") for i in range(3)]
    draw = train_flow._Windows(data, 1600, prompted=0.6)
    for seed in range(8):
        torch.manual_seed(seed)
        batch = draw()
        assert batch.mel.shape[2] == batch.positions.shape[1] == batch.known.shape[1]
        assert batch.positions.max() <= batch.tokens.shape[1] - 1
        assert (batch.known.diff(dim=1) <= 0).all(), "what is known comes before what is not"
        assert (batch.known.sum(1) < batch.known.shape[1]).all()


def test_spoilt_tokens_stay_in_their_codebooks() -> None:
    torch.manual_seed(0)
    tokens = torch.tensor(codes(2000))

    spoilt = train_flow._spoil(tokens)

    assert 0.005 < (spoilt != tokens).float().mean() < 0.05
    assert torch.equal(spoilt < LINGUISTIC_CODES, tokens < LINGUISTIC_CODES)


def test_voices_have_reproducible_directions_of_their_own() -> None:
    joe, ada = (train_flow.speaker_embedding(name) for name in ("joe", "ada"))

    assert torch.equal(joe, train_flow.speaker_embedding("joe"))
    assert joe.norm() == pytest.approx(1.0, abs=1e-5)
    assert abs(float(joe @ ada)) < 0.4


def test_the_learning_rate_rises_then_falls_to_its_end() -> None:
    rates = [cosine_rate(step, 400, final=0.1, warmup=50) for step in range(400)]

    assert max(rates) == 1.0
    assert rates.index(1.0) == 49
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)
    assert all(a >= b for a, b in pairwise(rates[49:]))


def test_an_interrupted_training_ends_where_a_whole_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aqaa.recipe.training.SAVE_EVERY", 5)

    def run(checkpoint: Path, stop_after: int) -> torch.Tensor:
        torch.manual_seed(1)
        model = nn.Linear(4, 1)
        left = [stop_after]

        def losses(step: int) -> dict[str, torch.Tensor]:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            x = torch.randn(8, 4)
            return {"l2": (model(x) - x.sum(1, keepdim=True)).square().mean()}

        train(model, losses, steps=20, checkpoint=checkpoint)
        return model.weight.detach()

    whole = run(tmp_path / "whole.pt", 20)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut.pt", 13)

    assert torch.equal(run(tmp_path / "cut.pt", 10), whole)


def test_a_training_goes_on_from_weights_alone(tmp_path: Path) -> None:
    kept = {"weight": torch.full((1, 4), 2.0), "bias": torch.zeros(1)}
    torch.save({"model": kept, "step": 7}, tmp_path / "kept.pt")
    steps: list[int] = []
    model = nn.Linear(4, 1)

    def losses(step: int) -> dict[str, torch.Tensor]:
        steps.append(step)
        return {"l2": (model(torch.ones(1, 4)) - 8.0).square().mean()}  # there already

    train(model, losses, steps=9, checkpoint=tmp_path / "kept.pt")
    assert steps == [7, 8]
    assert torch.allclose(model.weight, kept["weight"], atol=1e-3)


def test_a_pitch_predictor_learns_the_pitch_of_the_mels_it_is_given(tmp_path: Path) -> None:
    torch.manual_seed(0)
    hift = Hift(settings().hift)
    train_hift.begin_f0(hift)
    low, high = torch.full((80, 100), -5.0), torch.full((80, 100), -2.0)
    pairs = [(low, torch.full((100,), 90.0)), (high, torch.full((100,), 180.0))]

    train_hift.train_f0(hift, pairs, 150, tmp_path / "f0.pt")

    with torch.no_grad():
        heard = [float(hift.f0(mel[None])[0, 50]) for mel in (low, high)]
    assert heard == pytest.approx([90, 180], rel=0.1)


def test_the_spectral_loss_is_zero_for_equal_waves_only() -> None:
    torch.manual_seed(0)
    wave = torch.randn(2, 8192) * 0.1

    assert train_hift.spectral_loss(wave, wave) == 0.0
    assert train_hift.spectral_loss(wave, 0.5 * wave) > 0.1


def test_what_is_packed_is_what_the_server_loads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    flow, hift = Flow(settings().flow), Hift(settings().hift)
    shutil.copy(layout() / "cosyvoice.yaml", tmp_path)

    pack(flow, hift, tmp_path)

    loaded = load_flow(tmp_path, settings().flow), load_hift(tmp_path, settings().hift)
    for ours, theirs in zip((flow, hift), loaded, strict=True):
        for name, value in ours.state_dict().items():
            assert torch.allclose(theirs.state_dict()[name], value, rtol=1e-3, atol=1e-6), name


def test_every_voice_is_packed_as_a_prompt_that_the_vocoder_accepts(tmp_path: Path) -> None:
    short = sentence(9, "Mars is near.")

    pack_voices(Corpus([sentence(12), short], []), tmp_path)

    voices = load_voices(tmp_path, settings())
    assert voices.keys() == VOICES.keys()
    for voice in voices.values():
        assert voice.tokens.tolist() == short.tokens.tolist()[-PROMPT_GROUPS * GROUP_TOKENS :]
        assert voice.text == "Mars is near."


@pytest.mark.parametrize("hertz", [75.0, 118.0, 240.0, 330.0])
def test_the_pitch_of_a_voice_rich_in_harmonics_is_found_and_silence_has_none(hertz: float) -> None:
    time = torch.arange(22_050) / 22_050
    voice = sum(torch.sin(2 * torch.pi * hertz * k * time) / k for k in range(1, 12)) * 0.1

    track = f0_track(torch.cat([torch.zeros(4096), voice, torch.zeros(4096)]))

    inside = track[22:-22]
    assert (inside - hertz).abs().max() < 0.02 * hertz
    assert (track[:12] == 0).all()
    assert (track[-12:] == 0).all()


def test_a_source_in_step_has_its_cycles_where_the_recording_has_them() -> None:
    hop, frames, hertz = 256, 80, 110.0
    cycles = 0.3 + hertz * torch.arange(hop * frames, dtype=torch.float64) / 22_050
    voice = sum(torch.cos(2 * torch.pi * k * cycles) / k for k in range(1, 12)) * 0.1
    f0 = torch.full((frames,), 1.03 * hertz)  # a pitch track that is 3 % out
    f0[:10] = f0[40:50] = 0.0

    bent, begins = in_step(voice.float(), f0)

    for some in (slice(18, 38), slice(58, 78)):  # a few frames after each onset
        behind = (begins[some] - cycles[::hop][some] + 0.5) % 1.0 - 0.5
        assert behind.abs().max() < 0.08
        assert (bent[some] / hertz - 1).abs().max() < 0.005
    assert (bent[40:50] == 0).all()


def test_noise_has_no_pitch() -> None:
    torch.manual_seed(0)

    assert (f0_track(torch.randn(44_100) * 0.1) > 0).float().mean() < 0.1


def test_codes_that_sound_alike_begin_with_embeddings_alike() -> None:
    rng = np.random.default_rng(0)
    linguistic, semantic = (rng.standard_normal((n, 24)).astype(np.float32) for n in (1024, 4096))
    linguistic[1] = linguistic[0] + 0.01
    flow = Flow(settings().flow)

    train_flow.seed_embeddings(flow, [linguistic, semantic])

    table = flow.input_embedding.weight.detach()
    near, far = (table[0] - table[1]).norm(), (table[0] - table[2]).norm()
    assert near < 0.3 * far
    assert (table[:1024, -1].mean() - table[1024:5120, -1].mean()) > 1.0, "codebooks are told apart"
