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
        module = _import_encoder_module()
        try:
            network = module.SANMEncoderChunkOpt(input_size=input_size, **settings)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise BundleError(f"encoder_conf does not fit FunASR's encoder: {error}") from error
        network.embed = _bounded_positions(module)
        prefix = "encoder."
        weights = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
        try:
            network.load_state_dict(weights, assign=True)
        except RuntimeError as error:  # lists every tensor, of which there are hundreds
            raise BundleError(
                f"encoder tensors do not fit encoder_conf: {str(error)[:_LONGEST_REASON]}"
            ) from error
        return cls(network.float().eval().to(device), input_size, device)

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

        Advances `state`.
        """
        batch = frames.to(self._device, copy=True)[None]  # FunASR scales its input in place
        length = torch.tensor([batch.shape[1]])
        encoded: Tensor = self._network.forward_chunk(batch, length, cache=state.cache)[0]
        return encoded[0]

    def step(self, frames: Tensor, state: EncoderState) -> Tensor:
        """The outputs [t, output] that Step-Audio reads for `frames` [t, input]: the newest ones.

        FunASR's recogniser would read those 5 frames back, which have right context; Step-Audio's
        tokenizer does not (SPEC 2).
        """
        return self.window(frames, state)[-frames.shape[0] :]

    def parameters(self) -> int:
        """How many weights the encoder has."""
        return sum(p.numel() for p in self._network.parameters())


def _import_encoder_module() -> Any:
    """`funasr.models.scama.encoder`, without running `funasr/__init__.py` if nobody else has."""
    with _import_lock:
        name = "funasr.models.scama.encoder"
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
