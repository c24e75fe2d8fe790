"""`cosyvoice.yaml` is read as data."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_vocoder import checkpoint

from aqaa.models.errors import BundleError
from aqaa.vocoder.config import load_config


@pytest.fixture
def published(fixtures_dir: Path) -> str:
    return (checkpoint(fixtures_dir) / "cosyvoice.yaml").read_text()


def written(directory: Path, text: str) -> Path:
    path = directory / "cosyvoice.yaml"
    path.write_text(text)
    return path


def test_references_to_top_level_numbers_are_followed(tmp_path: Path, published: str) -> None:
    other = published.replace("spk_embed_dim: 192", "spk_embed_dim: 64", 1)
    assert load_config(written(tmp_path, other)).flow.spk_embed_dim == 64


def test_tags_of_parts_that_are_not_used_are_skipped(tmp_path: Path, published: str) -> None:
    head = (
        "__set_seed: !apply:random.seed [1986]\nllm: !new:cosyvoice.llm.TransformerLM\n    x: 1\n"
    )
    assert load_config(written(tmp_path, head + published)).hift.sampling_rate == 22_050


def test_a_python_tag_is_an_error_and_runs_nothing(tmp_path: Path, published: str) -> None:
    marker = tmp_path / "ran"
    attack = f"x: !!python/object/apply:pathlib.Path.touch [{marker}]\n"
    with pytest.raises(BundleError, match="cannot be read"):
        load_config(written(tmp_path, attack + published))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("t_scheduler: 'cosine'", "t_scheduler: 'linear'", "t_scheduler"),
        ("macaron_style: False", "macaron_style: True", "macaron_style"),
        ("upsample_rates: [8, 8]", "upsample_rates: [8, 4]", "128 samples a frame"),
        ("vocab_size: 5121", "vocab_size: 4096", "vocab_size"),
        ("upsample_kernel_sizes: [16, 16]", "upsample_kernel_sizes: [16]", "upsample_kernel"),
    ],
)
def test_another_network_is_refused_by_the_name_of_its_key(
    tmp_path: Path, published: str, old: str, new: str, key: str
) -> None:
    assert old in published
    with pytest.raises(BundleError, match=key):
        load_config(written(tmp_path, published.replace(old, new)))


def test_a_missing_description_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="missing"):
        load_config(tmp_path / "cosyvoice.yaml")
