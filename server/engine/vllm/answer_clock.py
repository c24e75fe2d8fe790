"""How long one answer may be silent before its connection, and then its server, is given up.

A server shows life by ids, by the head of a response, and by its health route. A decoder can hang
behind a server that is alive, so the stream of ids has bounds of its own. The listener does not
notice silence while sound is unplayed, so a server is given up only after that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from aqaa.models.groups import AUDIO_CODES, GROUP_SECONDS, GROUP_TOKENS
from aqaa.server.engine.settings import VllmHttpSettings

PREFILL_IDS_PER_SECOND = 2000  # 130 B on 8 GPUs computes several thousand prompt ids a second
MIN_ATTEMPTS = 2  # connections, the last that brought an id included: one is always tried anew


class AnswerClock:
    """The clock of one answer, over all the connections that it takes. Times are in seconds."""

    def __init__(
        self,
        settings: VllmHttpSettings,
        audio_offset: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`audio_offset`: the first of the decoder's audio ids."""
        self._settings = settings
        self._audio = range(audio_offset, audio_offset + AUDIO_CODES)
        self._now = clock
        now = clock()
        self._last_life = now
        self._last_id = now
        self._stream_deadline = now
        self._sound_ends = now  # when the sound of all ids so far is played, at the earliest
        self._attempts = 0
        self._fruitless = 0  # of them, those that stood and brought no id, or fell silent
        self._waits = False  # a response has begun and has brought no id yet

    def connect(self, prompt_ids: int) -> None:
        """A connection is about to be opened, for a prompt of so many ids."""
        self._attempts += 1
        self._waits = False
        allowed = self._settings.first_id_within + prompt_ids / PREFILL_IDS_PER_SECOND
        self._stream_deadline = self._now() + allowed

    def life(self) -> None:
        """The server showed life."""
        self._last_life = self._now()

    def responded(self) -> None:
        """The head of a response came."""
        self.life()
        self._waits = True

    def ids(self, tokens: Sequence[int]) -> None:
        """`tokens` came."""
        now = self._last_life = self._last_id = self._now()
        self._stream_deadline = now + self._settings.next_id_within
        self._attempts, self._fruitless = 1, 0  # counted from the connection that brought them
        self._waits = False
        audio = sum(token in self._audio for token in tokens)
        self._sound_ends = max(self._sound_ends, now) + audio * GROUP_SECONDS / GROUP_TOKENS

    def lost(self, *, silent: bool) -> None:
        """The connection is lost; `silent`: it stands, but no id came in time."""
        self._fruitless += self._waits or silent

    @property
    def stream_is_silent(self) -> bool:
        """Whether the connection's next id is overdue."""
        return self._now() >= self._stream_deadline

    @property
    def server_is_silent(self) -> bool:
        """Whether the server has shown no life for so long that its health should be asked."""
        return self._now() >= self._last_life + self._settings.probe_after

    @property
    def next_check(self) -> float:
        """Seconds until one of the two may become true."""
        probe = self._last_life + self._settings.probe_after
        return max(0.0, min(self._stream_deadline, probe) - self._now())

    def is_hopeless(self, pause: float) -> bool:
        """Whether to give the server up rather than try again after `pause` seconds."""
        then = self._now() + pause
        gone = self._attempts >= MIN_ATTEMPTS and then > self._limit(self._last_life)
        hung = self._fruitless >= MIN_ATTEMPTS and then > self._limit(self._last_id)
        return gone or hung

    def _limit(self, since: float) -> float:
        return max(since, self._sound_ends) + self._settings.give_up_after
