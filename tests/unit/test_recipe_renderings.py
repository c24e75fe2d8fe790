"""How the teacher's renderings of what nano says are chosen: by what is heard of them."""

from pathlib import Path

import pytest

from aqaa.recipe.decoder.renderings import choose, clearest, renderings
from aqaa.recipe.speech.cache import Utterance
from aqaa.recipe.speech.voices import TEACHER


@pytest.mark.whisper
def test_a_sentence_that_is_heard_right_is_said_as_it_stands() -> None:
    assert clearest("Ice is cold.", hear=lambda said: "ice is cold") == Utterance(
        "Ice is cold.", TEACHER
    )


@pytest.mark.whisper
def test_a_misheard_sentence_is_said_as_fast_as_it_is_heard_right() -> None:
    def hear(said: Utterance) -> str:
        return "ice is cold" if said.rate <= 0.9 else "ISIS cold"

    assert clearest("Ice is cold.", hear) == Utterance("Ice is cold.", TEACHER, 0.9)


@pytest.mark.whisper
def test_a_sentence_misheard_at_every_speed_gets_a_breath_where_it_helps() -> None:
    def hear(said: Utterance) -> str:
        return "ice is cold" if said.text.startswith("Ice, ") else "ISIS cold"

    assert clearest("Ice is cold.", hear) == Utterance("Ice, is cold.", TEACHER)


@pytest.mark.whisper
def test_of_renderings_that_are_all_misheard_the_least_wrong_is_taken() -> None:
    def hear(said: Utterance) -> str:
        return "ice was cold" if said.rate == 1.1 else "ISIS cold"

    assert clearest("Ice is cold.", hear) == Utterance("Ice is cold.", TEACHER, 1.1)


def test_a_breath_is_never_taken_where_there_is_one_already() -> None:
    texts = [said.text for said in renderings("Yes, it is.")]

    assert not any(",," in text for text in texts)
    assert "Yes, it, is." in texts


@pytest.mark.whisper
def test_a_chosen_rendering_is_kept_and_not_listened_to_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQAA_NANO_WORK", str(tmp_path))
    listened = []

    def hear(said: Utterance) -> str:
        listened.append(said.text)
        return said.text

    first = choose(["One.", "Two."], hear)
    again = choose(["Two.", "Three."], hear)

    assert listened == ["One.", "Two.", "Three."]
    assert again == {"Two.": first["Two."], "Three.": Utterance("Three.", TEACHER)}


@pytest.mark.whisper
def test_what_was_chosen_before_an_interruption_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQAA_NANO_WORK", str(tmp_path))
    listened = []

    def hear(said: Utterance) -> str:
        if said.text == "Two." and len(listened) == 1:
            raise KeyboardInterrupt
        listened.append(said.text)
        return said.text

    with pytest.raises(KeyboardInterrupt):
        choose(["One.", "Two."], hear)
    listened.append("(again)")
    choose(["One.", "Two."], hear)

    assert listened == ["One.", "(again)", "Two."]
