"""A bundle whose decoder really calls functions."""

from __future__ import annotations

import shutil
from pathlib import Path

from aqaa.models.bundle import load_bundle, nano_path
from aqaa.recipe.pack import described

ROOT = Path(__file__).resolve().parents[2]


def nano_calls() -> bool:
    """Whether nano itself does."""
    return load_bundle(nano_path()).tools is not None


def calling_bundle(folder: Path) -> Path:
    """nano, if it calls functions; else, in `folder`, nano with a decoder that does.

    It is what nano's next one goes on from: it has learned commands, and is not finished.
    """
    if nano_calls():
        return nano_path()
    shutil.copytree(
        nano_path(), folder, ignore=shutil.ignore_patterns("decoder", "examples", "*.md")
    )
    shutil.copytree(ROOT / "recipe" / "begun" / "decoder", folder / "decoder")
    (folder / "aqaa.toml").write_text(described(folder), encoding="utf-8")
    load_bundle(folder)
    return folder
