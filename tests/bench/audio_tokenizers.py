"""Audio tokenizers (not `tokenizers.py`: that would shadow Hugging Face's package in this folder).

Processor time of a stream, what dominates it, when tokens come, and what streaming the published
semantic network costs in tokens.

Times are processor time of one thread, so other load on the machine does not change them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from published_tokenizers import published_linguistic, published_semantic

from aqaa.models.bundle import SemanticStreaming, TokenizerConfig, load_bundle, nano_path
from aqaa.tokenizers import linguistic as linguistic_module
from aqaa.tokenizers import semantic as semantic_module
from aqaa.tokenizers.linguistic import LinguisticTokenizer
from aqaa.tokenizers.normalise import RunningGain, peak_normalise
from aqaa.tokenizers.semantic import SemanticTokenizer
from aqaa.tokenizers.semantic_network import SemanticNetwork
from aqaa.tokenizers.stream import Samples

TITLE = "Tokenizers"
ROOT = Path(__file__).resolve().parents[2]
FIXTURES = Path(os.environ.get("AQAA_FIXTURES", ROOT.parent / "shared" / "reference" / "public"))
CHUNK_MS = 240
SECONDS = 12  # of noise for each timing; the first quarter warms up
LONGEST = 12 * 16_000  # recordings of the agreement table are at most so long

WINDOWS = [  # chunk, left, right in ms
    (240, 0, 0),
    (240, 1000, 0),
    (240, 1000, 240),
    (240, 3000, 0),
    (240, 3000, 240),
    (240, 3000, 480),
    (480, 3000, 480),
    (240, 10_000, 240),
    (1000, 10_000, 1000),
]


def main() -> str:
    torch.set_num_threads(1)
    return "\n\n".join([speed(), agreement(), gains()])


def speed() -> str:
    rows = [
        "| tokenizer | chunk | processor time a chunk | real-time factor | of it features | "
        "of it network | first token of a chunk after its audio began |",
        "|---|---|---|---|---|---|---|",
    ]
    wav = np.random.default_rng(0).uniform(-0.1, 0.1, SECONDS * 16_000).astype(np.float32)
    for name, tokenizer in (
        *nano(),
        ("linguistic, published size", published_linguistic()),
        ("semantic, published size", published_semantic()),
    ):
        is_semantic = isinstance(tokenizer, SemanticTokenizer)
        wait = CHUNK_MS + (tokenizer.streaming.right_ms + 2.5 if is_semantic else -5)
        with stages() as spent:
            stream = tokenizer.stream()
            stream.push(wav[: wav.size // 4])
            spent.update(features=0.0, network=0.0)
            start = time.process_time()
            stream.push(wav[wav.size // 4 :])
            total = time.process_time() - start
        chunks = wav.size * 3 / 4 / 16 / CHUNK_MS
        rows.append(
            f"| {name} | {CHUNK_MS} ms | {1000 * total / chunks:.1f} ms | "
            f"{1000 * total / chunks / CHUNK_MS:.3f} | {spent['features'] / total:.0%} | "
            f"{spent['network'] / total:.0%} | {wait + 1000 * total / chunks:.0f} ms |"
        )
    return "\n".join(rows)


def nano() -> Iterator[tuple[str, LinguisticTokenizer | SemanticTokenizer]]:
    if (nano_path() / "aqaa.toml").is_file():
        config = load_bundle(nano_path()).tokenizer
        yield "linguistic, nano", LinguisticTokenizer.load(config)
        yield "semantic, nano", SemanticTokenizer.load(config)


@contextmanager
def stages() -> Iterator[dict[str, float]]:
    """Adds up the processor time of features and networks while it is open."""
    spent = {"features": 0.0, "network": 0.0}
    places = [
        (linguistic_module, "kaldi_fbank", "features"),
        (semantic_module, "log_power_mel", "features"),
        (LinguisticTokenizer, "run", "network"),
        (SemanticNetwork, "run", "network"),
    ]
    originals = [getattr(owner, name) for owner, name, _ in places]

    def timed(function, stage):  # type: ignore[no-untyped-def]
        def call(*args, **kwargs):  # type: ignore[no-untyped-def]
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent[stage] += time.process_time() - start

        return call

    for (owner, name, stage), original in zip(places, originals, strict=True):
        setattr(owner, name, timed(original, stage))
    try:
        yield spent
    finally:
        for (owner, name, _), original in zip(places, originals, strict=True):
            setattr(owner, name, original)


def recordings() -> dict[str, Samples]:
    found = {}
    for path in sorted((FIXTURES / "wavs").glob("*.wav")):
        wav, _ = soundfile.read(path, dtype="float32")
        if wav.size <= LONGEST:
            found[path.stem] = wav
    return found


def fixture_config() -> TokenizerConfig:
    return TokenizerConfig(path=FIXTURES / "checkpoints" / "Step-Audio-Tokenizer")


def agreement() -> str:
    """Stream against whole utterance for several windows; the fixtures' weights are random."""
    if not FIXTURES.is_dir():
        return "(no reference fixtures here: the agreement of streams was not measured)"
    network = SemanticTokenizer.load(fixture_config()).network
    rows = [
        "| chunk / left / right (ms) | longest wait for a token | equal to the whole utterance's |",
        "|---|---|---|",
    ]
    wavs = recordings().values()
    whole = [SemanticTokenizer(network, SemanticStreaming()).encode(wav) for wav in wavs]
    for chunk, left, right in WINDOWS:
        streaming = SemanticStreaming(chunk_ms=chunk, left_ms=left, right_ms=right)
        same = [
            streamed(SemanticTokenizer(network, streaming), wav) == codes
            for wav, codes in zip(wavs, whole, strict=True)
        ]
        rows.append(
            f"| {chunk} / {left} / {right} | {chunk + right + 2.5:.1f} ms | "
            f"{np.concatenate(same).mean():.3f} |"
        )
    return "\n".join(rows)


def streamed(tokenizer: SemanticTokenizer, wav: Samples) -> np.ndarray:
    stream = tokenizer.stream()
    return np.concatenate([stream.push(wav), stream.flush()])


def gains() -> str:
    """Tokens under a stream's gain against those of the peak-normalised utterance."""
    if not FIXTURES.is_dir():
        return ""
    linguistic = LinguisticTokenizer.load(fixture_config())
    semantic = SemanticTokenizer.load(fixture_config())
    rows = ["| a stream's gain | linguistic equal | semantic equal |", "|---|---|---|"]
    wavs = recordings().values()
    wanted = [[t.encode(peak_normalise(w)) for w in wavs] for t in (linguistic, semantic)]
    for presumed in (None, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7):
        scaled = []
        for wav in wavs:
            gain = RunningGain(presumed or 1.0)
            parts = [gain.push(wav), gain.flush()]
            scaled.append(wav if presumed is None else np.concatenate(parts))
        means = [
            np.mean([(t.encode(w) == codes).mean() for w, codes in zip(scaled, right, strict=True)])
            for t, right in zip((linguistic, semantic), wanted, strict=True)
        ]
        name = "none" if presumed is None else f"running, presumed peak {presumed}"
        rows.append(f"| {name} | {means[0]:.3f} | {means[1]:.3f} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(main())
