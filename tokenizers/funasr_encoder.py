"""FunASR's own streaming encoder (`SANMEncoderChunkOpt`), stepped for many streams at a time.

The layers and their weights are FunASR's. What is done with them chunk by chunk is `forward_chunk`
of FunASR 1.4 for a batch of streams that stand at different places: each row has its own position,
its own number of remembered keys and its own number of new frames, and a mask says which are there.
(FunASR's takes one position for all rows, and no mask.) The outputs are FunASR's to rounding.

`import funasr` imports every one of its submodules (12 s, and all of its dependencies). The
encoder's module needs only torch, so it is imported beneath a bare stand-in for the package.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from aqaa.models.copies import to_device
from aqaa.models.errors import BundleError, MissingDependencyError
from aqaa.models.graphs import GraphRunner, batch_sizes, filled_up

# Step-Audio's `chunk_size=[0, 4, 5]` and `encoder_chunk_look_back=4`: 4 new frames behind 5 old
# ones, and keys and values of 4 * 4 frames before those.
CHUNK_FRAMES = 4
WINDOW_BACK = 5
LOOK_BACK_CHUNKS = 4
REMEMBERED_FRAMES = LOOK_BACK_CHUNKS * CHUNK_FRAMES

_MAX_REASON = 400  # characters

_import_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class EncoderState:
    """What one stream carries from chunk to chunk. A value: nothing in it is ever written to."""

    frames: int  # seen so far; the next frame's position is one more
    window: Tensor  # [5, input]: the newest frames, positions added
    remembered: int  # frames before the window whose keys and values are kept, at most 16
    # [2, layers, heads, 16, width of a head]: those keys and values, the newest last, else zeros
    memory: Tensor


@dataclass(frozen=True, eq=False)
class EncoderChunk:
    """A request: the next `frames` float32 [t, input] of a stream, 0 <= t <= 4.

    Fewer than 4 end the stream. None ask for the newest 5 frames once more, with nothing after
    them: so FunASR's recogniser ends audio that ends between two chunks.
    """

    frames: Tensor
    state: EncoderState


@dataclass(frozen=True, eq=False)
class EncodedChunk:
    """The reply: the whole window [5 + t, output], and the stream's state after a chunk of 4.

    Step-Audio's tokenizer reads the newest `t`, which nothing follows; FunASR's recogniser reads
    the oldest, which have 5 frames of right context (SPEC 2).
    """

    states: Tensor
    after: EncoderState


class ChunkEncoder:
    """The encoder with its weights; shared by all streams."""

    def __init__(self, network: Any, input_size: int, device: str) -> None:
        self._network = network
        self._layers = [*network.encoders0, *network.encoders]
        self.input_size = input_size
        self._device = torch.device(device)
        self.output_size: int = network.output_size()
        self._run = GraphRunner(self._encode)

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
        if not network.normalize_before:
            raise BundleError("encoder_conf is not Paraformer's: its layers normalise first")
        return cls(network.to(device), input_size, device)

    @property
    def frame_width(self) -> int:
        """Of a state and, beside it, the features that it is of: what a transcriber may take."""
        return self.output_size + self.input_size

    def initial_state(self) -> EncoderState:
        """The state before the first frame: five zero frames that are attended to, unmasked."""
        attention = self._layers[0].self_attn
        shape = (2, len(self._layers), attention.h, REMEMBERED_FRAMES, attention.d_k)
        return EncoderState(
            0,
            torch.zeros(WINDOW_BACK, self.input_size, device=self._device),
            0,
            torch.zeros(shape, device=self._device),
        )

    @torch.inference_mode()
    def run(self, chunks: Sequence[EncoderChunk]) -> list[EncodedChunk]:
        """Each chunk's reply, all chunks in one call, each as it would be alone."""
        if not chunks:
            return []
        on_gpu = self._device.type == "cuda"
        rows = filled_up(chunks) if on_gpu else chunks
        counts = [len(chunk.frames) for chunk in rows]
        states = [chunk.state for chunk in rows]
        new = CHUNK_FRAMES if on_gpu else max(counts)  # graphs are of few shapes
        frames = torch.stack(
            [functional.pad(chunk.frames, (0, 0, 0, new - len(chunk.frames))) for chunk in rows]
        )
        window = torch.cat(
            [
                torch.stack([state.window for state in states]),
                to_device(frames, self._device) * self.output_size**0.5
                + self._positions(states, new),
            ],
            dim=1,
        )
        memory = torch.stack([state.memory for state in states], dim=2)
        remembered = torch.tensor([state.remembered for state in states])
        there = torch.arange(WINDOW_BACK + new) < WINDOW_BACK + torch.tensor(counts)[:, None]
        kept = torch.arange(REMEMBERED_FRAMES) >= REMEMBERED_FRAMES - remembered[:, None]
        seen = to_device(torch.cat([kept, there], dim=1)[:, None, None], self._device)
        real = to_device(there[..., None], self._device)
        encoded, memory = self._run(window, memory, seen, real)
        replies = []
        for row, chunk in enumerate(chunks):
            count, state = len(chunk.frames), chunk.state
            if count == CHUNK_FRAMES:
                state = EncoderState(
                    state.frames + count,
                    window[row, count:].clone(),
                    min(state.remembered + count, REMEMBERED_FRAMES),
                    memory[:, :, row].clone(),
                )
            replies.append(EncodedChunk(encoded[row, : WINDOW_BACK + count], state))
        return replies

    def tail(self, state: EncoderState) -> Tensor:
        """The 5 frames behind the newest chunk once more, with nothing after them: [5, output]."""
        return self.run([EncoderChunk(torch.zeros(0, self.input_size), state)])[0].states

    def _positions(self, states: Sequence[EncoderState], new: int) -> Tensor:
        """FunASR's position code of each row's next frames, [B, new, input]; the first frame is 1.

        Asked for these positions alone: FunASR's `forward` makes the table since the stream's start
        in every call, so that an hour's stream becomes ever slower.
        """
        first = torch.tensor([state.frames + 1 for state in states])[:, None]
        positions = (first + torch.arange(new)).reshape(1, -1)
        code: Tensor = self._network.embed.encode(positions, self.input_size, torch.float32)
        return to_device(code.reshape(len(states), new, self.input_size), self._device)

    def warm(self, most: int) -> None:
        """Record the CUDA graphs of batches of up to `most`, and no more after that."""
        chunk = EncoderChunk(torch.zeros(CHUNK_FRAMES, self.input_size), self.initial_state())
        for size in batch_sizes(most):
            self.run([chunk] * size)
        self._run.seal()

    def _encode(
        self, window: Tensor, memory: Tensor, seen: Tensor, real: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Outputs [B, 5 + new, output] of `window`, and the memory after it.

        Args:
            window: [B, 5 + new, input], rows with fewer new frames padded at their end.
            memory: [2, layers, B, heads, 16, width of a head].
            seen: which of the 16 + 5 + new keys of a row count, bool [B, 1, 1, 16 + 5 + new].
            real: which of its frames are no padding, bool [B, 5 + new, 1].
        """
        memories = []
        x = window
        for number, layer in enumerate(self._layers):
            y, kept_keys = _attend(layer.self_attn, layer.norm1(x), memory[:, number], seen, real)
            x = x + y if layer.in_size == layer.size else y
            x = x + layer.feed_forward(layer.norm2(x))
            memories.append(kept_keys)
        out: Tensor = self._network.after_norm(x)
        return out, torch.stack(memories, dim=1)

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
            f"{name} tensors do not fit {name}_conf: {str(error)[:_MAX_REASON]}"
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


def _attend(
    attention: Any, x: Tensor, memory: Tensor, seen: Tensor, real: Tensor
) -> tuple[Tensor, Tensor]:
    """FunASR's self-attention with memory (`MultiHeadedAttentionSANM.forward_chunk`), for a batch.

    Args:
        attention: the layer with its weights.
        x: [B, T, input], the window's 5 + new frames.
        memory: keys and values of the frames before, [2, B, heads, 16, width of a head].
        seen: which of the 16 + T keys count, bool [B, 1, 1, 16 + T].
        real: which of the T frames are no padding, bool [B, T, 1].

    Returns:
        The attention's output [B, T, output], and the memory after a whole chunk: without the
        oldest 4 frames, with the window's oldest 4, which leave it.
    """
    q, k, v, values = attention.forward_qkv(x)
    keys, heads = torch.cat([memory[0], k], dim=2), torch.cat([memory[1], v], dim=2)
    mixed = functional.scaled_dot_product_attention(q, keys, heads, attn_mask=seen)
    out = attention.linear_out(mixed.transpose(1, 2).flatten(2))
    last = REMEMBERED_FRAMES + CHUNK_FRAMES
    after = torch.stack([keys[:, :, CHUNK_FRAMES:last], heads[:, :, CHUNK_FRAMES:last]])
    return out + attention.forward_fsmn(values * real, None), after
