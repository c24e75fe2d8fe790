"""The network of CosyVoice-1.0's speech tokenizer: log-mel to 4,096 codes, 25 a second.

    conv (stride 2) - GELU - conv (stride 2) - GELU - + positions - transformer blocks - codebook

The weights are those of the published ONNX file, read and not run: as a torch module it takes many
windows in one call, on a GPU as on a CPU, and each begins at a position of its own. The ids are
onnxruntime's (tests/parity). The package s3tokenizer builds this network too, but only for windows
that begin at position 0, and without nano's attention in blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from aqaa.models.bundle import SEMANTIC_SEGMENT_SECONDS, SEMANTIC_TOKEN_MS
from aqaa.models.copies import to_cpu, to_device
from aqaa.models.errors import BundleError
from aqaa.models.groups import SEMANTIC_CODES
from aqaa.tokenizers.onnx_weights import WHAT, PublishedGraph
from aqaa.tokenizers.stream import Codes, Samples

NORM_EPS = 1e-5  # of every LayerNorm in the published graph
HIDDEN_SCORE = -1e10  # added to the attention score of what is not seen, as published
MIN_NORM = 1e-12  # below which a vector is not scaled to length 1, as published
_SEGMENT_TOKENS = SEMANTIC_SEGMENT_SECONDS * 1000 // SEMANTIC_TOKEN_MS


@dataclass(frozen=True, eq=False)
class MelWindow:
    """What one call computes of a stream or segment: `wanted` codes, and what they depend on.

    Log-mel `[t, 128]` float32, whose first frame belongs to token `start` of a 30 s segment, and
    which of its tokens (counted from its own start) are asked for: all if None.
    """

    mel: Samples
    start: int
    wanted: tuple[int, int] | None = None

    @property
    def tokens(self) -> tuple[int, int]:
        """The first token asked for, and one past the last."""
        return self.wanted or (0, -(-len(self.mel) // 4))


class SemanticNetwork(nn.Module):
    """The published network in float32; shared by all streams and threads."""

    def __init__(self, graph: PublishedGraph) -> None:
        super().__init__()
        self.conv1 = _conv(graph, "encoders.conv1")
        self.conv2 = _conv(graph, "encoders.conv2")
        heads = graph.heads
        self.blocks = nn.ModuleList(
            _Block(graph, f"/blocks.{i}", heads) for i in range(graph.blocks)
        )
        self.causal_blocks = graph.causal_blocks
        self.positions = nn.Parameter(graph.positions)
        self.codebook = nn.Parameter(graph.codebook)
        self.code_norms = nn.Parameter(self.codebook.detach().square().sum(0))

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> SemanticNetwork:
        """Read a `speech_tokenizer_v1.onnx`.

        Raises:
            BundleError: the file is missing, damaged or another network; the message names it.
        """
        graph = PublishedGraph(path)
        if len(graph.positions) < _SEGMENT_TOKENS:
            raise BundleError(
                f"{path} has {len(graph.positions)} positions; a segment has {_SEGMENT_TOKENS}"
            )
        if graph.codebook.shape[1] != SEMANTIC_CODES:
            raise BundleError(
                f"{path} has {graph.codebook.shape[1]} codes; {WHAT} has {SEMANTIC_CODES}"
            )
        network = cls(graph)
        return network.requires_grad_(False).eval().to(device)

    @property
    def weights(self) -> int:
        """How many numbers the file's weights are."""
        return sum(p.numel() for p in self.parameters()) - self.code_norms.numel()

    @torch.inference_mode()
    def run(self, windows: Sequence[MelWindow]) -> list[Codes]:
        """The wanted codes, int32, of each window; all windows in one call.

        Shorter windows are padded at their end and masked, so each has the codes that it has alone.
        """
        if not windows:
            return []
        device = self.positions.device
        mel = pad_sequence([torch.from_numpy(window.mel) for window in windows], batch_first=True)
        lengths = torch.tensor([len(window.mel) for window in windows])
        starts = torch.tensor([window.start for window in windows])
        spans = [window.tokens for window in windows]
        most = max(last - first for first, last in spans)
        wanted = torch.tensor([first for first, _ in spans])[:, None] + torch.arange(most)
        first = min(begin for begin, _ in spans)
        inputs = [to_device(tensor, device) for tensor in (mel, lengths, starts, wanted)]
        rows = to_cpu(self(*inputs, first).to(torch.int32)).numpy()
        return [row[: last - first] for row, (first, last) in zip(rows, spans, strict=True)]

    def forward(
        self, mel: Tensor, lengths: Tensor, starts: Tensor, wanted: Tensor, first: int
    ) -> Tensor:
        """Codes int64 [B, W] of the tokens `wanted` of log-mel float32 [B, T, 128].

        Args:
            mel: whatever follows a row's length does not matter.
            lengths: frames of each row, int64 [B].
            starts: the position of each row's first token, int64 [B].
            wanted: tokens counted from the row's start, int64 [B, W]; beyond its end, anything.
            first: the least of them.
        """
        x = mel.transpose(1, 2)
        for conv in (self.conv1, self.conv2):
            frames = torch.arange(x.shape[2], device=x.device)
            x = functional.gelu(conv(x * (frames < lengths[:, None])[:, None]))
            lengths = (lengths + 1) // 2
        x = x.transpose(1, 2)
        place = torch.arange(x.shape[1], device=x.device)
        at = (starts[:, None] + place).clamp(max=len(self.positions) - 1)
        x = x + self.positions[at]
        hidden = self._mask(place, lengths).expand(len(x), 1, len(place), -1)
        mask = hidden.to(x) * HIDDEN_SCORE
        wanted = wanted.clamp(max=len(place) - 1)
        begin = 0
        for after, block in zip(range(len(self.blocks) - 1, -1, -1), self.blocks, strict=True):
            if not after:
                x = block(x, mask, wanted - begin)
                break
            needed = self._needed_from(first, after)
            x = block(x, mask, needed - begin)
            mask = mask[:, :, needed - begin :, needed - begin :]
            begin = needed
        unit = x / x.norm(dim=-1, keepdim=True).clamp(min=MIN_NORM)
        codes: Tensor = (2.0 * unit @ self.codebook - self.code_norms).argmax(-1)
        return codes

    def _needed_from(self, wanted: int, blocks: int) -> int:
        """The first token that `blocks` more blocks must be given for tokens from `wanted` on."""
        if self.causal_blocks is None:
            return 0
        size, back = self.causal_blocks
        return max(0, wanted // size - back * blocks) * size

    def _mask(self, place: Tensor, lengths: Tensor) -> Tensor:
        """Which keys are not seen, bool [B, 1, N or 1, N]."""
        hidden = (place >= lengths[:, None])[:, None, None]
        if self.causal_blocks is None:
            return hidden
        size, back = self.causal_blocks
        block = place // size
        behind = block[:, None] - block
        return hidden | (behind < 0) | (behind > back)


class _Block(nn.Module):
    """A pre-norm transformer block; the key has no bias."""

    def __init__(self, graph: PublishedGraph, name: str, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attn_ln = _norm(graph, f"{name}/attn_ln")
        self.mlp_ln = _norm(graph, f"{name}/mlp_ln")
        self.query, self.key, self.value, self.out = (
            _linear(graph, f"{name}/attn/{part}") for part in ("query", "key", "value", "out")
        )
        self.widen, self.narrow = (_linear(graph, f"{name}/mlp/mlp.{i}") for i in (0, 2))

    def forward(self, x: Tensor, mask: Tensor, wanted: Tensor | int) -> Tensor:
        """Of x [B, N, D] with the score mask [B, 1, N, N]: the tokens that are wanted.

        They are given for each row, int64 [B, W], or as the first of all that follow.
        """
        y = self.attn_ln(x)
        if isinstance(wanted, int):
            x, asking, mask = x[:, wanted:], y[:, wanted:], mask[:, :, wanted:]
        else:
            row = torch.arange(len(x), device=x.device)[:, None]
            x, asking, mask = x[row, wanted], y[row, wanted], mask[row, 0, wanted][:, None]
        q, k, v = (
            part(seen).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part, seen in ((self.query, asking), (self.key, y), (self.value, y))
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        out: Tensor = x + self.narrow(functional.gelu(self.widen(self.mlp_ln(x))))
        return out


def _conv(graph: PublishedGraph, name: str) -> nn.Conv1d:
    weight, bias = graph.named(f"{name}.weight"), graph.named(f"{name}.bias")
    conv = nn.Conv1d(weight.shape[1], weight.shape[0], weight.shape[2], stride=2, padding=1)
    conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)
    return conv


def _norm(graph: PublishedGraph, name: str) -> nn.LayerNorm:
    weight = graph.used_by(f"{name}/Mul")
    norm = nn.LayerNorm(len(weight), NORM_EPS)
    norm.weight, norm.bias = nn.Parameter(weight), nn.Parameter(graph.used_by(f"{name}/Add_1"))
    return norm


def _linear(graph: PublishedGraph, name: str) -> nn.Linear:
    weight = graph.used_by(f"{name}/MatMul")
    biased = graph.has(f"{name}/Add")
    linear = nn.Linear(weight.shape[0], weight.shape[1], bias=biased)
    linear.weight = nn.Parameter(weight.T.contiguous())
    if biased:
        linear.bias = nn.Parameter(graph.used_by(f"{name}/Add"))
    return linear
