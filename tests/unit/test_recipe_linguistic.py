"""The training-time encoder is FunASR's streaming encoder, computed all windows at once."""

import kaldi_native_fbank
import numpy as np
import pytest
import torch

from aqaa.recipe.linguistic.encoder import WindowedEncoder
from aqaa.recipe.linguistic.fbank import fbank, mel_filters, stack
from aqaa.tokenizers.funasr_encoder import ChunkEncoder, EncoderChunk

SETTINGS = {
    "output_size": 32,
    "attention_heads": 4,
    "linear_units": 48,
    "num_blocks": 3,
    "input_layer": "pe_online",
    "pos_enc_class": "SinusoidalPositionEncoder",
    "normalize_before": True,
    "kernel_size": 11,
    "sanm_shfit": 0,
    "selfattention_layer_type": "sanm",
}


@pytest.mark.parametrize("chunks", [1, 3, 9])
def test_windowed_encoder_equals_funasr_chunk_by_chunk(chunks: int) -> None:
    torch.manual_seed(chunks)
    ours = WindowedEncoder(560, 32, 4, 48, 3).eval()
    state = {f"encoder.{name}": tensor for name, tensor in ours.state_dict().items()}
    theirs = ChunkEncoder.load(SETTINGS, 560, state)
    features = torch.randn(1, 4 * chunks, 560)
    stream = theirs.initial_state()
    with torch.no_grad():
        whole = ours(features)[0]
    steps = []
    for part in features[0].split(4):
        (encoded,) = theirs.run([EncoderChunk(part, stream)])
        steps.append(encoded.states[-4:])
        stream = encoded.after
    torch.testing.assert_close(whole, torch.cat(steps), atol=2e-5, rtol=0)


def test_fbank_equals_kaldi() -> None:
    wave = np.random.default_rng(0).uniform(-0.3, 0.3, 3840 * 2).astype(np.float32)
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.window_type = "hamming"
    options.mel_opts.num_bins = 80
    options.energy_floor = 0
    kaldi = kaldi_native_fbank.OnlineFbank(options)
    kaldi.accept_waveform(16_000, (wave * 32768).tolist())
    expected = np.stack([kaldi.get_frame(i) for i in range(kaldi.num_frames_ready)])
    ours = fbank(torch.from_numpy(wave)[None], mel_filters())[0]
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-3)


def test_stacking_gives_four_frames_a_chunk_and_repeats_the_first_frame() -> None:
    features = torch.arange(22.0)[None, :, None].expand(1, 22, 80)
    stacked = stack(features)[0, :, ::80]
    assert stacked.tolist() == [
        [0, 0, 0, 0, 1, 2, 3],
        [3, 4, 5, 6, 7, 8, 9],
        [9, 10, 11, 12, 13, 14, 15],
        [15, 16, 17, 18, 19, 20, 21],
    ]
