"""The `step1` configuration for transformers, so that no checkpoint code has to be trusted."""

from __future__ import annotations

from transformers import PretrainedConfig


class TransformersStep1Config(PretrainedConfig):  # type: ignore[misc]
    """`config.json` of a Step-1 decoder (SPEC 6) under the names that vLLM asks for.

    `aqaa.models.step1.Step1Config` is what everything else reads; this class is for transformers.

    Every key of the file becomes an attribute. Step-1 says `num_attention_groups` for KV heads and
    `max_seq_len` for the context; embeddings are not tied.
    """

    model_type = "step1"
    attribute_map = {  # noqa: RUF012 - transformers reads it from the class
        "num_key_value_heads": "num_attention_groups",
        "max_position_embeddings": "max_seq_len",
    }

    def __init__(self, tie_word_embeddings: bool = False, **keys: object) -> None:
        super().__init__(tie_word_embeddings=tie_word_embeddings, **keys)
