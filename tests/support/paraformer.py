"""A whole Paraformer-online with random weights, as the published folder has it, and FunASR's own
streaming class over the same files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from numpy.typing import NDArray

from aqaa.tokenizers.funasr_encoder import import_funasr

PIECES = 120


def write_paraformer(folder: Path, published: Path) -> Path:
    """Write `folder` with the settings of `published` (a recogniser's folder), larger weights and
    pieces enough to tell words apart."""
    folder.mkdir()
    config = yaml.safe_load((published / "config.yaml").read_text(encoding="utf-8"))
    config["decoder_conf"] |= {"num_blocks": 4}  # two without attention to the sound, as published
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (folder / "am.mvn").write_bytes((published / "am.mvn").read_bytes())
    pieces = ["<blank>", "<s>", "</s>", *(f"w{n}" for n in range(PIECES - 4)), "<unk>"]
    (folder / "tokens.json").write_text(json.dumps(pieces), encoding="utf-8")
    torch.manual_seed(5)
    state = _funasr_model(config).state_dict()
    for name, tensor in state.items():
        if name.startswith("predictor.cif_output"):
            tensor.mul_(12)  # so that pieces are of many lengths
        elif "decoder" in name and tensor.dim() > 1:
            tensor.mul_(2)
    torch.save(state, folder / "model.pt")
    return folder


def funasr_streams(folder: Path) -> Callable[[NDArray[Any]], list[int]]:
    """FunASR's recogniser of `folder`: the ids of a whole recording, in Step-Audio's chunks."""
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    model = _funasr_model(config)
    model.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
    model.eval()
    online = import_funasr("funasr.frontends.wav_frontend").WavFrontendOnline
    ids: list[int] = []

    class Tokenizer:
        """Notes the ids, and passes for a tokenizer."""

        def ids2tokens(self, found: list[int]) -> list[str]:
            ids.extend(found)
            return [str(one) for one in found]

    @torch.inference_mode()
    def recognise(wav: NDArray[Any]) -> list[int]:
        ids.clear()
        model.inference(
            [torch.from_numpy(wav)],
            key=["one"],
            tokenizer=Tokenizer(),
            frontend=online(cmvn_file=str(folder / "am.mvn"), **config["frontend_conf"]),
            cache={},
            is_final=True,
            device="cpu",
            chunk_size=[0, 4, 5],
            encoder_chunk_look_back=4,
            decoder_chunk_look_back=1,
            encoder_conf=config["encoder_conf"],
            frontend_conf=config["frontend_conf"],
        )
        return list(ids)

    return recognise


def _funasr_model(config: dict[str, Any]) -> Any:
    for module in ("scama.encoder", "paraformer.cif_predictor", "paraformer.decoder"):
        import_funasr(f"funasr.models.{module}")
    streaming = import_funasr("funasr.models.paraformer_streaming.model").ParaformerStreaming
    return streaming(
        input_size=560,
        vocab_size=PIECES,
        encoder=config["encoder"],
        encoder_conf=config["encoder_conf"],
        decoder=config["decoder"],
        decoder_conf=config["decoder_conf"],
        predictor=config["predictor"],
        predictor_conf=config["predictor_conf"],
        **config["model_conf"],
    )
