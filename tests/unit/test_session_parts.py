"""The small parts of a session: playback clock, latency account, outbox, keys."""

from __future__ import annotations

import asyncio

import pytest

from aqaa.models.errors import CapacityError, UnauthorizedError
from aqaa.server.answering.playback import Playback
from aqaa.server.gateway.admission import Gate, Keys, offered
from aqaa.server.gateway.outbox import Outbox, Outgoing
from aqaa.server.observe.latency import STAGES, Timeline


def test_what_was_sent_is_heard_at_the_pace_of_sound() -> None:
    playback = Playback()
    playback.send(2.0, now=10.0)
    assert playback.heard(10.5) == pytest.approx(0.5)
    assert playback.heard(13.0) == pytest.approx(2.0)


def test_sound_that_comes_late_is_a_gap_and_is_heard_later() -> None:
    playback = Playback()
    playback.send(1.0, now=10.0)
    assert playback.send(1.0, now=11.5) == pytest.approx(0.5)
    assert playback.gaps == 1
    assert playback.heard(12.0) == pytest.approx(1.5)


def test_sound_that_was_played_before_anybody_could_listen_has_no_gap_behind_it() -> None:
    played, hardly, playing = Playback(), Playback(), Playback()
    for playback in (played, hardly, playing):
        playback.send(1.0, now=10.0)
    played.be_heard(11.5, until_more=0.0)
    hardly.be_heard(10.9, until_more=0.2)
    playing.be_heard(10.5, until_more=0.2)
    assert played.send(1.0, now=11.7) == 0
    assert hardly.send(1.0, now=11.1) == 0
    assert played.heard(12.0) == pytest.approx(1.3)
    assert playing.send(1.0, now=11.7) == pytest.approx(0.7)


def test_the_stages_of_a_turn_add_up_to_its_heard_latency() -> None:
    timeline = Timeline(
        speech_end=10.0,
        turn_end=10.5,
        tokenise=10.51,
        first_token=10.2,  # on speculation: before the turn was over
        first_group=10.3,
        first_sound=10.53,
        send=10.54,
    )
    stages = timeline.stages()
    assert stages["total"] == pytest.approx(540)
    assert sum(stages[name] for name in STAGES) == pytest.approx(stages["total"])
    assert stages["first_token"] == 0
    assert stages["first_sound"] == pytest.approx(20)


def test_a_turn_that_was_not_spoken_has_no_stages() -> None:
    assert Timeline(send=1.0).stages() == {}


async def test_an_outbox_that_is_not_read_overflows_and_forgets() -> None:
    outbox = Outbox(100)
    for _ in range(3):
        outbox.put(Outgoing("x" * 40))
    assert outbox.overflowed.is_set()
    outbox.put(Outgoing("y"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await outbox.get()


async def test_what_has_been_sent_makes_room() -> None:
    outbox = Outbox(100)
    for _ in range(10):
        outbox.put(Outgoing("x" * 90))
        outbox.sent(await outbox.get())
    await outbox.drained()
    assert not outbox.overflowed.is_set()


def test_without_configured_keys_anybody_may_come() -> None:
    assert Keys([]).check_key(None).name == Keys([]).check_key("whatever").name


def test_with_configured_keys_only_their_holders_may_come() -> None:
    keys = Keys(["one", "two"])
    assert keys.check_key("one").name != keys.check_key("two").name
    other_order = Keys(["two", "one"])  # another gateway counts the same caller
    assert other_order.check_key("one").name == keys.check_key("one").name
    for wrong in (None, "", "three", "ek_forged"):
        with pytest.raises(UnauthorizedError):
            keys.check_key(wrong)
        with pytest.raises(UnauthorizedError):
            keys.check_session_key(wrong)


def test_an_ephemeral_secret_works_until_it_expires_for_its_owner() -> None:
    now = 1000.0
    keys = Keys(["one"], now=lambda: now)
    owner = keys.check_key("one").name
    value, expires = keys.make_secret(owner, 60, {"instructions": "x"})
    assert expires == 1060
    assert keys.check_session_key(value).name == owner
    assert keys.check_session_key(value).session == {"instructions": "x"}
    now = 1061.0
    with pytest.raises(UnauthorizedError, match="expired"):
        keys.check_session_key(value)


def test_a_place_is_free_again_when_its_holder_leaves() -> None:
    gate = Gate(1)
    for _ in range(3):
        with gate.enter(), pytest.raises(CapacityError), gate.enter():
            pass
    assert gate.inside() == 0


@pytest.mark.parametrize(
    ("protocols", "found"),
    [
        ([], (None, None)),
        (["realtime"], (None, "realtime")),
        (["realtime", "openai-insecure-api-key.k", "openai-beta.realtime-v1"], ("k", "realtime")),
    ],
)
def test_a_browsers_key_is_found_among_its_subprotocols(
    protocols: list[str], found: tuple[str | None, str | None]
) -> None:
    assert offered(protocols) == found
