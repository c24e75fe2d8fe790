"""Loading weights without running anything that a file might hold."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from aqaa.models.errors import BundleError

if TYPE_CHECKING:
    from torch import Tensor


def require_file(path: Path, what: str) -> Path:
    """`path`, if it is a file that is not empty.

    Raises:
        BundleError: it is missing or empty; the message names it and what it is for.
    """
    if not path.is_file():
        raise BundleError(f"{what} is missing: {path}")
    if path.stat().st_size == 0:
        raise BundleError(f"{what} is empty: {path}; fetch or build it again")
    return path


def load_state_dict(path: Path, what: str) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` file, or of a published `.pt` read with `weights_only=True`.

    Raises:
        BundleError: the file is missing or damaged, or holds anything but tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    require_file(path, what)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise BundleError(f"{what} cannot be read: {path}: {error}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]  # FunASR wraps its checkpoints so
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise BundleError(f"{what} is not a plain table of tensors: {path}")
    return state
