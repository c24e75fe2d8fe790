"""A client's long frames are read as fragments of the same messages, wherever the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol, State

from aqaa.server.gateway.fragments import LONGEST, Fragmenter

LONGEST_FRAME = 5 * LONGEST
SIZES = st.sampled_from(
    [
        0,
        1,
        125,
        126,
        65_535,
        65_536,
        LONGEST - 1,
        LONGEST,
        LONGEST + 1,
        2 * LONGEST,
        2 * LONGEST + 3,
    ]
)
KINDS = st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.PING])


def sent(kind: Opcode, size: int, *, fin: bool = True, mask: bool = True) -> bytes:
    """A frame as it is on the wire."""
    payload = bytes(97 + at % 23 for at in range(min(size, 125) if kind is Opcode.PING else size))
    return Frame(kind, payload, fin).serialize(mask=mask)


def parser() -> ServerProtocol:
    return ServerProtocol(state=State.OPEN, max_size=LONGEST_FRAME)


def parsed(stream: list[bytes]) -> list[Frame]:
    """The frames that the library reads from these bytes."""
    protocol = parser()
    for data in stream:
        protocol.receive_data(data)
    assert protocol.parser_exc is None
    return [frame for frame in protocol.events_received() if isinstance(frame, Frame)]


def messages(frames: list[Frame]) -> list[tuple[Opcode, bytes]]:
    """What frames say: a message of several is one."""
    said: list[tuple[Opcode, bytes]] = []
    kind, pieces = Opcode.CONT, []
    for frame in frames:
        if frame.opcode is Opcode.PING:
            said.append((frame.opcode, bytes(frame.data)))
            continue
        kind = kind if frame.opcode is Opcode.CONT else frame.opcode
        pieces.append(bytes(frame.data))
        if frame.fin:
            said.append((kind, b"".join(pieces)))
            pieces = []
    return said


@given(frames=st.lists(st.tuples(KINDS, SIZES), max_size=5), data=st.data())
def test_any_frames_cut_anywhere_say_the_same_in_fragments_that_are_short(
    frames: list[tuple[Opcode, int]], data: st.DataObject
) -> None:
    stream = b"".join(sent(*frame) for frame in frames)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    fragmenter = Fragmenter(LONGEST_FRAME)
    read = parsed([fragmenter.cut(piece) for piece in pieces])
    assert messages(read) == messages(parsed([stream]))
    assert all(len(frame.data) <= LONGEST for frame in read)


def test_a_message_that_the_client_sends_in_long_fragments_stays_one() -> None:
    stream = sent(Opcode.TEXT, 2 * LONGEST, fin=False) + sent(Opcode.CONT, LONGEST + 5)
    [(kind, text)] = messages(parsed([Fragmenter(LONGEST_FRAME).cut(stream)]))
    assert (kind, len(text)) == (Opcode.TEXT, 3 * LONGEST + 5)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (sent(Opcode.TEXT, LONGEST_FRAME + 1)[:14], PayloadTooBig),
        (sent(Opcode.TEXT, 2 * LONGEST, mask=False)[:10], ProtocolError),
        (
            bytes([sent(Opcode.TEXT, 0)[0] | 0x40]) + sent(Opcode.TEXT, 2 * LONGEST)[1:],
            ProtocolError,
        ),
    ],
    ids=["too long", "no mask", "a reserved bit"],
)
def test_a_frame_that_may_not_be_sent_is_refused_as_without_it(
    head: bytes, reason: type[Exception]
) -> None:
    protocol = parser()
    protocol.receive_data(Fragmenter(LONGEST_FRAME).cut(head))
    assert isinstance(protocol.parser_exc, reason)
