"""Both tokenizers over many clips at once: what training the decoder needs and serving does not.

The linguistic half runs clips of one length as a batch through the windowed encoder, ten times as
fast as a stream does. Clips are padded with silence to whole 240 ms chunks, so the few tokens after
the last whole chunk are those of a speaker who was silent on, not of one cut off.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from aqaa.models.weights import load_state_dict
from aqaa.recipe.linguistic.encoder import WindowedEncoder
from aqaa.recipe.linguistic.export import FOLDER
from aqaa.recipe.linguistic.fbank import CHUNK_SAMPLES, WIDTH, fbank, mel_filters, stack
from aqaa.recipe.semantic.targets import log_mel
from aqaa.recipe.speech.voices import Wave
from aqaa.tokenizers.semantic_network import MelWindow, SemanticNetwork

Codes = NDArray[np.int32]
BATCH_SECONDS = 60  # more does not fit the caches


class Hearing:
    """The tokenizers of a `Step-Audio-Tokenizer` folder that this recipe exported."""

    def __init__(self, directory: Path, device: str = "cpu") -> None:
        folder = directory / FOLDER
        conf = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))["encoder_conf"]
        self._encoder = WindowedEncoder(
            WIDTH,
            conf["output_size"],
            conf["attention_heads"],
            conf["linear_units"],
            conf["num_blocks"],
        ).eval()
        state = load_state_dict(folder / "model.pt", "the linguistic encoder")
        self._encoder.load_state_dict(
            {k.removeprefix("encoder."): v.float() for k, v in state.items()}
        )
        self._encoder.to(device)
        shift, scale = re.findall(r"<LearnRateCoef> 0 \[([^]]*)\]", (folder / "am.mvn").read_text())
        self.shift = torch.tensor([float(v) for v in shift.split()], device=device)
        self.scale = torch.tensor([float(v) for v in scale.split()], device=device)
        self._codes = torch.from_numpy(np.load(directory / "linguistic_tokenizer.npy")).to(device)
        self._semantic = SemanticNetwork.load(directory / "speech_tokenizer_v1.onnx")

    @property
    def centroids(self) -> NDArray[np.float32]:
        """The linguistic codes, float32 [1024, width]."""
        return np.asarray(self._codes.cpu().numpy())

    @torch.no_grad()
    def linguistic(self, waves: Sequence[Wave]) -> list[Codes]:
        """Raw linguistic codes, 4 for every begun 240 ms of each wave (float32, 16 kHz)."""
        groups: dict[int, list[int]] = defaultdict(list)
        for i, wave in enumerate(waves):
            groups[max(1, -(-len(wave) // CHUNK_SAMPLES))].append(i)
        out: list[Codes] = [np.empty(0, np.int32)] * len(waves)
        for chunks, members in groups.items():
            at_once = max(1, int(BATCH_SECONDS / (0.24 * chunks)))
            for start in range(0, len(members), at_once):
                part = members[start : start + at_once]
                batch = np.zeros((len(part), chunks * CHUNK_SAMPLES), np.float32)
                for row, i in zip(batch, part, strict=True):
                    row[: len(waves[i])] = waves[i]
                emitted = self._encoder(self.heard(batch))
                ids = torch.cdist(emitted, self._codes[None]).argmin(-1)
                for i, row_ids in zip(part, ids.cpu().numpy(), strict=True):
                    out[i] = row_ids.astype(np.int32)
        return out

    def heard(self, batch: NDArray[np.float32]) -> Tensor:
        """Normalised features [B, 4 C, 560] of waves [B, samples] of C whole chunks."""
        found = stack(fbank(torch.from_numpy(batch).to(self.shift.device), mel_filters()))
        return (found + self.shift) * self.scale

    @property
    def frame_width(self) -> int:
        """Of one of `frames`."""
        return int(self._codes.shape[1]) + WIDTH

    @torch.no_grad()
    def frames(self, heard: Tensor) -> Tensor:
        """What a transcriber takes, [B, 4 C, frame_width]: states, and the features `heard`."""
        return torch.cat([self._encoder(heard), heard], -1)

    def semantic(self, wave: Wave) -> Codes:
        """Raw semantic codes, 6 for every begun 240 ms of `wave` (float32, 16 kHz, under 30 s)."""
        chunks = max(1, -(-len(wave) // CHUNK_SAMPLES))
        padded = np.pad(wave, (0, chunks * CHUNK_SAMPLES - len(wave)))
        mel = np.ascontiguousarray(log_mel(padded).T)
        return self._semantic.run([MelWindow(mel, 0)])[0]

    def both(self, waves: Sequence[Wave]) -> list[tuple[Codes, Codes]]:
        """(linguistic, semantic) codes of every wave: 4 and 6 for every begun 240 ms."""
        return list(zip(self.linguistic(waves), map(self.semantic, waves), strict=True))
