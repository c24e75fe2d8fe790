"""How long one answer may be silent before its connection, and then its server, is given up.

A server shows life by ids, by the head of a response, and by its health route. A decoder can hang
behind a server that is alive, so the stream of ids has bounds of its own. The listener does not
notice silence while sound is unplayed, so a server is given up only after that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from aqaa.models.groups import AUDIO_CODES, GROUP_SECONDS, GROUP_TOKENS
from aqaa.server.engine.settings import AnswerBounds, VllmHttpSettings

PREFILL_IDS_PER_SECOND = 2000  # 130 B on 8 GPUs computes several thousand prompt ids a second
MIN_ATTEMPTS = 2  # connections, the last that brought an id included: one is always tried anew


class SoundInHand:
    """The sound of one answer's ids, over all the requests that it takes.

    Attributes:
        ends: when all of it is played, at the earliest; in seconds of `clock`.
    """

    def __init__(self, audio_offset: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`audio_offset`: the first of the decoder's audio ids."""
        self._audio = range(audio_offset, audio_offset + AUDIO_CODES)
        self._now = clock
        self.ends = clock()

    def add(self, tokens: Sequence[int]) -> None:
        """`tokens` came."""
        audio = sum(token in self._audio for token in tokens)
        self.ends = max(self.ends, self._now()) + audio * GROUP_SECONDS / GROUP_TOKENS


class Patience:
    """What one answer's listener bears, by what came so far. Times are in seconds.

    Attributes:
        silence: how long no id may come now.
    """

    def __init__(self, bounds: AnswerBounds, sound: SoundInHand) -> None:
        """`sound`: of all its ids, which somebody else adds."""
        self._bounds = bounds
        self._sound = sound
        self.silence = bounds.first_id_within

    def asked(self, prompt_ids: int) -> None:
        """The answer to a prompt of so many ids is asked for."""
        self.silence = self._bounds.first_id_within + prompt_ids / PREFILL_IDS_PER_SECOND

    def ids(self) -> None:
        """Ids came."""
        self.silence = self._bounds.give_up_after

    def ends(self, last_life: float) -> float:
        """When a decoder is given up whose last sign of life was then."""
        return max(last_life, self._sound.ends) + self._bounds.give_up_after


class AnswerClock(Patience):
    """The clock of one request, over all the connections that it takes. Times are in seconds."""

    def __init__(
        self,
        settings: VllmHttpSettings,
        sound: SoundInHand,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(settings, sound)
        self._settings = settings
        self._now = clock
        now = clock()
        self._last_life = now
        self._last_id = now
        self._stream_deadline = now
        self._attempts = 0
        self._fruitless = 0  # of them, those that stood and brought no id, or fell silent
        self._waits = False  # a response has begun and has brought no id yet

    def connect(self, prompt_ids: int) -> None:
        """A connection is about to be opened, for a prompt of so many ids."""
        self.asked(prompt_ids)
        self._attempts += 1
        self._waits = False
        self._stream_deadline = self._now() + self.silence

    def life(self) -> None:
        """The server showed life."""
        self._last_life = self._now()

    def responded(self) -> None:
        """The head of a response came."""
        self.life()
        self._waits = True

    def ids(self) -> None:
        """Ids came."""
        super().ids()
        now = self._last_life = self._last_id = self._now()
        self._stream_deadline = now + self._settings.next_id_within
        self._attempts, self._fruitless = 1, 0  # counted from the connection that brought them
        self._waits = False

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
    def unheard(self) -> float:
        """Seconds in which nothing came, and no sound was left to be played."""
        return max(0.0, self._now() - max(self._last_id, self._sound.ends))

    @property
    def next_check(self) -> float:
        """Seconds until one of the two may become true."""
        probe = self._last_life + self._settings.probe_after
        return max(0.0, min(self._stream_deadline, probe) - self._now())

    def is_hopeless(self, pause: float) -> bool:
        """Whether to give the server up rather than try again after `pause` seconds."""
        then = self._now() + pause
        gone = self._attempts >= MIN_ATTEMPTS and then > self.ends(self._last_life)
        hung = self._fruitless >= MIN_ATTEMPTS and then > self.ends(self._last_id)
        return gone or hung
