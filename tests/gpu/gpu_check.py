"""What one GPU does for aqaa, in under five minutes: is it right, how fast, and for how many.

    python tests/gpu/gpu_check.py --out gpu.json
    python tests/gpu/gpu_check.py --device cpu --tiny --out dry.json     what CI runs

It needs PyTorch, this checkout and the wheels `NEEDS`; aqaa need not be installed. Models of the
published dimensions are made at random on the device: nothing is downloaded. It prints each part
as it is done and saves all of them, the failed ones too, so that a run that is cut off counts.

Parts: batches equal to each alone; nano on the device equal to nano on the CPU; what TF32 and half
precision change of nano and save of the published vocoder; time and real-time factor of each model
at 1, 8, 32 and 64 sessions; how many ears and voices one card sustains; one decoding step of an
eighth of the 130 B; and of each the peak memory.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import sys
import time
import traceback
import types
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NEEDS = "numpy onnx pyyaml pydantic safetensors soundfile soxr kaldi-native-fbank funasr torchaudio"
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tests" / "gpu")]
if importlib.util.find_spec("aqaa") is None:  # not installed: the checkout is the package
    package = types.ModuleType("aqaa")
    package.__path__ = [str(ROOT)]
    sys.modules["aqaa"] = package

import torch  # noqa: E402
from checked_models import (  # noqa: E402
    Dimensions,
    batched_is_alone,
    ears_sustained,
    hearing_times,
    nano_equals_cpu,
    precisions,
    speaking_times,
    voices_sustained,
)
from decoder_shard import DecoderShard  # noqa: E402

from aqaa.server.compute.devices import keep_float32  # noqa: E402
from aqaa.server.engine.plan import GPUS  # noqa: E402


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run all parts; what was found, as it is saved."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda:0", help="default: %(default)s")
    parser.add_argument("--tiny", action="store_true", help="small models and few sessions")
    parser.add_argument("--only", nargs="+", metavar="PART", help="of the parts, by their names")
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"))
    asked = parser.parse_args(arguments)
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device: --device cpu --tiny is a dry run of the same code")
    keep_float32()
    size = Dimensions.tiny() if asked.tiny else Dimensions.published()
    found: dict[str, Any] = {"machine": machine(asked.device)}
    parts: dict[str, Callable[[], Any]] = {
        "batched_is_alone": lambda: batched_is_alone(asked.device, size),
        "nano_equals_cpu": lambda: nano_equals_cpu(asked.device, size),
        "precisions": lambda: precisions(asked.device, size),
        "hearing_times": lambda: hearing_times(asked.device, size),
        "speaking_times": lambda: speaking_times(asked.device, size),
        "ears": lambda: ears_sustained(asked.device, size),
        "voices": lambda: voices_sustained(asked.device, size),
        "decoder_shard": lambda: decoder_steps(asked.device, size),
    }
    for name in asked.only or parts:
        part = parts[name]
        began = time.monotonic()
        try:
            found[name] = part()
        except Exception:  # the other parts are worth having
            found[name] = {"failed": traceback.format_exc(limit=8)}
        found[name]["took_seconds"] = round(time.monotonic() - began, 1)
        if asked.device.startswith("cuda"):
            found[name]["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.empty_cache()
        sys.stdout.write(f"{name} {json.dumps(found[name], indent=1)}\n")
        sys.stdout.flush()
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def machine(device: str) -> dict[str, str]:
    """What it ran on."""
    card = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor()
    return {
        "card": card or "CPU",
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }


def decoder_steps(device: str, size: Dimensions) -> dict[str, Any]:
    """Milliseconds of a step of the shard, and its share of the roofline that `aqaa plan` takes."""
    name = machine(device)["card"]
    gpu = next((GPUS[key] for key in sorted(GPUS, reverse=True) if key in name), None)
    found: dict[str, Any] = {"gpus": size.shards, "context": size.context}
    for precision in size.precisions:
        shard = DecoderShard(size.decoder, size.shards, precision, device)
        for conversations in size.conversations:
            step = shard.time_step(conversations, size.context)
            found[f"{precision}, {conversations}"] = {
                "ms": round(1e3 * step.seconds, 3),
                "read_gb": round(step.read_bytes / 1e9, 3),
                "tb_per_s": round(step.read_bytes / step.seconds / 1e12, 3),
                "roofline_share": gpu and round(step.share_of(gpu.bandwidth), 3),
            }
        del shard
    return found


def failures(found: dict[str, Any]) -> dict[str, str]:
    """The parts that raised or found a difference, and why."""
    broken = {name: part["failed"] for name, part in found.items() if "failed" in part}
    unequal = {n: "not equal" for n, part in found.items() if part.get("passed") is False}
    return broken | unequal


if __name__ == "__main__":
    failed = failures(main())
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)
