"""The corpus: who may speak in it, what is said, and what a channel does to it."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from aqaa.models.errors import UnknownVoiceError
from aqaa.recipe.decoder.corpus import commands
from aqaa.recipe.evaluate.conditions import far, in_cafe, in_kitchen, in_kitchen_or_cafe
from aqaa.recipe.speech.augment import (
    add_noise,
    automatic_gain,
    change_speed,
    distort,
    in_room,
    laptop,
    recorded,
    telephone,
)
from aqaa.recipe.speech.batches import Placed, Row, make_row
from aqaa.recipe.speech.corpus import held_out_plan, plan, to_speak
from aqaa.recipe.speech.guide import Guide, measure_guide
from aqaa.recipe.speech.noises import babble, coloured, hum, kitchen
from aqaa.recipe.speech.phonemes import collapse, edit_distance
from aqaa.recipe.speech.rooms import draw_room, response
from aqaa.recipe.speech.store import Clip
from aqaa.recipe.speech.texts import sentences
from aqaa.recipe.speech.voices import HELD_OUT, SPOKEN, TEACHER, VOICES, synthesise


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(16_000 * seconds)) / 16_000)).astype(
        np.float32
    )


def test_held_out_voices_are_neither_spoken_nor_mixed_into_spoken_ones() -> None:
    assert not set(HELD_OUT) & set(SPOKEN)
    assert TEACHER in SPOKEN
    own_words = {VOICES[name].model.split(":")[0] for name in HELD_OUT}
    for name in SPOKEN:
        assert not {part.split(":")[0] for part in VOICES[name].model.split()} & own_words


def test_every_training_voice_speaks_and_the_plan_outlives_an_edit_of_the_domain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQAA_NANO_WORK", str(tmp_path))
    first = plan()
    assert Counter(u.voice for u in first).keys() == set(SPOKEN)
    monkeypatch.setattr("aqaa.recipe.speech.corpus.sentences", lambda *_: [])
    assert plan() == first


def test_what_is_new_and_judged_comes_first_to_be_spoken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQAA_NANO_WORK", str(tmp_path))
    orders = {c.said for c in commands() if c.call.name == "order_coffee"}
    wanted = to_speak()
    assert len(wanted) == len(set(wanted))
    first, rest = wanted[: len(wanted) // 20], wanted[len(wanted) // 20 :]
    share = [sum(u.text in orders for u in part) / len(part) for part in (first, rest)]
    assert share[0] > 0.4 > 4 * share[1]
    assert to_speak() == wanted


def test_held_out_voices_are_measured_on_texts_of_their_own() -> None:
    assert {u.voice for u in held_out_plan()} == set(HELD_OUT)


def test_texts_are_different_and_the_same_for_a_seed() -> None:
    texts = sentences(300, seed=4)
    assert len(set(texts)) == 300
    assert texts == sentences(300, seed=4) != sentences(300, seed=5)


def test_an_unknown_voice_is_refused_with_the_names_of_those_there_are() -> None:
    with pytest.raises(UnknownVoiceError, match="joe"):
        synthesise("hello", "nobody")


def test_telephone_keeps_the_speech_band_and_drops_what_lies_outside() -> None:
    def loudness(wave: np.ndarray) -> float:
        return float(np.sqrt((wave[4000:12000] ** 2).mean()))

    for hertz in (500, 1000, 3000):
        assert loudness(telephone(tone(hertz))) > 0.8 * loudness(tone(hertz))
    for hertz in (60, 5000, 7000):
        assert loudness(telephone(tone(hertz))) < 0.1 * loudness(tone(hertz))


def test_noise_is_as_loud_as_asked() -> None:
    wave = tone(440)
    added = add_noise(wave, 15.0, np.random.default_rng(0)) - wave
    ratio = 10 * np.log10((wave**2).mean() / (added**2).mean())
    assert ratio == pytest.approx(15.0, abs=0.1)


@pytest.mark.parametrize("decay", [0.2, 0.4, 0.6])
def test_a_room_dies_away_in_its_time(decay: float) -> None:
    rng = np.random.default_rng(0)
    curves = []
    for _ in range(12):
        left = (response(draw_room(rng, 2.0, decay), rng) ** 2)[::-1].cumsum()[::-1]
        curves.append(10 * np.log10(left / left[0]))
    curve = np.mean(curves, 0)
    start, end = (int(np.argmax(curve < level)) for level in (-10, -25))
    assert 4 * (end - start) / 16_000 == pytest.approx(decay, rel=0.3)  # 15 dB of the 60


def test_the_farther_the_more_room_and_the_direct_sound_stays_in_its_place() -> None:
    def share(distance: float) -> float:
        rng = np.random.default_rng(1)
        heard = [response(draw_room(rng, distance, 0.4), rng) for _ in range(20)]
        assert all(one[0] == 1.0 for one in heard)
        return float(np.mean([(one[40:] ** 2).sum() for one in heard]))

    assert share(0.2) < 0.5 * share(1.0) < 0.5 * share(3.0)


def test_every_noise_has_the_power_asked_for_and_none_is_another() -> None:
    rng = np.random.default_rng(3)
    made = [coloured(8000, rng), hum(8000, rng), kitchen(8000, rng)]
    made.append(babble(8000, [tone(200, 0.1), tone(300, 0.9)], rng))
    assert [float((one**2).mean()) for one in made] == pytest.approx([1.0] * 4)
    loudest = int(np.argmax(np.abs(np.fft.rfft(hum(16_000, rng)))))  # Hz
    assert min(abs(loudest - base * round(loudest / base)) for base in (50, 60)) <= 2


def test_a_laptop_takes_the_bass_and_an_automatic_gain_evens_out() -> None:
    rng = np.random.default_rng(5)
    assert np.abs(laptop(tone(40), rng)).max() < 0.2 * np.abs(tone(40)).max()
    steps = np.concatenate([tone(300), 0.05 * tone(300)])
    evened = automatic_gain(steps, rng)
    loud, quiet = np.abs(evened[8000:16_000]).max(), np.abs(evened[-8000:]).max()
    assert loud / quiet < 0.9 * 20


def test_a_recording_is_of_sixteen_bits_and_never_over_full_scale() -> None:
    kept = recorded(np.array([1.7, -1.7, 0.5, 1e-6], np.float32))
    assert kept.tolist() == pytest.approx([1.0, -1.0, 0.5, 0.0], abs=1e-4)
    assert kept[3] == 0


def test_the_conditions_of_the_evaluation_are_the_same_for_a_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wave = tone(300)
    assert np.array_equal(far(wave, 4), far(wave, 4))
    assert not np.array_equal(far(wave, 4), far(wave, 5))
    assert np.abs(far(wave, 4)).max() == pytest.approx(0.3 / 4, rel=0.02)  # 12 dB quieter
    monkeypatch.setattr("aqaa.recipe.evaluate.conditions._guests", lambda: (tone(180), tone(240)))
    for busy in (in_kitchen, in_cafe):
        noise = busy(wave, 1) - wave
        assert 10 * np.log10((wave**2).mean() / (noise**2).mean()) == pytest.approx(12, abs=0.2)
    assert np.array_equal(in_kitchen_or_cafe(wave, 1), in_cafe(wave, 1))
    room = in_room(wave, np.random.default_rng(0), 2.0, 0.4)
    assert room.shape == wave.shape


def test_faster_is_shorter_and_higher() -> None:
    fast = change_speed(tone(400), 1.25)
    assert len(fast) == pytest.approx(16_000 / 1.25, abs=2)
    assert np.argmax(np.abs(np.fft.rfft(fast[:8000]))) * 2 == pytest.approx(500, abs=4)


def test_a_distorted_wave_keeps_its_length_and_is_finite() -> None:
    for seed in range(20):
        wave = distort(tone(300, 0.7), np.random.default_rng(seed), [tone(900, 0.2)])
        assert wave.shape == (11_200,)
        assert np.isfinite(wave).all()


def test_a_row_holds_its_clips_whole_where_it_says_they_are() -> None:
    clip = Clip((tone(500, 0.8) * 32767).astype(np.int16), (1, 2, 3), "joe", "la")
    row = make_row([clip], 16_000 * 4, np.random.default_rng(2))
    assert row.phonemes == [1, 2, 3] * len(row.placed)
    spoken = np.zeros(len(row.clean), bool)
    for placed in row.placed:
        end = placed.start + int(len(clip.pcm) / placed.speed) + 1
        assert np.abs(row.clean[placed.start : end]).max() > 0.3
        spoken[placed.start : end + 2] = True
    assert not row.clean[~spoken].any()


def test_ctc_collapse_and_edit_distance() -> None:
    assert collapse([0, 5, 5, 0, 5, 7, 7, 0]) == [5, 5, 7]
    assert edit_distance([1, 2, 3, 4], [1, 3, 4, 4]) == 2
    assert edit_distance([], [1, 2]) == 2


def test_the_guide_is_asked_for_where_its_clip_is_played_and_nowhere_else() -> None:
    clip = Clip(np.ones(32_000, np.int16), (1,), "joe", "hello")  # two seconds: 50 targets
    frames = np.repeat(np.arange(50, dtype=np.float16)[:, None], 96, 1)
    guide = Guide({("joe", "hello", 32_000): frames})
    row = Row(np.zeros(48_000, np.float32), np.zeros(48_000, np.float32), (Placed(clip, 8000, 2),))

    (asked,) = guide.targets([row], step=640)
    (late,) = guide.targets([row], step=640, delay=640)

    assert asked.shape == (75, 96)
    spoken = np.isfinite(asked[:, 0])
    assert spoken.sum() == pytest.approx(25, abs=1)  # twice as fast: one second
    assert np.flatnonzero(spoken)[0] == pytest.approx(12.5, abs=1)
    assert np.diff(asked[spoken, 0]) == pytest.approx(2, abs=1)
    assert np.array_equal(late[14:], asked[13:-1], equal_nan=True)


@pytest.mark.whisper
def test_only_new_clips_are_measured_and_in_the_components_of_the_first(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-9000, 9000, 80_000).astype(np.int16)
    clip = Clip(noise, (1,), "joe", "hello")
    other = Clip(noise[:64_000], (1,), "joe", "hello")

    file, asked = tmp_path / "guide.npz", (clip, clip, other, clip)
    measured = [measure_guide([c], file, 1).of(c) for c in asked]

    assert [len(track) for track in measured] == [125, 125, 100, 125]
    assert np.array_equal(measured[0], measured[1])
    assert np.array_equal(measured[0], measured[3])
    same = np.corrcoef(measured[2][:90].ravel(), measured[0][:90].ravel())[0, 1]
    assert same > 0.9  # the components are those of the first corpus
