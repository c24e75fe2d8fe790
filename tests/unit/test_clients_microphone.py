"""`aqaa talk` on sound cards that have a rate of their own."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from aqaa.clients.client import WIRE_RATE
from aqaa.clients.microphone import DeviceRate, Player, open_devices
from aqaa.models.errors import AudioError


class PortAudioError(Exception):
    pass


class Card(SimpleNamespace):
    """A sound card behind sounddevice's names, which takes these rates only."""

    def __init__(self, *rates: int) -> None:
        super().__init__(PortAudioError=PortAudioError, opened=[])
        self.rates = rates

    def query_devices(self, kind: str) -> dict[str, float]:
        if not self.rates:
            raise PortAudioError("no device")
        return {"default_samplerate": float(self.rates[0])}

    def Stream(self, rate: int, block: int, *, callback: Any, **_: object) -> SimpleNamespace:
        if rate not in self.rates:
            raise PortAudioError("Invalid sample rate [PaErrorCode -9997]")
        self.opened.append((rate, block, callback))
        return SimpleNamespace(start=lambda: None)


def tone(rate: int, seconds: float) -> NDArray[np.float32]:
    return np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate).astype(np.float32)


def pitch(samples: NDArray[np.float32], rate: int) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() * rate / samples.size)


@pytest.mark.parametrize("rates", [(WIRE_RATE,), (48_000,), (44_100,), (16_000, 44_100)])
def test_the_card_is_opened_at_a_rate_that_it_takes(
    monkeypatch: pytest.MonkeyPatch, rates: tuple[int, ...]
) -> None:
    card = Card(*rates)
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    heard: list[NDArray[np.float32]] = []
    player = Player()
    player.put("item", tone(WIRE_RATE, 1.0))
    open_devices(player, heard.append)
    ((rate, block, callback),) = card.opened
    assert rate == rates[0]
    sound = tone(rate, 1.0)
    played = []
    for begin in range(0, sound.size - block + 1, block):
        out = np.zeros((block, 1), np.float32)
        callback(sound[begin : begin + block, None], out, block)
        played.append(out[:, 0])
    sent, out = np.concatenate(heard), np.concatenate(played)
    assert sent.size == pytest.approx(WIRE_RATE, rel=0.05)
    assert pitch(sent, WIRE_RATE) == pytest.approx(440, abs=3)
    assert pitch(out, rate) == pytest.approx(440, abs=3)


def test_without_any_card_the_reasons_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", Card())
    with pytest.raises(AudioError, match=r"24000 Hz.*48000 Hz.*try the page"):
        open_devices(Player(), lambda _: None)


def test_what_waits_for_a_slower_card_is_played_in_order() -> None:
    player = Player()
    player.put("item", tone(WIRE_RATE, 0.5))
    converter = DeviceRate(16_000, player)
    out = np.concatenate([converter.take(100) for _ in range(80)])
    assert out.size == 8000
    assert pitch(out, 16_000) == pytest.approx(440, abs=3)
