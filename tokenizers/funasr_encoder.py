"""FunASR's own streaming encoder (`SANMEncoderChunkOpt`), loaded and stepped chunk by chunk.

Two things about FunASR 1.4 are worked around here, and nothing of it is written anew:

* `import funasr` imports every one of its submodules (12 s, and all of its dependencies). The
  encoder's module needs only torch, so it is imported beneath a bare stand-in for the package.
* Its position encoder builds the table of all positions since the start on every call, which makes
  an hour's stream ever slower. A subclass asks the same formula for the new positions alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aqaa.models.errors import BundleError, MissingDependencyError

# Step-Audio's `chunk_size=[0, 4, 5]` and `encoder_chunk_look_back=4`: 4 new frames behind 5 old
# ones, and keys and values of 4 * 4 frames before those.
CHUNK_FRAMES = 4
WINDOW_BACK = 5
LOOK_BACK_CHUNKS = 4

_LONGEST_REASON = 400  # characters

_import_lock = threading.Lock()


@dataclass
class EncoderState:
    """What one stream carries from chunk to chunk; tensors are replaced, never written to."""

    cache: dict[str, Any]

    def copy(self) -> EncoderState:
        """An independent state; FunASR rebinds entries of the inner tables, so those are copied."""
        layers = self.cache["opt"]
        return EncoderState(
            {**self.cache, "opt": None if layers is None else [dict(layer) for layer in layers]}
        )


class ChunkEncoder:
    """The encoder with its weights; shared by all streams."""

    def __init__(self, network: Any, input_size: int, device: str) -> None:
        self._network = network
        self._input_size = input_size
        self._device = torch.device(device)
        self.output_size: int = network.output_size()

    @classmethod
    def load(
        cls,
        settings: Mapping[str, Any],
        input_size: int,
        state: Mapping[str, Tensor],
        device: str = "cpu",
    ) -> ChunkEncoder:
        """Build from `encoder_conf` of a published config.yaml and the tensors of its model.pt.

        `state` may hold other parts of the recogniser too; only `encoder.*` is used.

        Raises:
            BundleError: settings that FunASR does not know, or tensors missing or of other shapes.
            MissingDependencyError: FunASR is not installed.
        """
        module = import_funasr("funasr.models.scama.encoder")
        settings = {**settings, "input_size": input_size}
        network = load_part(module.SANMEncoderChunkOpt, "encoder", settings, state)
        network.embed = _bounded_positions(module)
        return cls(network.to(device), input_size, device)

    def initial_state(self) -> EncoderState:
        """The state before the first frame: five zero frames that are attended to, unmasked."""
        window = torch.zeros(1, WINDOW_BACK, self._input_size, device=self._device)
        return EncoderState(
            {
                "start_idx": 0,
                "feats": window,
                "opt": None,
                "tail_chunk": False,
                "chunk_size": [0, CHUNK_FRAMES, WINDOW_BACK],
                "encoder_chunk_look_back": LOOK_BACK_CHUNKS,
            }
        )

    @torch.inference_mode()
    def window(self, frames: Tensor, state: EncoderState) -> Tensor:
        """Encode `frames` [t, input], 1 <= t <= 4, behind the 5 before them: [5 + t, output].

        Advances `state`. Step-Audio's tokenizer reads the newest `t`, which nothing follows;
        FunASR's recogniser reads the oldest, which have 5 frames of right context (SPEC 2).
        """
        batch = frames.to(self._device, copy=True)[None]  # FunASR scales its input in place
        length = torch.tensor([batch.shape[1]])
        encoded: Tensor = self._network.forward_chunk(batch, length, cache=state.cache)[0]
        return encoded[0]

    @torch.inference_mode()
    def tail(self, state: EncoderState) -> Tensor:
        """The 5 frames behind the newest window once more, with nothing after them: [5, output].

        This is how FunASR's recogniser ends audio that ends between two windows. Leaves `state`.
        """
        cache = {**state.copy().cache, "tail_chunk": True}
        frames = cache["feats"].clone()  # only its shape matters: FunASR takes the cached ones
        encoded: Tensor = self._network.forward_chunk(
            frames, torch.tensor([WINDOW_BACK]), cache=cache
        )[0]
        return encoded[0]

    def parameters(self) -> int:
        """How many weights the encoder has."""
        return sum(p.numel() for p in self._network.parameters())


def load_part(
    network: Any, name: str, settings: Mapping[str, Any], state: Mapping[str, Tensor]
) -> Any:
    """FunASR's class `network` with the tensors `name.*` of `state`, in float32, for inference.

    Raises:
        BundleError: settings that FunASR does not know, or tensors missing or of other shapes.
    """
    try:
        part = network(**settings)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise BundleError(f"{name}_conf does not fit FunASR's {name}: {error}") from error
    prefix = f"{name}."
    weights = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    try:
        part.load_state_dict(weights, assign=True)
    except RuntimeError as error:  # lists every tensor, of which there are hundreds
        raise BundleError(
            f"{name} tensors do not fit {name}_conf: {str(error)[:_LONGEST_REASON]}"
        ) from error
    return part.float().eval()


def import_funasr(name: str) -> Any:
    """The module `funasr.*`, without running `funasr/__init__.py` if nobody else has.

    Raises:
        MissingDependencyError: FunASR is not installed.
    """
    with _import_lock:
        if name in sys.modules or "funasr" in sys.modules:
            return importlib.import_module(name)
        spec = importlib.util.find_spec("funasr")
        if spec is None or spec.submodule_search_locations is None:
            raise MissingDependencyError(
                "the linguistic tokenizer needs FunASR's encoder: pip install 'funasr>=1.4,<2'"
            )
        stand_in = types.ModuleType("funasr")
        stand_in.__path__ = list(spec.submodule_search_locations)
        sys.modules["funasr"] = stand_in
        try:
            return importlib.import_module(name)
        finally:
            # Whoever imports funasr later gets the real package.
            del sys.modules["funasr"]


def _bounded_positions(module: Any) -> torch.nn.Module:
    """FunASR's position encoder, computed for the new frames only: cost does not grow with time."""

    class BoundedPositions(module.StreamSinusoidalPositionEncoder):  # type: ignore[misc]
        def forward(self, x: Tensor, cache: dict[str, Any]) -> Tensor:
            start, count = cache["start_idx"], x.shape[1]
            cache["start_idx"] = start + count
            positions = torch.arange(start + 1, start + count + 1)[None]  # the first frame is 1
            encoding: Tensor = self.encode(positions, x.shape[2], x.dtype)
            return x + encoding.to(x.device)

    return BoundedPositions()
