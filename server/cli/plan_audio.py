"""The rows of `aqaa plan` about hearing and speaking."""

from __future__ import annotations

from pathlib import Path

from aqaa.models.bundle import VOCODER_RATE, Bundle
from aqaa.models.weights import require_file
from aqaa.server.compute.cores import available_cores
from aqaa.server.compute.devices import MIN_FREE_BYTES
from aqaa.server.compute.plan import (
    MEASURED,
    AudioPlan,
    Costs,
    decoder_share,
    find_costs,
    plan_audio,
)
from aqaa.server.dialogue.answer_ids import ids_before_groups, spoken_ids
from aqaa.vocoder.config import load_config
from aqaa.vocoder.state import Grid, next_end

__all__ = ["beside_vllm", "decoder_share", "on_cpu"]


def on_cpu(bundle: Bundle) -> dict[str, str]:
    """Everything on this machine's cores."""
    costs = find_costs("cpu", _flow_bytes(bundle))
    if costs is None or costs.embedded_ids is None:
        return {"decoder": "not measured on a CPU at this size: give --gpus"}
    made = plan_audio(
        costs,
        available_cores(),
        _first_ids(bundle),
        costs.embedded_ids,
        spoken_ids(bundle.tokens),
    )
    return {
        "decoder": f"engine embedded: {costs.embedded_ids:,.0f} tokens/s",
        **_rows("cpu", made),
    }


def beside_vllm(
    bundle: Bundle, gpu: str, ids_per_second: float, measured: Path | None
) -> dict[str, str]:
    """On the GPU with the most free memory, beside vLLM, and on this machine's cores.

    Args:
        bundle: what is planned.
        gpu: its name.
        ids_per_second: of the decoder, for one conversation.
        measured: what `tests/gpu/gpu_check.py` saved on such a GPU.

    Raises:
        ConfigError: `measured` is no such file.
        BundleError: the vocoder's files are missing or damaged.
    """
    table = (Costs.of_check(measured), *MEASURED) if measured else MEASURED
    rows = {
        "memory": f"{MIN_FREE_BYTES / 2**30:.0f} GiB of the GPU with the most free; vLLM leaves it",
        "before the first sound": f"{_first_ids(bundle)} ids of the decoder",
    }
    for device, cores in ((gpu, 1), ("cpu", available_cores())):
        costs = find_costs(device, _flow_bytes(bundle), table)
        if costs is None:
            rows[device] = "not measured: run tests/gpu/gpu_check.py there, then --measured FILE"
        else:
            found = plan_audio(costs, cores, _first_ids(bundle), ids_per_second)
            rows |= _rows(device, found)
    return rows


def _rows(device: str, plan: AudioPlan) -> dict[str, str]:
    costs = plan.costs
    return {
        f"{device} (measured {costs.date})": f"hearing {costs.hearing:.3g}, speaking "
        f"{costs.speaking:.3g} of real time a session; {plan.sessions} sessions are served well",
        f"first sound after the pause, {device}": f"{1000 * plan.first_sound:,.0f} ms, and the "
        "wait for the end of turn",
    }


def _first_ids(bundle: Bundle) -> int:
    """What the decoder says before the first chunk is whole: blocks of text come between."""
    hop = load_config(bundle.vocoder.path / "cosyvoice.yaml").feat_extractor.hop_size
    groups, _ = next_end(bundle.vocoder, Grid(VOCODER_RATE, hop, 1.0))
    return ids_before_groups(bundle.tokens, groups)


def _flow_bytes(bundle: Bundle) -> int:
    return require_file(bundle.vocoder.path / "flow.pt", "the vocoder's flow").stat().st_size
