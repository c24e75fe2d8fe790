"""A bundle's own judge of turns: a GRU over the groups of audio ids that the ears make anyway.

    5 audio tokens -> their embeddings side by side -> GRU -> one end, and three kinds

`end` is the logit that what was said so far is all; `kinds` are the logits of what the speaker
makes: speech that is meant for the assistant, a backchannel ("mhm", "right"), or none of both (a
cough, dishes, the assistant's own voice). A group is 120 ms; the state goes on from group to group.
The recipe's stage `turn` trains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from aqaa.models.bundle import TurnConfig, TurnThresholds
from aqaa.models.errors import BundleError
from aqaa.models.groups import AUDIO_CODES, GROUP_TOKENS
from aqaa.server.compute.model import Model, Work
from aqaa.server.hearing.end_of_turn import Eagerness, Samples
from aqaa.server.hearing.interruption import Kinds

WEIGHTS = "turn_head.safetensors"  # in the bundle's folder `turn`
WIDTH, STATE = 40, 96
KINDS = ("speech", "backchannel", "noise")
ASK_AFTER_MS = 64  # two of the VAD's frames: a stop consonant is rarely silent for so long
MAX_BATCH = 16  # sessions in one call; a group takes 0.02 ms


class TurnHead(nn.Module):
    """0.3 M parameters; the tensors' names are those of the bundle's file."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.embed = nn.Embedding(AUDIO_CODES, WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(GROUP_TOKENS * WIDTH, STATE, batch_first=True)
        self.end = nn.Linear(STATE, 1)
        self.kind = nn.Linear(STATE, len(KINDS))

    def forward(self, groups: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Logits after every group, and the state to go on from.

        Args:
            groups: audio tokens in [0, 5120), int64 [B, G, 5].
            state: [1, B, 96] of what came before; None at the beginning.

        Returns:
            end [B, G], kinds [B, G, 3], state [1, B, 96].
        """
        heard, after = self.gru(self.dropout(self.embed(groups)).flatten(2), state)
        return self.end(heard)[..., 0], self.kind(heard), after

    @classmethod
    def load(cls, folder: Path) -> TurnHead:
        """The head in a bundle's folder, computed in float32.

        Raises:
            BundleError: the file is missing, damaged or not of this shape; the message names it.
        """
        file, head = folder / WEIGHTS, cls()
        try:
            head.load_state_dict({name: w.float() for name, w in load_file(file).items()})
        except (OSError, SafetensorError, RuntimeError) as error:
            raise BundleError(f"no turn head in {file}: {error}") from error
        return head.eval()


@dataclass(frozen=True, eq=False)
class _Heard:
    """Groups of one turn, int64 [G, 5], G > 0, and the state [1, 1, 96] before them."""

    groups: Tensor
    state: Tensor | None


@dataclass(frozen=True, eq=False)
class _Judged:
    """The probability of the end after the groups, the kinds', and the state [1, 1, 96] then."""

    chance: float
    kinds: Kinds
    state: Tensor


class HeadJudge:
    """Judges turns by a `TurnHead`."""

    name = "the bundle's turn head"
    ask_after_ms = ASK_AFTER_MS

    def __init__(self, head: TurnHead, config: TurnConfig, audio_offset: int) -> None:
        """`audio_offset`: the first of the decoder's audio ids."""
        self._head = head
        self._thresholds: dict[Eagerness, TurnThresholds] = {
            "low": config.low,
            "medium": config.medium,
            "auto": config.medium,
            "high": config.high,
        }
        self._offset = audio_offset
        self._tells_kinds = config.kinds
        self.model = Model[_Heard, _Judged]("turn_head", self._run, max_batch=MAX_BATCH)

    def thresholds(self, eagerness: Eagerness) -> TurnThresholds:
        """From which probability on it is believed."""
        return self._thresholds[eagerness]

    def listen(self) -> HeadListener:
        """A listener for one turn."""
        return HeadListener(self.model, self._offset, tells_kinds=self._tells_kinds)

    def _run(self, turns: Sequence[_Heard]) -> list[_Judged | Exception]:
        results: list[_Judged | Exception] = []
        with torch.inference_mode():
            for turn in turns:  # of different lengths: one after the other costs less than padding
                end, kinds, state = self._head(turn.groups[None], turn.state)
                made = Kinds(*kinds[0, -1].softmax(-1).tolist())
                results.append(_Judged(float(end[0, -1].sigmoid()), made, state))
        return results


class HeadListener:
    """One turn's state. Its groups are computed when the head is asked: until then they are few."""

    def __init__(
        self, model: Model[_Heard, _Judged], audio_offset: int, *, tells_kinds: bool
    ) -> None:
        self._model = model
        self._tells_kinds = tells_kinds
        self._offset = audio_offset
        self._new: list[int] = []
        self._heard: _Judged | None = None

    def hear(self, samples: Samples, ids: Sequence[int]) -> None:
        """The turn has grown by these decoder ids, whole groups."""
        self._new += ids

    def chance_of_end(self, rest: Sequence[int]) -> Work[float]:
        """The probability that the turn is over, if it ends in the decoder ids `rest`.

        0 for a turn of no group.
        """
        judged = yield from self._judged(rest)
        return 0.0 if judged is None else judged.chance

    def kinds(self, rest: Sequence[int]) -> Work[Kinds | None]:
        """What the speaker makes in the turn, if it ends in `rest`.

        None for a turn of no group, and where the head was not taught kinds.
        """
        if not self._tells_kinds:
            return None
        judged = yield from self._judged(rest)
        return None if judged is None else judged.kinds

    def _judged(self, rest: Sequence[int]) -> Work[_Judged | None]:
        if self._new:
            new, self._new = self._new, []
            self._heard = yield from self._model.ask(_Heard(self._groups(new), self._state()))
        if rest:
            return (yield from self._model.ask(_Heard(self._groups(rest), self._state())))
        return self._heard

    def _state(self) -> Tensor | None:
        return None if self._heard is None else self._heard.state

    def _groups(self, ids: Sequence[int]) -> Tensor:
        tokens = np.asarray(ids, np.int64) - self._offset
        return torch.from_numpy(tokens.reshape(-1, GROUP_TOKENS))
