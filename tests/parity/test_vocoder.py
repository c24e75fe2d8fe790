"""The vocoder against the published code's outputs, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import published_stream
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.transforms import Resample

from aqaa.vocoder.config import CosyVoiceConfig, load_config
from aqaa.vocoder.flow import Flow, cosine_times, token_positions
from aqaa.vocoder.hift import Hift
from aqaa.vocoder.loading import load_flow, load_hift
from aqaa.vocoder.mel import speaker_features
from aqaa.vocoder.state import Prompt
from aqaa.vocoder.voices import make_voice

FLOW_TOLERANCE = 1e-4  # fixtures' README: "mel 1e-3, others 1e-4"
MEL_TOLERANCE = 1e-3
F0_TOLERANCE = 5e-3
WAVE_TOLERANCE = 1e-4
SOURCE_TOLERANCE = 1e-3
OWN_SOURCE_TOLERANCE = 1e-2
STREAM_MEL_TOLERANCE = 2e-3
STREAM_WAVE_TOLERANCE = 5e-3
RESAMPLE_TOLERANCE = 1e-5
FBANK_TOLERANCE = 1e-3  # the README's for a log filterbank


class Reference(NamedTuple):
    directory: Path
    config: CosyVoiceConfig
    flow: Flow
    hift: Hift
    expected: Path
    wavs: Path

    def arrays(self, name: str) -> dict[str, NDArray[np.generic]]:
        with np.load(self.expected / f"{name}.npz") as file:
            return {key: file[key] for key in file.files}


def vocoder_directories(fixtures: Path) -> list[Path]:
    return [file.parent for file in sorted((fixtures / "checkpoints").glob("*/cosyvoice.yaml"))]


@pytest.fixture(scope="module")
def reference(fixtures_dir: Path) -> Reference:
    (directory,) = vocoder_directories(fixtures_dir)
    config = load_config(directory / "cosyvoice.yaml")
    return Reference(
        directory,
        config,
        load_flow(directory, config.flow),
        load_hift(directory, config.hift),
        fixtures_dir / "expected",
        fixtures_dir / "wavs",
    )


def tensor(array: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(array)


def distance(ours: Tensor, theirs: NDArray[np.generic]) -> float:
    assert tuple(ours.shape) == theirs.shape
    return float((ours - tensor(theirs)).abs().max())


class FlowCase(NamedTuple):
    name: str
    arrays: dict[str, NDArray[np.generic]]

    @property
    def tokens(self) -> Tensor:
        return tensor(np.concatenate([self.arrays["prompt_token"], self.arrays["token"]], axis=1))

    @property
    def positions(self) -> Tensor:
        """Prompt tokens stretched over the prompt's mel, the others over the rest."""
        prompt, rest = self.arrays["prompt_token"].shape[1], self.arrays["token"].shape[1]
        known = self.arrays["prompt_feat"].shape[1]
        new = self.arrays["encoder_h_proj_regulated"].shape[1] - known
        return torch.cat(
            [
                token_positions(0, known, prompt, prompt / max(known, 1)),
                prompt + token_positions(0, new, rest, rest / new),
            ]
        )


def flow_cases(reference: Reference) -> Iterator[FlowCase]:
    arrays = reference.arrays("flow")
    for name in sorted({key.split("/")[0] for key in arrays if key.endswith("/token")}):
        yield FlowCase(
            name, {k.removeprefix(f"{name}/"): v for k, v in arrays.items() if k.startswith(name)}
        )


def test_encoder_output_is_the_references(reference: Reference) -> None:
    for case in flow_cases(reference):
        hidden = reference.flow.encode(case.tokens)
        assert distance(hidden, case.arrays["encoder_h"]) < FLOW_TOLERANCE, case.name


def test_regulated_mel_estimate_is_the_references(reference: Reference) -> None:
    for case in flow_cases(reference):
        mu = reference.flow.estimate(case.tokens, case.positions)
        expected = case.arrays["encoder_h_proj_regulated"]
        assert distance(mu.transpose(1, 2), expected) < FLOW_TOLERANCE, case.name


def test_published_frame_count_follows_from_the_configured_rate(reference: Reference) -> None:
    flow, mel = reference.config.flow, reference.config.feat_extractor
    for case in flow_cases(reference):
        seconds = case.arrays["token"].shape[1] / flow.input_frame_rate
        frames = int(seconds * mel.sampling_rate / mel.hop_size)
        assert case.arrays["mel"].shape[2] == frames, case.name


def test_euler_times_are_the_references(reference: Reference) -> None:
    for case in flow_cases(reference):
        expected = case.arrays["t_span"]
        assert distance(cosine_times(len(expected))[:-1].float(), expected) < FLOW_TOLERANCE


def test_one_estimator_call_is_the_references(reference: Reference) -> None:
    for case in flow_cases(reference):
        calls = sorted({k.split("/")[0] for k in case.arrays if k.startswith("est")})
        assert calls
        for call in calls:
            x, mu, t, speaker, cond = (
                tensor(case.arrays[f"{call}/{key}"]) for key in ("x", "mu", "t", "spks", "cond")
            )
            velocity = reference.flow.decoder.estimator(x, mu, t, speaker, cond)
            assert distance(velocity, case.arrays[f"{call}/out"]) < FLOW_TOLERANCE, case.name


def test_mel_with_the_given_noise_is_the_references(reference: Reference) -> None:
    for case in flow_cases(reference):
        noise = tensor(case.arrays["z"])
        known = case.arrays["prompt_feat"].shape[1]
        cond = torch.zeros_like(noise)
        cond[:, :, :known] = tensor(case.arrays["prompt_feat"]).transpose(1, 2)
        mel = reference.flow.sample(
            reference.flow.estimate(case.tokens, case.positions),
            noise,
            reference.flow.speaker(tensor(case.arrays["embedding"])),
            cond,
            steps=len(case.arrays["t_span"]),
        )
        assert distance(mel[:, :, known:], case.arrays["mel"]) < MEL_TOLERANCE, case.name


def test_f0_is_the_references(reference: Reference) -> None:
    arrays = reference.arrays("hift")
    assert distance(reference.hift.f0(tensor(arrays["mel"])), arrays["f0"]) < F0_TOLERANCE


def test_spectrum_is_the_references(reference: Reference) -> None:
    arrays = reference.arrays("hift")
    magnitude, phase = reference.hift.spectrum(tensor(arrays["mel"]), tensor(arrays["s"]))
    assert distance(magnitude, arrays["magnitude"]) < WAVE_TOLERANCE
    assert distance(phase, arrays["phase"]) < WAVE_TOLERANCE


@pytest.mark.parametrize(
    ("mel", "source", "wave"), [("mel", "s", "wav"), ("flow_mel", "flow_s", "flow_wav")]
)
def test_wave_with_the_given_source_is_the_references(
    reference: Reference, mel: str, source: str, wave: str
) -> None:
    arrays = reference.arrays("hift")
    ours = reference.hift.decode(tensor(arrays[mel]), tensor(arrays[source]))
    assert distance(ours, arrays[wave]) < WAVE_TOLERANCE


def silent_source(hift: Hift, f0: Tensor) -> Tensor:
    """The harmonic source without noise and without random phases."""
    harmonics = hift.config.nb_harmonics + 1
    samples = f0.shape[1] * hift.config.samples_per_frame
    source, _ = hift.source(
        f0,
        torch.zeros(1, dtype=torch.float64),
        torch.zeros(1, harmonics),
        torch.zeros(1, harmonics, samples),
    )
    return source


def test_harmonic_source_is_the_references(reference: Reference) -> None:
    arrays = reference.arrays("hift")
    for f0, expected in (("f0", "s_zero_noise"), ("f0_manual", "s_manual_zero_noise")):
        ours = silent_source(reference.hift, tensor(arrays[f0]))
        assert distance(ours, arrays[expected]) < SOURCE_TOLERANCE, f0


def test_wave_from_its_own_source_is_the_references(reference: Reference) -> None:
    arrays = reference.arrays("hift")
    mel = tensor(arrays["mel"])
    for f0, expected in (
        (reference.hift.f0(mel), "wav_zero_noise"),
        (tensor(arrays["f0_manual"]), "wav_manual"),
    ):
        ours = reference.hift.decode(mel, silent_source(reference.hift, f0))
        assert distance(ours, arrays[expected]) < OWN_SOURCE_TOLERANCE, expected


def test_cached_source_at_the_head_is_the_references(reference: Reference) -> None:
    arrays = reference.arrays("hift")
    source, cache = tensor(arrays["s"]).clone(), tensor(arrays["cache_source"])
    source[:, :, : cache.shape[2]] = cache
    ours = reference.hift.decode(tensor(arrays["mel"]), source)
    assert distance(ours, arrays["wav_cache_source"]) < WAVE_TOLERANCE


def test_prompts_are_resampled_as_the_reference_does(reference: Reference) -> None:
    arrays = reference.arrays("frontend")
    names = {"out16k": 16_000, "out22k": reference.config.feat_extractor.sampling_rate}
    checked = 0
    for key in arrays:
        name, _, kind = key.rpartition("_")
        if kind in names:
            rate = int(name.removeprefix("resample_"))
            ours = Resample(rate, names[kind])(tensor(arrays[f"{name}_in"]))
            assert distance(ours, arrays[key]) < RESAMPLE_TOLERANCE, key
            checked += 1
    assert checked


def test_a_voice_made_from_a_recording_is_the_references(reference: Reference) -> None:
    arrays = reference.arrays("flow")
    wave, rate = soundfile.read(
        reference.wavs / f"{arrays['feat22k_clip'].item()}.wav", dtype="float32"
    )
    voice = make_voice(
        "clip",
        wave,
        rate,
        lambda heard: [],
        reference.config,
        reference.directory / "campplus.onnx",
    )
    assert tuple(voice.mel[None].shape) == arrays["prompt_mel_full"].shape
    # Above 7 kHz little is left after resampling; there a float32 wave's own rounding is a part in
    # a thousand of some bins, in the reference as here.
    apart = (voice.mel[None] - tensor(arrays["prompt_mel_full"])).abs().flatten()
    assert float(apart.quantile(0.999)) < MEL_TOLERANCE
    assert float(apart.mean()) < FLOW_TOLERANCE
    assert distance(voice.embedding[None], arrays["campplus_embedding"]) < FLOW_TOLERANCE
    features = tensor(speaker_features(wave))
    assert distance(features, arrays["campplus_fbank_meansub"]) < FBANK_TOLERANCE


def test_the_published_streaming_scheme_is_the_references(reference: Reference) -> None:
    """The baseline that our streaming is measured against is really the published one."""
    arrays = reference.arrays("vocoder_stream")
    count, known = arrays["prompt_token"].shape[1], arrays["prompt_feat"].shape[1]
    prompt = Prompt(
        tensor(arrays["prompt_token"])[0],
        token_positions(0, known, count, count / known),
        tensor(arrays["prompt_feat"])[0].T,
        reference.flow.speaker(tensor(arrays["embedding"]))[0],
    )
    steps = len(reference.arrays("flow")["a/t_span"])
    for case in sorted({key.split("/")[0] for key in arrays if "/c0/" in key}):
        calls = published_stream.speak(
            reference.flow,
            reference.hift,
            prompt,
            arrays["token"][0].tolist(),
            lambda call, frames, case=case: tensor(arrays[f"{case}/c{call}/z"]),
            hop_tokens=int(arrays["hop"]),
            keep=int(case.removeprefix("k")),
            steps=steps,
        )
        assert len(calls) == int(arrays[f"{case}/n_calls"])
        for i, call in enumerate(calls):
            at = f"{case}/c{i}"
            assert distance(call.flow_mel, arrays[f"{at}/flow_mel"]) < STREAM_MEL_TOLERANCE, at
            assert distance(call.mel, arrays[f"{at}/mel_in"]) < STREAM_MEL_TOLERANCE, at
            assert distance(call.sound[None], arrays[f"{at}/wav"]) < STREAM_WAVE_TOLERANCE, at
