"""The tokenizers against the published reference's outputs, for whatever recordings are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch
from bundles import fixture_bundle

from aqaa.models.bundle import Bundle, load_bundle, nano_path
from aqaa.server.audio.wire import Resampler
from aqaa.tokenizers.dual import DualTokenizer
from aqaa.tokenizers.features import kaldi_fbank, whisper_log_mel
from aqaa.tokenizers.funasr_encoder import CHUNK_FRAMES, REMEMBERED_FRAMES, EncoderChunk
from aqaa.tokenizers.interleave import deinterleave, interleave
from aqaa.tokenizers.normalise import peak_normalise, prepare, trim_silence
from aqaa.tokenizers.semantic_network import MelWindow, SemanticNetwork


@pytest.fixture(scope="module")
def bundle(fixtures_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(fixture_bundle(tmp_path_factory.mktemp("bundle"), fixtures_dir))


@pytest.fixture(scope="module")
def dual(bundle: Bundle) -> DualTokenizer:
    return DualTokenizer.load(bundle)


@pytest.fixture(scope="module")
def recordings(fixtures_dir: Path) -> dict[str, np.ndarray]:
    """Every recording by its name, float32 16 kHz mono."""
    found = {}
    for path in sorted((fixtures_dir / "wavs").glob("*.wav")):
        samples, rate = soundfile.read(path, dtype="float32")
        assert rate == 16_000
        found[path.stem] = samples
    assert found
    return found


@pytest.fixture(scope="module")
def expected(fixtures_dir: Path) -> Any:
    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(fixtures_dir / "expected" / f"{name}.npz") as arrays:
            return dict(arrays)

    return load


def test_linguistic_codes_equal_the_reference(dual, recordings, expected) -> None:
    tokens = expected("tokens")
    for name, wav in recordings.items():
        codes = dual.linguistic.encode(wav)
        assert codes.dtype == np.int32
        np.testing.assert_array_equal(codes, tokens[f"{name}/vq02"], err_msg=name)


def test_semantic_codes_equal_the_reference(dual, recordings, expected) -> None:
    tokens = expected("tokens")
    for name, wav in recordings.items():
        codes = dual.semantic.encode(wav)
        assert codes.dtype == np.int32
        np.testing.assert_array_equal(codes, tokens[f"{name}/vq06"], err_msg=name)


def test_normalised_codes_equal_the_chat_path(dual, recordings, expected) -> None:
    tokens = expected("tokens")
    for name, wav in recordings.items():
        scaled = prepare(wav, normalise=True, trim=False)
        linguistic = dual.linguistic.encode(scaled)
        semantic = dual.semantic.encode(scaled)
        np.testing.assert_array_equal(linguistic, tokens[f"{name}/chat_vq02"], err_msg=name)
        np.testing.assert_array_equal(semantic, tokens[f"{name}/chat_vq06"], err_msg=name)


def test_trimmed_codes_equal_the_voice_prompt_path(dual, recordings, expected) -> None:
    tokens = expected("tokens")
    for name, wav in recordings.items():
        trimmed = prepare(wav, normalise=True, trim=True)
        linguistic = dual.linguistic.encode(trimmed)
        semantic = dual.semantic.encode(trimmed)
        assert trimmed.size == tokens[f"{name}/trim_len"], name
        np.testing.assert_array_equal(linguistic, tokens[f"{name}/trim_vq02"], err_msg=name)
        np.testing.assert_array_equal(semantic, tokens[f"{name}/trim_vq06"], err_msg=name)
        ids = interleave(linguistic.tolist(), semantic.tolist(), dual.audio_offset)
        np.testing.assert_array_equal(ids, tokens[f"{name}/trim_ids"], err_msg=name)


def test_interleaved_ids_equal_the_chat_path(dual, recordings, expected) -> None:
    tokens = expected("tokens")
    for name, wav in recordings.items():
        np.testing.assert_array_equal(dual.encode(wav), tokens[f"{name}/chat_ids"], err_msg=name)


def test_linguistic_stream_equals_the_references_own_sessions(dual, recordings, expected) -> None:
    tokens = expected("tokens")
    for name, wav in recordings.items():
        for hop in (3840, 1600, 5000):
            stream = dual.linguistic.stream()
            parts = [stream.push(wav[i : i + hop]) for i in range(0, wav.size, hop)]
            codes = np.concatenate([*parts, stream.flush()])
            key = f"{name}/vq02_stream{hop}"
            np.testing.assert_array_equal(codes, tokens[key], err_msg=key)


def test_linguistic_stream_is_never_later_than_the_reference(dual, recordings, expected) -> None:
    tokens = expected("tokens")
    for name, wav in recordings.items():
        unfinished = tokens[f"{name}/vq02_notfinal"]
        codes = dual.linguistic.stream().push(wav)
        np.testing.assert_array_equal(codes[: unfinished.size], unfinished, err_msg=name)


def test_every_mixing_case_interleaves_as_the_reference(expected) -> None:
    cases = expected("interleave_sampling")
    for i in range(int(cases["mix_count"])):
        linguistic, semantic = cases[f"mix{i}/vq02"], cases[f"mix{i}/vq06"]
        ids = interleave(linguistic.tolist(), semantic.tolist(), 65_536)
        np.testing.assert_array_equal(ids, cases[f"mix{i}/ids"])
        text = "".join(f"<audio_{token - 65_536}>" for token in ids)
        assert text == str(cases[f"mix{i}/string"])
        groups = len(ids) // 5
        first, second = deinterleave(ids, 65_536)
        np.testing.assert_array_equal(first, linguistic[: 2 * groups])
        np.testing.assert_array_equal(second, semantic[: 3 * groups])


def test_filterbank_and_stacked_features_agree(dual, recordings, expected) -> None:
    reference = expected("paraformer_features")
    wav = recordings[str(reference["clip"])]
    fbank = kaldi_fbank(wav)
    np.testing.assert_allclose(fbank, reference["fbank"], atol=1e-3)
    padded = np.concatenate([fbank[:1]] * 3 + [fbank] + [fbank[-1:]] * 6)
    rows = reference["lfr_cmvn"].shape[0]
    stacked = np.stack([padded[6 * k : 6 * k + 7].reshape(-1) for k in range(rows)])
    cmvn = dual.linguistic.cmvn
    np.testing.assert_allclose(
        (stacked + cmvn.shift) * cmvn.scale, reference["lfr_cmvn"], atol=1e-3
    )


def test_encoder_outputs_agree(dual, expected) -> None:
    reference = expected("paraformer_features")
    encoder = dual.linguistic.encoder
    state = encoder.initial_state()
    start = 0
    for length in reference["chunk_lens"]:
        frames = torch.from_numpy(reference["lfr_cmvn"][start : start + length])
        (encoded,) = encoder.run([EncoderChunk(frames, state)])
        state = encoded.after
        out = encoded.states.numpy()[-length:]
        np.testing.assert_allclose(out, reference["enc_out"][start : start + length], atol=2e-3)
        start += length
    assert start == len(reference["enc_out"])


def test_encoder_windows_and_caches_agree_chunk_by_chunk(dual, expected) -> None:
    reference = expected("paraformer_chunks")
    encoder = dual.linguistic.encoder
    state = encoder.initial_state()
    chunks = sum(key.startswith("in") for key in reference)
    assert chunks
    for i in range(chunks):
        frames = torch.from_numpy(reference[f"in{i}"])
        (encoded,) = encoder.run([EncoderChunk(frames, state)])
        np.testing.assert_allclose(encoded.states, reference[f"window_out{i}"], atol=2e-3)
        if len(frames) == CHUNK_FRAMES:  # a short chunk is the last: nothing goes on from it
            state = encoded.after
            np.testing.assert_allclose(state.window, reference[f"cache_feats{i}"], atol=2e-3)
            keys = state.memory[0, 0, :, REMEMBERED_FRAMES - state.remembered :]
            np.testing.assert_allclose(keys, reference[f"layer0_k{i}"], atol=2e-3)
            assert state.frames == reference[f"start_idx{i}"]


def test_log_mel_agrees(recordings, expected) -> None:
    reference = expected("semantic_features")
    wav = recordings[str(reference["clip"])]
    np.testing.assert_allclose(whisper_log_mel(wav).T, reference["log_mel"], atol=1e-4)


def test_semantic_codes_of_the_references_own_features_are_equal(dual, expected) -> None:
    reference = expected("semantic_features")
    window = MelWindow(np.ascontiguousarray(reference["log_mel"].T), 0)
    (codes,) = dual.semantic.network.run([window])
    np.testing.assert_array_equal(codes, reference["codes"])


def started_at(path: Path, start: int) -> onnxruntime.InferenceSession:
    """The file's own graph, its table of positions moved so that a window begins at `start`."""
    model = onnx.load(path)
    table = next(t for t in model.graph.initializer if t.name == "encoders.positional_embedding")
    rows = np.roll(onnx.numpy_helper.to_array(table), -start, axis=0)
    table.CopyFrom(onnx.numpy_helper.from_array(rows, table.name))
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize("start", [0, 37, 600])
@pytest.mark.parametrize("which", ["published", "nano"])
def test_semantic_codes_equal_onnxruntimes(bundle, recordings, which: str, start: int) -> None:
    """The network read from the file against the file itself, run."""
    config = (bundle if which == "published" else load_bundle(nano_path())).tokenizer
    path = config.path / config.semantic
    session, network = started_at(path, start), SemanticNetwork.load(path)
    mel, length = (value.name for value in session.get_inputs())
    windows = [MelWindow(whisper_log_mel(wav[: 3 * 16_000]), start) for wav in recordings.values()]
    windows += [MelWindow(windows[0].mel[:count], start) for count in (3, 24, 25, 101)]
    for window, codes in zip(windows, network.run(windows), strict=True):
        feats = np.ascontiguousarray(window.mel.T)[None]
        (theirs,) = session.run(None, {mel: feats, length: np.array([len(window.mel)], np.int32)})
        np.testing.assert_array_equal(codes, theirs.reshape(-1))


def test_normalised_and_trimmed_waves_agree(recordings, expected) -> None:
    reference = expected("frontend")
    wav = recordings[str(reference["clip"])]
    normalised = peak_normalise(wav)
    np.testing.assert_allclose(normalised, reference["norm"], atol=1e-6)
    np.testing.assert_allclose(trim_silence(normalised), reference["norm_trim"], atol=1e-6)


@pytest.mark.deep
def test_trimming_agrees_with_librosa_on_every_recording(recordings) -> None:
    librosa = pytest.importorskip("librosa", reason="librosa is only here to compare with")
    from aqaa.tokenizers.normalise import loud_span

    for name, wav in recordings.items():
        _, span = librosa.effects.trim(wav, top_db=20, frame_length=512, hop_length=128)
        assert loud_span(wav) == tuple(span), name


def test_resampling_agrees_with_torchaudio_to_40_db_below_7_khz(expected) -> None:
    reference = expected("frontend")
    targets = {"out16k": 16_000, "out22k": 22_050}
    seen = 0
    for key in reference:
        if not (key.startswith("resample_") and key.rpartition("_")[2] in targets):
            continue
        _, source, target = key.split("_")
        ours = Resampler(int(source), targets[target]).push(
            reference[f"resample_{source}_in"], last=True
        )
        theirs = reference[key]
        assert ours.size == theirs.size, key
        window = np.hanning(theirs.size)  # the two filters meet the ends differently
        spectra = [np.fft.rfft(window * wave) for wave in (ours - theirs, theirs)]
        low = np.fft.rfftfreq(theirs.size, 1 / targets[target]) < 7_000
        error, signal = (np.sum(np.abs(spectrum[low]) ** 2) for spectrum in spectra)
        assert 10 * np.log10(signal / error) > 40, key
        seen += 1
    assert seen
