"""What speech during an answer is taken for, frame by frame."""

from __future__ import annotations

import pytest

from aqaa.server.hearing.interruption import (
    EARLIEST_MS,
    ECHO,
    FRAME_MS,
    LAST_MS,
    LONG_MS,
    MANY,
    OVER_MS,
    Doubt,
    Evidence,
    Kinds,
    Verdict,
)

SPEECH = Kinds(speech=0.7, backchannel=0.2, noise=0.1)
SURELY_SPEECH = Kinds(speech=0.9, backchannel=0.05, noise=0.05)
ASSENT = Kinds(speech=0.1, backchannel=0.8, noise=0.1)
COUGH = Kinds(speech=0.1, backchannel=0.2, noise=0.7)


def settle(
    voiced_ms: float, known: Evidence | None = None, *, pattern: str = ""
) -> tuple[Verdict, float]:
    """What is said of so much speech and the silence after it, and how long after the onset.

    `pattern`: instead, frames in turn with speech (x) and without (.), again and again.
    """
    doubt = Doubt(onset_frames=2)
    number = 2
    while (verdict := doubt.verdict(known or Evidence())) is None:
        voiced = pattern[number % len(pattern)] == "x" if pattern else number * FRAME_MS < voiced_ms
        doubt.frame(voiced)
        number += 1
        assert number < 100, "no verdict was found"
    return verdict, doubt.elapsed_ms


def lasted(milliseconds: float) -> Doubt:
    """All of it speech."""
    doubt = Doubt(onset_frames=2)
    while doubt.elapsed_ms < milliseconds:
        doubt.frame(voiced=True)
    return doubt


NOTHING = Kinds(speech=0.05, backchannel=0.8, noise=0.15)
CLATTER = Kinds(speech=0.05, backchannel=0.15, noise=0.8)


@pytest.mark.parametrize(
    ("known", "nothing"),
    [
        (Evidence(NOTHING), "backchannel"),
        (Evidence(CLATTER), "noise"),
        (Evidence(echo=ECHO), "echo"),
        (Evidence(ASSENT), "backchannel"),
        (Evidence(SPEECH), None),
        (Evidence(Kinds(speech=0.4, backchannel=0.5, noise=0.1)), None),
        (Evidence(), None),
    ],
)
def test_what_interrupted_is_regretted_where_it_surely_was_nothing(
    known: Evidence, nothing: Verdict | None
) -> None:
    assert lasted(800).after_all(known) == nothing


def test_who_interrupted_for_long_meant_it() -> None:
    assert lasted(2100).after_all(Evidence(NOTHING, echo=1.0)) is None


def test_who_goes_on_speaking_interrupts() -> None:
    verdict, after = settle(voiced_ms=3000)
    assert verdict == "interruption"
    assert LONG_MS <= after <= LONG_MS + FRAME_MS


def test_who_says_more_syllables_than_a_word_of_assent_has_interrupts_at_the_third() -> None:
    verdict, after = settle(3000, Evidence(syllables=MANY))
    assert verdict == "interruption"
    assert after <= EARLIEST_MS + FRAME_MS
    assert settle(300, Evidence(syllables=MANY))[0] == "interruption"
    assert settle(560, Evidence(syllables=MANY - 1))[0] == "backchannel"


def test_a_head_that_knows_better_is_believed_before_syllables_are_counted() -> None:
    assert settle(400, Evidence(ASSENT, syllables=MANY))[0] == "backchannel"


def test_a_short_word_is_assent_and_is_known_once_it_is_over() -> None:
    verdict, after = settle(voiced_ms=350)
    assert verdict == "backchannel"
    assert after < 350 + OVER_MS + 2 * FRAME_MS


def test_what_is_shorter_than_any_word_is_a_noise() -> None:
    assert settle(voiced_ms=120)[0] == "noise"


def test_what_comes_and_goes_is_a_noise_in_the_end() -> None:
    verdict, after = settle(0, pattern="x...")
    assert verdict == "noise"
    assert after <= LAST_MS + FRAME_MS


def test_a_short_word_that_the_head_takes_for_speech_interrupts() -> None:
    assert settle(300, Evidence(SPEECH))[0] == "interruption"


def test_the_head_is_believed_sooner_the_surer_it_is() -> None:
    _, sure = settle(3000, Evidence(SURELY_SPEECH))
    _, less = settle(3000, Evidence(SPEECH))
    assert sure < 360 < less


def test_assent_may_last_longer_where_the_head_knows_it() -> None:
    assert settle(560, Evidence(SPEECH))[0] == "interruption"
    assert settle(560, Evidence(ASSENT))[0] == "backchannel"
    assert settle(900, Evidence(ASSENT))[0] == "interruption"


def test_a_noise_that_the_head_knows_is_none_of_the_users() -> None:
    assert settle(350, Evidence(COUGH))[0] == "noise"


@pytest.mark.parametrize("voiced_ms", [250, 3000])
def test_the_answers_own_sound_is_an_echo_however_long(voiced_ms: float) -> None:
    known = Evidence(SURELY_SPEECH, echo=ECHO)
    verdict, after = settle(voiced_ms, known)
    assert verdict == "echo"
    assert after <= EARLIEST_MS + FRAME_MS


def test_the_end_of_the_turn_settles_it() -> None:
    doubt = Doubt(onset_frames=2)
    for _ in range(8):
        doubt.frame(voiced=True)
    doubt.frame(voiced=False)
    assert doubt.verdict(Evidence()) is None
    assert doubt.verdict(Evidence(ended=True)) == "backchannel"
