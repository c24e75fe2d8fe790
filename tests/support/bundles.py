"""Bundles for tests: an `aqaa.toml` that points at the reference fixtures' published folders."""

from __future__ import annotations

from pathlib import Path


def fixture_bundle(directory: Path, fixtures_dir: Path, *, tokenizer: str = "") -> Path:
    """Write `directory/aqaa.toml` over the checkpoints in `fixtures_dir`; `directory` again.

    `tokenizer` is TOML for the end of the `[tokenizer]` section. The fixtures have neither a text
    tokenizer nor voices: the bundle names `tokenizer.model` and `voices/`, which do not exist.
    """
    checkpoints = (fixtures_dir / "checkpoints").resolve()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "aqaa.toml").write_text(
        f"""\
name = "fixture"

[tokenizer]
path = "{checkpoints / "Step-Audio-Tokenizer"}"
{tokenizer}

[decoder]
path = "{checkpoints / "step1"}"

[vocoder]
path = "{checkpoints / "CosyVoice-300M-25Hz"}"

[voices]
default = "none"
""",
        encoding="utf-8",
    )
    return directory
