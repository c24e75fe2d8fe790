"""A Step-1 checkpoint on disk (SPEC 6): its `config.json`, its weight files, its head slopes.

The published Hugging Face layout. Nothing here needs torch.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from aqaa.models.errors import BundleError
from aqaa.models.weights import require_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Step1Config:
    """What `config.json` of a Step-1 checkpoint says about its shape."""

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_attention_groups: int
    num_hidden_layers: int
    vocab_size: int
    max_seq_len: int
    rms_norm_eps: float

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def kv_size(self) -> int:
        """Width of the keys, or the values, of one position in one layer."""
        return self.num_attention_groups * self.head_dim

    @property
    def parameters(self) -> int:
        """Weights of the whole decoder, embedding and lm_head included."""
        h, f = self.hidden_size, self.intermediate_size
        layer = 2 * h * h + 2 * h * self.kv_size + 3 * h * f + 2 * h
        return 2 * self.vocab_size * h + h + self.num_hidden_layers * layer

    @property
    def kv_per_token(self) -> int:
        """Cached numbers (keys and values) of one position over all layers."""
        return 2 * self.num_hidden_layers * self.kv_size

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read `directory/config.json`.

        Raises:
            BundleError: it is missing or unreadable, lacks a key, or its numbers contradict.
        """
        file = require_file(directory / "config.json", "the decoder's config.json")
        try:
            data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise BundleError(f"{file} is not valid JSON: {error}") from error
        values: dict[str, Any] = {}
        for key, kind in cls.__annotations__.items():
            value = data.get(key)
            if value is None:
                raise BundleError(f"{file} lacks the key {key!r}: is this a Step-1 checkpoint?")
            allowed = (int, float) if kind == "float" else int
            if isinstance(value, bool) or not isinstance(value, allowed) or value <= 0:
                raise BundleError(f"{file}: {key} is {value!r}, but must be a positive {kind}")
            values[key] = value
        config = cls(**values)
        if config.hidden_size % config.num_attention_heads:
            raise BundleError(f"{file}: hidden_size is not a multiple of num_attention_heads")
        if config.num_attention_heads % config.num_attention_groups:
            raise BundleError(
                f"{file}: num_attention_heads is not a multiple of num_attention_groups"
            )
        return config


def alibi_slopes(heads: int) -> list[float]:
    """The slope of each head: the largest power of two of heads first, the others appended."""
    n = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * (h + 1) / n) for h in range(n)]
    return slopes + [2 ** (-4 * (2 * m + 1) / n) for m in range(heads - n)]


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint: one, or the shards that its index names.

    Raises:
        BundleError: one is missing, or the index is none.
    """
    single = directory / "model.safetensors"
    index = directory / "model.safetensors.index.json"
    if single.is_file() or not index.is_file():
        return [require_file(single, "the decoder's weights")]
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, AttributeError) as error:
        raise BundleError(f"{index} is not an index of safetensors shards: {error}") from error
    return [require_file(directory / name, "a shard of the decoder") for name in sorted(names)]
