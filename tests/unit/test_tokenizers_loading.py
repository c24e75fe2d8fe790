"""Tokenizer files that are missing, damaged or of another kind are named; nothing is guessed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_tokenizers
import pytest
import torch
from bundles import fixture_bundle

from aqaa.models.bundle import TokenizerConfig, load_bundle
from aqaa.models.errors import AudioError, BundleError
from aqaa.tokenizers.linguistic import LinguisticTokenizer
from aqaa.tokenizers.semantic import SemanticTokenizer


@pytest.fixture
def config(fixtures_dir: Path, tmp_path: Path) -> TokenizerConfig:
    """A copy of the published folder that a test may damage."""
    original = load_bundle(fixture_bundle(tmp_path / "original", fixtures_dir)).tokenizer
    shutil.copytree(original.path, tmp_path / "copy")
    for directory in [tmp_path / "copy", *(tmp_path / "copy").rglob("*")]:
        directory.chmod(0o755)
    return original.model_copy(update={"path": tmp_path / "copy"})


def paraformer(config: TokenizerConfig, name: str) -> Path:
    return config.path / config.linguistic / name


@pytest.mark.parametrize("name", ["config.yaml", "model.pt", "am.mvn"])
def test_a_missing_or_empty_paraformer_file_is_named(config: TokenizerConfig, name: str) -> None:
    path = paraformer(config, name)
    path.write_bytes(b"")
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        LinguisticTokenizer.load(config)
    path.unlink()
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        LinguisticTokenizer.load(config)


@pytest.mark.parametrize("name", ["config.yaml", "model.pt", "am.mvn"])
def test_a_damaged_paraformer_file_is_named(config: TokenizerConfig, name: str) -> None:
    path = paraformer(config, name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] + b"\xff\xfe[")
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        LinguisticTokenizer.load(config)


def test_a_pickle_of_code_is_refused_and_not_run(config: TokenizerConfig, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"encoder.x": Trap()}, paraformer(config, "model.pt"))
    with pytest.raises(BundleError, match=r"model\.pt"):
        LinguisticTokenizer.load(config)
    assert not (tmp_path / "sprung").exists()


def test_a_checkpoint_that_lacks_a_tensor_names_it(config: TokenizerConfig) -> None:
    path = paraformer(config, "model.pt")
    state = torch.load(path, weights_only=True)
    state.pop("encoder.after_norm.weight")
    torch.save(state, path)
    with pytest.raises(BundleError, match=r"after_norm\.weight"):
        LinguisticTokenizer.load(config)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lfr_m: 7", "lfr_m: 5", r"frontend_conf differs .*lfr_m"),
        ("encoder: SANMEncoderChunkOpt", "encoder: ConformerEncoder", "SANMEncoderChunkOpt"),
        ("input_layer: pe_online", "input_layer: conv2d", "pe_online"),
        ("linear_units: 128", "linear_united: 128", "linear_united"),
    ],
    ids=["other features", "other encoder", "other positions", "unknown key"],
)
def test_a_config_of_another_model_is_refused(config, old, new, message) -> None:
    path = paraformer(config, "config.yaml")
    text = path.read_text()
    if old not in text:
        pytest.skip(f"these fixtures have no line {old!r}")
    path.write_text(text.replace(old, new))
    with pytest.raises(BundleError, match=message):
        LinguisticTokenizer.load(config)


def test_a_codebook_of_other_shape_or_kind_is_named(config: TokenizerConfig) -> None:
    path = config.path / config.linguistic_codebook
    width = np.load(path).shape[1]
    np.save(path, np.zeros((1024, width + 1), np.float32))
    with pytest.raises(BundleError, match=rf"needs \[1024, {width}\]"):
        LinguisticTokenizer.load(config)
    path.write_bytes(b"\x93NUMPY\x01\x00 damaged")
    with pytest.raises(BundleError, match=path.name):
        LinguisticTokenizer.load(config)


def test_a_damaged_or_missing_onnx_file_is_named(config: TokenizerConfig) -> None:
    path = config.path / config.semantic
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BundleError, match=path.name):
        SemanticTokenizer.load(config)
    path.unlink()
    with pytest.raises(BundleError, match=path.name):
        SemanticTokenizer.load(config)


def test_an_onnx_file_with_other_inputs_is_refused_with_its_inputs_shown(config, fixtures_dir):
    other = fixtures_dir / "checkpoints" / "CosyVoice-300M-25Hz" / "campplus.onnx"
    shutil.copyfile(other, config.path / config.semantic)
    with pytest.raises(BundleError, match=r"takes \(input float.*; the semantic tokenizer takes"):
        SemanticTokenizer.load(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mel_bins": 80}, "takes 128 mel bins"),
        ({"positions": 100}, "100 positions; a segment has 750"),
    ],
    ids=["80 mel bins", "short table"],
)
def test_an_onnx_file_of_other_dimensions_is_refused(config, change, message) -> None:
    onnx_tokenizers.write_local(config.path / config.semantic, **change)
    with pytest.raises(BundleError, match=message):
        SemanticTokenizer.load(config)


def test_an_onnx_file_with_another_number_of_codes_is_refused(config: TokenizerConfig) -> None:
    path = config.path / config.semantic
    onnx_tokenizers.write_random(path, width=32, heads=2, blocks=1, codes=100)
    with pytest.raises(BundleError, match="has 100 codes"):
        SemanticTokenizer.load(config)


@pytest.mark.parametrize(
    "lost",
    [
        "encoders.conv2.weight",
        "/blocks.0/attn/key/MatMul.weight",
        "/blocks.0/attn/Div.weight",
        "codebook",
    ],
)
def test_an_onnx_file_that_lacks_a_weight_is_refused(config: TokenizerConfig, lost: str) -> None:
    path = onnx_tokenizers.write_local(config.path / config.semantic)
    model = onnx.load(path)
    model.graph.initializer.remove(next(t for t in model.graph.initializer if t.name == lost))
    onnx.save(model, path)
    with pytest.raises(BundleError, match=r"not CosyVoice-1\.0's"):
        SemanticTokenizer.load(config)


def test_empty_audio_is_refused(config: TokenizerConfig) -> None:
    for tokenizer in (LinguisticTokenizer.load(config), SemanticTokenizer.load(config)):
        with pytest.raises(AudioError, match="empty"):
            tokenizer.encode(np.empty(0, np.float32))


def test_loading_the_encoder_does_not_import_funasr_itself(config: TokenizerConfig) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from aqaa.models.bundle import TokenizerConfig\n"
        "from aqaa.tokenizers.linguistic import LinguisticTokenizer\n"
        f"LinguisticTokenizer.load(TokenizerConfig(path=Path({str(config.path)!r})))\n"
        "assert 'funasr.models.scama.encoder' in sys.modules\n"
        "assert 'funasr' not in sys.modules\n"
        "assert not {'librosa', 'sklearn', 'modelscope', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
