"""The audio models on a device, at published dimensions or tiny: equal, and how fast."""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from decoder_shard import Precision
from numpy.typing import NDArray
from published_step1 import OMNI
from published_tokenizers import published_linguistic, published_semantic
from sustained import ear, sustained, voice
from tiny_vocoder import PUBLISHED, TINY, random_vocoder, tokens

from aqaa.models.bundle import TOKENIZER_RATE, VocoderConfig, load_bundle, nano_path
from aqaa.models.groups import GROUP_SECONDS
from aqaa.models.step1 import Step1Config
from aqaa.server.compute.devices import flow_dtype, keep_float32
from aqaa.server.compute.model import Model
from aqaa.server.hearing.tokenising import GPU_BATCH, Tokenising
from aqaa.tokenizers.dual import DualTokenizer
from aqaa.tokenizers.funasr_encoder import EncoderChunk
from aqaa.tokenizers.semantic_network import MelWindow
from aqaa.vocoder.noise import KeyedNoise
from aqaa.vocoder.state import Chunk, due, feed
from aqaa.vocoder.vocoder import Vocoder

EQUAL_DB = 50.0  # of a wave above its difference from another computation of it
PUSH_SECONDS = 0.24
NANO_ANSWERS = 4
PRECISIONS = (
    ("float32", torch.float32, False),
    ("tf32", torch.float32, True),
    ("float16", torch.float16, False),
    ("bfloat16", torch.bfloat16, False),
)  # name, of the flow; whether what stays float32 may be rounded
WARM_GROUPS = 24  # of the published schedule: all chunk sizes, and the longest context


@dataclass(frozen=True)
class Dimensions:
    """What is made and how often it is run."""

    vocoder: dict[str, Any]
    prompt_groups: int
    tokenizers_of_nano: bool
    decoder: Step1Config
    shards: int
    context: int
    precisions: tuple[Precision, ...]
    conversations: tuple[int, ...]
    sessions: tuple[int, ...]
    sustained: tuple[int, ...]
    seconds: float
    runs: int

    @classmethod
    def published(cls) -> Dimensions:
        """The 130 B's parts (SPEC 2, 3, 6, 7), and prompts of five seconds."""
        return cls(
            vocoder=PUBLISHED,
            prompt_groups=42,
            tokenizers_of_nano=False,
            decoder=OMNI,
            shards=8,
            context=8192,
            precisions=("bf16", "fp8"),
            conversations=(1, 8, 32),
            sessions=(1, 8, 32, 64),
            sustained=(16, 32, 64, 96, 128, 192),
            seconds=3.0,
            runs=10,
        )

    @classmethod
    def tiny(cls) -> Dimensions:
        """As little as shows that the check itself works."""
        return cls(
            vocoder=TINY,
            prompt_groups=2,
            tokenizers_of_nano=True,
            decoder=Step1Config(
                hidden_size=256,
                intermediate_size=512,
                num_attention_heads=4,
                num_attention_groups=2,
                num_hidden_layers=2,
                vocab_size=512,
                max_seq_len=512,
                rms_norm_eps=1e-5,
            ),
            shards=2,
            context=64,
            precisions=("bf16",),
            conversations=(1, 2),
            sessions=(1, 2),
            sustained=(1,),
            seconds=1.0,
            runs=1,
        )

    def a_vocoder(self, device: str, dtype: torch.dtype | None = None) -> Vocoder:
        """At random weights, with one voice, `any`; in what a server computes in by itself."""
        config = VocoderConfig(path=Path())
        return random_vocoder(
            self.vocoder,
            config,
            "any",
            device=device,
            dtype=dtype or flow_dtype("auto", device),
            prompt_groups=self.prompt_groups,
        )

    def a_tokenizer(self, device: str) -> DualTokenizer:
        """Both tokenizers, at random weights or nano's."""
        return a_tokenizer(device, self.tokenizers_of_nano)


@functools.cache
def a_tokenizer(device: str, of_nano: bool) -> DualTokenizer:
    """Both tokenizers, made once; see `Dimensions.a_tokenizer`."""
    if of_nano:
        return DualTokenizer.load(load_bundle(nano_path()), device)
    parts = published_linguistic(device), published_semantic(device)
    return DualTokenizer(*parts, audio_offset=0, normalise=False)


def decibels(wave: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """How far `wave` is above its difference from `other`; 200 at the most."""
    apart = float(np.square(wave - other).sum())
    power = float(np.square(wave).sum())
    return min(200.0, 10 * math.log10(power / apart)) if apart else 200.0


def requests_of(tokenizer: DualTokenizer, seed: int) -> list[Any]:
    """What both tokenizers ask for one push after another, of one stream of noise."""
    steps = tokenizer.encoding(_noise(2.0, seed))
    asked: list[Any] = []
    try:
        request = next(steps)
        while True:
            asked.append(request)
            request = steps.send(tokenizer.run([request])[0])
    except StopIteration:
        return asked


def batched_is_alone(device: str, size: Dimensions) -> dict[str, Any]:
    """Different streams in one call, each against itself alone: equal ids, and the wave's dB."""
    tokenizer = size.a_tokenizer(device)
    asked = [request for seed in range(3) for request in requests_of(tokenizer, seed)]
    alone = [tokenizer.run([request])[0] for request in asked]
    together = tokenizer.run(asked)
    same = [_codes(a) == _codes(b) for a, b in zip(alone, together, strict=True)]
    vocoder = size.a_vocoder(device, torch.float32)
    chunks = [steady_chunk(vocoder, seed) for seed in range(3)]
    one = [vocoder.synthesise([chunk])[0][1] for chunk in chunks]
    all_three = [sound for _, sound in vocoder.synthesise(chunks)]
    level = min(decibels(a, b) for a, b in zip(one, all_three, strict=True))
    return {
        "token_requests": len(asked),
        "equal_requests": sum(same),
        "wave_db": round(level, 1),
        "passed": bool(all(same) and level >= EQUAL_DB),
    }


def nano_equals_cpu(device: str, size: Dimensions) -> dict[str, Any]:
    """Nano's ids and waves on `device` against those on the CPU."""
    bundle = load_bundle(nano_path())
    here, there = (DualTokenizer.load(bundle, where) for where in ("cpu", device))
    wave = speech()
    ids, other = here.encode(wave), there.encode(wave)
    voices = [Vocoder.load(bundle.vocoder, bundle.voices, where) for where in ("cpu", device)]
    answers = json.loads((nano_path() / "examples" / "answers.json").read_text(encoding="utf-8"))
    levels = []
    for answer in answers[: 1 if size.tokenizers_of_nano else NANO_ANSWERS]:
        first, second = (_say(vocoder, answer["tokens"]) for vocoder in voices)
        levels.append(decibels(first, second))
    return {
        "ids": len(ids),
        "equal_ids": sum(a == b for a, b in zip(ids, other, strict=True)),
        "wave_db": round(min(levels), 1),
        "passed": bool(ids == other and min(levels) >= EQUAL_DB),
    }


def precisions(device: str, size: Dimensions) -> dict[str, Any]:
    """Of each way to compute: nano's mel and wave beside float32 on the CPU; the published time."""
    bundle = load_bundle(nano_path())
    here = Vocoder.load(bundle.vocoder, bundle.voices)
    answers = json.loads((nano_path() / "examples" / "answers.json").read_text(encoding="utf-8"))
    spoken = answers[0]["tokens"]
    found: dict[str, Any] = {}
    for name, dtype, tf32 in PRECISIONS:
        keep_float32(tf32=tf32)
        there = Vocoder.load(bundle.vocoder, bundle.voices, device, dtype)
        mels = [first_mel(vocoder, spoken) for vocoder in (here, there)]
        vocoder = size.a_vocoder(device, dtype)
        chunk = steady_chunk(vocoder, 0)
        rows = {
            f"ms, {sessions}": round(
                1e3 * _best(_calls(vocoder.synthesise, chunk, sessions), device, size.runs), 2
            )
            for sessions in size.sessions[:3]
        }
        found[name] = {
            "mel_apart": round(float((mels[0] - mels[1]).abs().max()), 5),
            "wave_db": round(decibels(_say(here, spoken), _say(there, spoken)), 1),
            **rows,
        }
    keep_float32()
    return found


def first_mel(vocoder: Vocoder, ids: Sequence[int]) -> torch.Tensor:
    """The mel [M, F] of an answer's first chunk, on the CPU."""
    stream = vocoder.stream(next(iter(vocoder.voices)))
    stream.feed(ids)
    chunk = stream.due()
    assert chunk is not None
    with torch.inference_mode():
        return vocoder.synthesiser._mels([chunk])[0].cpu()


def hearing_times(device: str, size: Dimensions) -> dict[str, Any]:
    """Milliseconds of a call and real-time factor a session, by tokenizer and sessions."""
    found: dict[str, Any] = {}
    tokenizer = size.a_tokenizer(device)
    tokenizer.warm(max(size.sessions))
    asked = requests_of(tokenizer, 0)
    for name, kind in (("linguistic", EncoderChunk), ("semantic", MelWindow)):
        request = longest(asked, kind)
        for sessions in size.sessions:
            run = _calls(tokenizer.run, request, sessions)
            seconds = _best(run, device, size.runs)
            found[f"{name}, {sessions}"] = _row(seconds, sessions, PUSH_SECONDS)
    return found


def speaking_times(device: str, size: Dimensions) -> dict[str, Any]:
    """The same of the vocoder, as CUDA graphs and, for one session, without."""
    found: dict[str, Any] = {}
    lasts = VocoderConfig(path=Path()).chunk_groups[-1] * GROUP_SECONDS
    for how in ("eager", "graphed"):
        vocoder = size.a_vocoder(device)
        if how == "eager":
            launch_eagerly(vocoder)
        chunk = steady_chunk(vocoder, 0)
        for sessions in size.sessions[: 1 if how == "eager" else None]:
            seconds = _best(_calls(vocoder.synthesise, chunk, sessions), device, size.runs)
            found[f"vocoder {how}, {sessions}"] = _row(seconds, sessions, lasts)
    return found


def ears_sustained(device: str, size: Dimensions) -> dict[str, Any]:
    """How many speakers' deadlines the device meets."""
    began = time.monotonic()
    tokenizer = size.a_tokenizer(device)
    tokenizer.warm(GPU_BATCH)
    warm = time.monotonic() - began
    hearing = Tokenising(tokenizer, device)
    met = sustained(lambda: ear(hearing), size.sustained, size.seconds)
    return {"seconds_to_warm": round(warm, 1), **met}


def voices_sustained(device: str, size: Dimensions) -> dict[str, Any]:
    """How many answers' deadlines the device meets."""
    vocoder = size.a_vocoder(device)
    began = time.monotonic()
    vocoder.warm("any", WARM_GROUPS)
    warm = time.monotonic() - began
    synthesis = Model[Any, Any](
        "vocoder",
        vocoder.synthesise,
        vocoder.shape_of,
        vocoder.max_batch,
        heavy=True,
        at_once=vocoder.at_once,
    )
    met = sustained(lambda: voice(vocoder, synthesis, "any"), size.sustained, size.seconds)
    return {"seconds_to_warm": round(warm, 1), **met}


def steady_chunk(vocoder: Vocoder, seed: int) -> Chunk:
    """A chunk from the schedule's last size on, of an answer that `seed` draws."""
    synthesiser = vocoder.synthesiser
    (name,) = vocoder.voices
    state = synthesiser.start(synthesiser.prompt(vocoder.voices[name]), KeyedNoise(), 1.0)
    while True:
        while not (chunk := due(state, synthesiser.config)):
            state = feed(state, tokens(1, seed=seed + state.groups))
        if state.chunk >= len(synthesiser.config.chunk_groups):
            return chunk
        ((state, _),) = synthesiser.synthesise([chunk])


def longest(requests: Sequence[Any], kind: type[Any]) -> Any:
    """The request of `kind` with the most in it."""
    return max(
        (one for one in requests if isinstance(one, kind)),
        key=lambda one: len(one.mel if isinstance(one, MelWindow) else one.frames),
    )


def launch_eagerly(vocoder: Vocoder) -> None:
    """Take its graphs away, to see what they are worth."""
    networks = vocoder.synthesiser
    for name in ("_run_flow", "_run_f0", "_run_decode"):
        setattr(networks, name, getattr(networks, name)._function)


def speech() -> NDArray[np.float32]:
    """The first of nano's example questions, 16 kHz."""
    first = min((nano_path() / "examples").glob("*.flac"))
    wave, rate = soundfile.read(first, dtype="float32")
    resampled: NDArray[np.float32] = soxr.resample(wave, rate, TOKENIZER_RATE)
    return resampled


def _say(vocoder: Vocoder, ids: Sequence[int]) -> NDArray[np.float32]:
    stream = vocoder.stream(next(iter(vocoder.voices)))
    return np.concatenate([stream.push(ids), stream.flush()])


def _codes(reply: Any) -> list[int]:
    codes: list[int] = getattr(reply, "codes", reply).tolist()
    return codes


def _noise(seconds: float, seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.05, round(seconds * TOKENIZER_RATE)).astype(np.float32)


def _calls(run: Callable[[list[Any]], Any], value: Any, sessions: int) -> Callable[[], Any]:
    return lambda: run([value] * sessions)


def _best(run: Callable[[], Any], device: str, runs: int) -> float:
    """Seconds of the fastest of `runs`, after two that warm up and record."""
    run(), run()
    spent = []
    for _ in range(runs):
        began = time.perf_counter()
        run()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - began)
    return min(spent)


def _row(seconds: float, sessions: int, lasts: float) -> dict[str, float]:
    return {"ms": round(1e3 * seconds, 2), "rtf": round(seconds / sessions / lasts, 5)}
