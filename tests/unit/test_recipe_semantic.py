"""The exported graph is the trained network, and its stream is its whole."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from aqaa.recipe.semantic.export import build
from aqaa.recipe.semantic.network import LEFT_MS, SemanticEncoder
from aqaa.recipe.vq import Codebook


@pytest.fixture(scope="module")
def encoder() -> SemanticEncoder:
    torch.manual_seed(0)
    network = SemanticEncoder().eval()
    with torch.no_grad():  # codes among the vectors, so that nearest is not a matter of chance
        network.codebook.embed.copy_(network(torch.randn(1, 128, 4 * 1500))[0].repeat(3, 1)[:4096])
    return network


@pytest.fixture(scope="module")
def session(encoder: SemanticEncoder) -> onnxruntime.InferenceSession:
    model: onnx.ModelProto = build(encoder)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize("frames", [1, 3, 24, 25, 131, 601])
def test_onnx_gives_the_networks_tokens(
    encoder: SemanticEncoder, session: onnxruntime.InferenceSession, frames: int
) -> None:
    mel = torch.randn(1, 128, frames)
    feed = {"feats": mel.numpy(), "feats_length": np.array([frames], np.int32)}
    ids = session.run(None, feed)[0]
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, encoder.tokens(mel).numpy())


def test_a_blocks_vectors_depend_on_nothing_after_it_nor_before_its_left_context(
    encoder: SemanticEncoder,
) -> None:
    blocks, left = 20, LEFT_MS // 240
    mel = torch.randn(1, 128, 24 * blocks)
    with torch.no_grad():
        whole = encoder(mel)[0]
        for k in range(blocks):
            first = max(0, k - left)
            window = encoder(mel[:, :, 24 * first : 24 * (k + 1)], start=6 * first)[0]
            torch.testing.assert_close(window[-6:], whole[6 * k : 6 * (k + 1)], atol=1e-5, rtol=0)


def test_kmeans_finds_separate_clusters_and_codes_follow_their_members() -> None:
    torch.manual_seed(1)
    centres = torch.eye(4) * 10
    points = centres.repeat(50, 1) + 0.1 * torch.randn(200, 4)
    book = Codebook(4, 4)
    book.place(points, rounds=20)
    book.train()
    for _ in range(400):
        book(points + 1.0)
    found = book.embed[book.nearest(centres + 1.0)]
    torch.testing.assert_close(found, centres + 1.0, atol=0.2, rtol=0)
