"""A vocoder directory in the published layout: `cosyvoice.yaml`, `flow.pt`, `hift.pt`."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from aqaa.models.errors import BundleError
from aqaa.models.weights import load_state_dict
from aqaa.vocoder.config import FlowConfig, HiftConfig
from aqaa.vocoder.flow import Flow
from aqaa.vocoder.hift import Hift


def load_flow(directory: Path, config: FlowConfig) -> Flow:
    """The flow of `directory/flow.pt`, in float32, ready for inference.

    Raises:
        BundleError: the file is missing, damaged, or of other dimensions than `config`.
    """
    flow = Flow(config)
    _fill(flow, directory / "flow.pt", "the vocoder's flow (flow.pt)")
    return flow


def load_hift(directory: Path, config: HiftConfig) -> Hift:
    """The generator of `directory/hift.pt`, in float32, ready for inference.

    Raises:
        BundleError: the file is missing, damaged, or of other dimensions than `config`.
    """
    hift = Hift(config)
    _fill(hift, directory / "hift.pt", "the vocoder's wave generator (hift.pt)")
    hift.freeze()
    return hift


def _fill(module: nn.Module, path: Path, what: str) -> None:
    state = load_state_dict(path, what)
    try:
        module.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    except RuntimeError as error:
        raise BundleError(f"{what} does not fit cosyvoice.yaml: {path}: {error}") from error
    module.eval().requires_grad_(False)
