"""What hearing and speaking take of a machine: from measured costs, for `aqaa plan`.

Where a device was not measured nothing is said: `tests/gpu/gpu_check.py` measures one in minutes,
and its file is read here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from aqaa.models.errors import ConfigError
from aqaa.server.compute.devices import MIN_FREE_BYTES
from aqaa.server.compute.waiting import Share, conversations_served

MIB = 2**20
LIKE = 2.0  # networks whose weights differ by less than this factor cost about the same
PUSH_SECONDS = 0.24  # of speech that the tokenizers take at a time: a linguistic chunk


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What one session costs on a device, in seconds of it for each second of sound.

    Attributes:
        device: its name.
        date: of the measurement.
        flow_mib: size of the vocoder's `flow.pt`, which tells nano from the published models.
        hearing: of both tokenizers, while somebody speaks.
        speaking: of the vocoder, while an answer is made, in the best batch.
        first_chunk: seconds of an answer's first vocoder call.
        embedded_ids: ids a second of the embedded engine, for one conversation on a CPU.
    """

    device: str
    date: str
    flow_mib: float
    hearing: float
    speaking: float
    first_chunk: float
    embedded_ids: float | None = None

    @classmethod
    def of_check(cls, file: Path) -> Self:
        """Read what `tests/gpu/gpu_check.py` saved.

        Raises:
            ConfigError: the file is missing or not of that check.
        """
        try:
            found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            machine, times = found["machine"], found["hearing_times"] | found["speaking_times"]
            return cls(
                device=machine["card"],
                date=machine["date"],
                flow_mib=PUBLISHED_FLOW_MIB,
                hearing=_best(times, "linguistic, ") + _best(times, "semantic, "),
                speaking=_best(times, "vocoder graphed, "),
                first_chunk=times["vocoder graphed, 1"]["ms"] / 1000,
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{file} is not what tests/gpu/gpu_check.py saves ({error!r}): run it with --out"
            ) from error


def _best(times: dict[str, Any], model: str) -> float:
    return min(float(row["rtf"]) for name, row in times.items() if name.startswith(model))


PUBLISHED_FLOW_MIB = 402.0  # flow.pt of CosyVoice-300M-25Hz (SPEC 7)
# From docs/performance.md: one core each, so `speaking` and `hearing` add up over cores.
MEASURED = (
    Costs(
        device="cpu",
        date="2026-11-25",
        flow_mib=12.0,
        hearing=0.042 + 0.031,
        speaking=0.11,
        first_chunk=0.041,
        embedded_ids=610.0,
    ),
    Costs(
        device="cpu",
        date="2026-11-25",
        flow_mib=PUBLISHED_FLOW_MIB,
        hearing=0.881 + 1.337,
        speaking=8.74,
        first_chunk=1.83,
    ),
)


@dataclass(frozen=True, kw_only=True)
class AudioPlan:
    """Hearing and speaking on one device.

    Attributes:
        costs: what was measured.
        sessions: that hear and speak at once and are served well, as `server/compute/waiting.py`
            has it.
        first_sound: seconds from the pause to the first sound, beside the wait for the end of
            turn: the last piece of speech, the ids of the first chunk, the first vocoder call.
    """

    costs: Costs
    sessions: int
    first_sound: float


def find_costs(device: str, flow_bytes: int, measured: Sequence[Costs] = MEASURED) -> Costs | None:
    """The costs on a device whose name holds `device`, of networks of about this size."""
    for costs in measured:
        size = flow_bytes / (costs.flow_mib * MIB)
        if device.lower() in costs.device.lower() and 1 / LIKE < size < LIKE:
            return costs
    return None


def plan_audio(
    costs: Costs, cores: int, first_ids: int, ids_per_second: float, spoken_ids: float = 0.0
) -> AudioPlan:
    """What `costs` mean.

    Args:
        costs: of the device.
        cores: of a CPU; 1 for a GPU.
        first_ids: that the decoder must say before the first chunk can be spoken.
        ids_per_second: at which it does.
        spoken_ids: that a second of an answer is made of, if the decoder is on the same cores.
    """
    audio = PUSH_SECONDS * costs.hearing + costs.first_chunk
    decoding = first_ids / ids_per_second
    load = costs.hearing + costs.speaking + spoken_ids / ids_per_second
    share = Share(load, audio + decoding if spoken_ids else audio, cores)
    return AudioPlan(
        costs=costs,
        sessions=conversations_served([share], math.floor(share.fits())),
        first_sound=audio + decoding,
    )


def decoder_share(gpu_bytes: float, default: float) -> float:
    """Of a GPU's memory that vLLM may take, so that hearing and speaking have theirs beside it."""
    return min(default, math.floor(100 * (1 - MIN_FREE_BYTES / gpu_bytes)) / 100)
