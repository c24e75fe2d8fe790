"""Writes the linguistic tokenizer as `Step-Audio-Tokenizer` has it, ready for the serving code.

dengcunqin/speech_paraformer-large_asr_nat-zh-cantonese-en-16k-vocab8501-online/
    configuration.json  config.yaml  am.mvn  model.pt  tokens.json  seg_dict
linguistic_tokenizer.npy
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

from aqaa.recipe.linguistic.encoder import KERNEL
from aqaa.recipe.linguistic.fbank import LFR_M, LFR_N, MELS, RATE, WIDTH
from aqaa.recipe.linguistic.train import BLOCKS, HEADS, UNITS, WIDTH_OUT, Speller
from aqaa.recipe.speech.phonemes import PHONEMES

FOLDER = "dengcunqin/speech_paraformer-large_asr_nat-zh-cantonese-en-16k-vocab8501-online"


def export(model: Speller, directory: Path) -> None:
    """Write all files of the linguistic half of `directory` (a Step-Audio-Tokenizer folder)."""
    folder = directory / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    tokens = ["<blank>", *PHONEMES, "<unk>"]
    _write_json(folder / "configuration.json", _CONFIGURATION)
    (folder / "config.yaml").write_text(yaml.safe_dump(_CONFIG, sort_keys=False), encoding="utf-8")
    (folder / "am.mvn").write_text(kaldi_cmvn(model.shift, model.scale), encoding="utf-8")
    _write_json(folder / "tokens.json", tokens)
    (folder / "seg_dict").write_text("".join(f"{t} {t}\n" for t in PHONEMES), encoding="utf-8")
    weights = {f"encoder.{k}": v.half() for k, v in model.encoder.state_dict().items()}
    torch.save(weights, folder / "model.pt")
    codes = model.codebook.embed.numpy().astype(np.float32)
    np.save(directory / "linguistic_tokenizer.npy", codes)


def kaldi_cmvn(shift: Tensor, scale: Tensor) -> str:
    """Kaldi's nnet text of AddShift and Rescale, `(x + shift) * scale` on `WIDTH` features."""

    def vector(values: Tensor) -> str:
        return f"<LearnRateCoef> 0 [ {' '.join(f'{v:.7g}' for v in values.tolist())} ]"

    return (
        f"<Nnet> \n<Splice> {WIDTH} {WIDTH}\n[ 0 ]\n<AddShift> {WIDTH} {WIDTH} \n{vector(shift)}\n"
        f"<Rescale> {WIDTH} {WIDTH} \n{vector(scale)}\n</Nnet> \n"
    )


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


_CONFIGURATION = {
    "framework": "pytorch",
    "task": "auto-speech-recognition",
    "model": {"type": "funasr"},
    "pipeline": {"type": "funasr-pipeline"},
    "model_name_in_hub": {"ms": "", "hf": ""},
    "file_path_metas": {
        "init_param": "model.pt",
        "config": "config.yaml",
        "tokenizer_conf": {"token_list": "tokens.json", "seg_dict": "seg_dict"},
        "frontend_conf": {"cmvn_file": "am.mvn"},
    },
}

_CONFIG = {
    "model": "ParaformerStreaming",
    "encoder": "SANMEncoderChunkOpt",
    "encoder_conf": {
        "output_size": WIDTH_OUT,
        "attention_heads": HEADS,
        "linear_units": UNITS,
        "num_blocks": BLOCKS,
        "dropout_rate": 0.1,
        "positional_dropout_rate": 0.1,
        "attention_dropout_rate": 0.1,
        "input_layer": "pe_online",
        "pos_enc_class": "SinusoidalPositionEncoder",
        "normalize_before": True,
        "kernel_size": KERNEL,
        "sanm_shfit": 0,
        "selfattention_layer_type": "sanm",
        "chunk_size": [12, 15],
        "stride": [8, 10],
        "pad_left": [0, 0],
        "encoder_att_look_back_factor": [4, 4],
        "decoder_att_look_back_factor": [1, 1],
    },
    "frontend": "WavFrontendOnline",
    "frontend_conf": {
        "fs": RATE,
        "window": "hamming",
        "n_mels": MELS,
        "frame_length": 25,
        "frame_shift": 10,
        "lfr_m": LFR_M,
        "lfr_n": LFR_N,
        "dither": 0.0,
    },
    "tokenizer": "CharTokenizer",
    "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
    "normalize": None,
}
