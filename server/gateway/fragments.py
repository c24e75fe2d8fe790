"""Long WebSocket frames, cut into fragments while they come.

What parses frames keeps one until it is whole, and then copies, unmasks and decodes it at once: for
16 MiB that is 64 MiB of fresh memory in one callback, some 30 ms of the event loop and more where
memory comes slowly. Most clients send a message as one frame, however long. So a long one is handed
on as the same message in fragments, each of which takes a fraction of a millisecond.
"""

from __future__ import annotations

import struct

LONGEST = 32 * 1024  # bytes of a fragment; a multiple of 4, so that the frame's mask fits each
# RFC 6455, 5.2
FIN, OPCODE, RESERVED = 0x80, 0x0F, 0x70
MASKED, LENGTH = 0x80, 0x7F
CONTINUATION, TEXT, BINARY = 0, 1, 2
MASK_BYTES = 4
LONGER_LENGTHS = {126: "!H", 127: "!Q"}


class Fragmenter:
    """The frames that one client sends."""

    def __init__(self, longest_frame: int) -> None:
        """Frames of more bytes are handed on as they are: their head gets them refused."""
        self._longest_frame = longest_frame
        self._head = bytearray()  # of the frame that comes, until it is whole
        self._frame_left = 0  # bytes of its payload that have not come
        self._fragment_left = 0
        self._fin = 0
        self._mask = b""

    def cut(self, data: bytes) -> bytes:
        """The next bytes of the stream, in which no message's frame is longer than `LONGEST`."""
        out = []
        at = 0
        while at < len(data):
            if not self._frame_left:
                wanted = _head_size(self._head) - len(self._head)
                self._head += data[at : at + wanted]
                at += wanted
                if len(self._head) == _head_size(self._head):
                    out.append(self._begin())
            else:
                if not self._fragment_left:
                    out.append(self._next_fragment(CONTINUATION))
                piece = data[at : at + self._fragment_left]
                out.append(piece)
                at += len(piece)
                self._frame_left -= len(piece)
                self._fragment_left -= len(piece)
        return b"".join(out)

    def _begin(self) -> bytes:
        """A frame's head is whole: the head that is handed on."""
        head, self._head = bytes(self._head), bytearray()
        kind, length = head[0], head[1] & LENGTH
        if length in LONGER_LENGTHS:
            (length,) = struct.unpack_from(LONGER_LENGTHS[length], head, 2)
        self._frame_left = self._fragment_left = length
        is_message = kind & OPCODE in (CONTINUATION, TEXT, BINARY) and not kind & RESERVED
        if not (is_message and head[1] & MASKED and LONGEST < length <= self._longest_frame):
            return head
        self._fin, self._mask = kind & FIN, head[-MASK_BYTES:]
        return self._next_fragment(kind & OPCODE)

    def _next_fragment(self, opcode: int) -> bytes:
        self._fragment_left = min(LONGEST, self._frame_left)
        fin = self._fin if self._fragment_left == self._frame_left else 0
        # The length in two bytes, even where one would do: only our own parser reads it.
        return struct.pack("!BBH", fin | opcode, MASKED | 126, self._fragment_left) + self._mask


def _head_size(head: bytearray) -> int:
    """Bytes of the head that begins so, as far as can be told."""
    if len(head) < 2:
        return 2
    longer = LONGER_LENGTHS.get(head[1] & LENGTH)
    size = 2 + (struct.calcsize(longer) if longer else 0)
    return size + MASK_BYTES if head[1] & MASKED else size
