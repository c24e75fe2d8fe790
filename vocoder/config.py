"""`cosyvoice.yaml`, the published description of the vocoder, read without running any of it.

The file is HyperPyYAML: its `!new:`, `!name:` and `!apply:` tags name Python objects to build. Here
a tag is only skipped and its arguments kept, `!ref <key>` is looked up, and what the arguments say
is checked against what this vocoder implements.
"""

from __future__ import annotations

import re
from math import ceil, prod
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from aqaa.models.errors import BundleError
from aqaa.models.groups import AUDIO_CODES
from aqaa.models.weights import require_file


class CosyVoiceSection(BaseModel):
    """A block of the file. Keys that do not change the sound of inference are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class EncoderConfig(CosyVoiceSection):
    """`flow.encoder`: a conformer without convolution or macaron, relative positions."""

    input_size: int = Field(gt=0)
    output_size: int = Field(gt=0)
    attention_heads: int = Field(gt=0)
    linear_units: int = Field(gt=0)
    num_blocks: int = Field(ge=0)
    dropout_rate: float = Field(default=0.1, ge=0.0, lt=1.0)
    normalize_before: Literal[True] = True
    input_layer: Literal["linear"] = "linear"
    pos_enc_layer_type: Literal["rel_pos_espnet"] = "rel_pos_espnet"
    selfattention_layer_type: Literal["rel_selfattn"] = "rel_selfattn"
    use_cnn_module: Literal[False] = False
    macaron_style: Literal[False] = False

    @model_validator(mode="after")
    def _heads_divide(self) -> EncoderConfig:
        if self.output_size % self.attention_heads or self.output_size % 2:
            raise ValueError("output_size must be even and a multiple of attention_heads")
        return self


class RegulatorConfig(CosyVoiceSection):
    """`flow.length_regulator`: one 3-tap convolution block for every sampling ratio."""

    channels: int = Field(gt=0)
    sampling_ratios: list[Literal[1]]


class CfmParams(CosyVoiceSection):
    """`flow.decoder.cfm_params`: the solver, and the guidance it is trained for and run with."""

    sigma_min: float = 1e-6
    solver: Literal["euler"] = "euler"
    t_scheduler: Literal["cosine"] = "cosine"
    training_cfg_rate: float = Field(default=0.2, ge=0.0, le=1.0)
    inference_cfg_rate: float = Field(default=0.7, ge=0.0)


class EstimatorConfig(CosyVoiceSection):
    """`flow.decoder.estimator`: the 1-D U-Net."""

    in_channels: int = Field(gt=0)
    out_channels: int = Field(gt=0)
    channels: list[int] = Field(min_length=1)
    attention_head_dim: int = Field(gt=0)
    n_blocks: int = Field(ge=0)
    num_mid_blocks: int = Field(ge=0)
    num_heads: int = Field(gt=0)
    act_fn: Literal["gelu"] = "gelu"


class MatchingConfig(CosyVoiceSection):
    """`flow.decoder`: conditional flow matching around the estimator."""

    cfm_params: CfmParams
    estimator: EstimatorConfig


class FlowConfig(CosyVoiceSection):
    """`flow`: audio tokens to mel frames."""

    input_size: int = Field(gt=0)
    output_size: int = Field(gt=0)
    spk_embed_dim: int = Field(gt=0)
    vocab_size: int = Field(ge=AUDIO_CODES)
    input_frame_rate: float = Field(gt=0.0)
    encoder: EncoderConfig
    length_regulator: RegulatorConfig
    decoder: MatchingConfig

    @model_validator(mode="after")
    def _parts_fit(self) -> FlowConfig:
        estimator = self.decoder.estimator
        if self.encoder.input_size != self.input_size:
            raise ValueError("flow.input_size and flow.encoder.input_size must be equal")
        if (
            estimator.out_channels != self.output_size
            or estimator.in_channels != 4 * self.output_size
        ):
            raise ValueError("the estimator takes 4 x output_size channels and gives output_size")
        if self.length_regulator.channels != self.output_size:
            raise ValueError("flow.length_regulator.channels must be flow.output_size")
        return self


class IstftParams(CosyVoiceSection):
    """`hift.istft_params`, in samples."""

    n_fft: int = Field(gt=0)
    hop_len: int = Field(gt=0)


class F0Config(CosyVoiceSection):
    """`hift.f0_predictor`."""

    num_class: Literal[1] = 1
    in_channels: int = Field(gt=0)
    cond_channels: int = Field(gt=0)


class HiftConfig(CosyVoiceSection):
    """`hift`: mel frames to a wave, through a harmonic source and an inverse STFT."""

    in_channels: int = Field(gt=0)
    base_channels: int = Field(gt=0)
    nb_harmonics: int = Field(ge=0)
    sampling_rate: int = Field(gt=0)
    nsf_alpha: float = 0.1
    nsf_sigma: float = 0.003
    nsf_voiced_threshold: float = 10.0
    upsample_rates: list[int] = Field(min_length=1)
    upsample_kernel_sizes: list[int]
    istft_params: IstftParams
    resblock_kernel_sizes: list[int] = Field(min_length=1)
    resblock_dilation_sizes: list[list[int]]
    source_resblock_kernel_sizes: list[int]
    source_resblock_dilation_sizes: list[list[int]]
    lrelu_slope: float = 0.1
    audio_limit: float = 0.99
    f0_predictor: F0Config

    @model_validator(mode="after")
    def _stages_fit(self) -> HiftConfig:
        stages = len(self.upsample_rates)
        if len(self.upsample_kernel_sizes) != stages:
            raise ValueError("upsample_kernel_sizes needs one entry a stage of upsample_rates")
        if len(self.source_resblock_kernel_sizes) != stages:
            raise ValueError("source_resblock_kernel_sizes needs one entry a stage")
        if len(self.source_resblock_dilation_sizes) != stages:
            raise ValueError("source_resblock_dilation_sizes needs one entry a stage")
        if len(self.resblock_dilation_sizes) != len(self.resblock_kernel_sizes):
            raise ValueError("resblock_dilation_sizes needs one entry a kernel")
        return self

    @property
    def samples_per_frame(self) -> int:
        """Samples of wave for one mel frame: 256 as published."""
        return prod(self.upsample_rates) * self.istft_params.hop_len

    @property
    def receptive_frames(self) -> int:
        """Mel frames on either side that a sample depends on: beyond them, context changes nothing.

        The sum of the half-widths of every layer on the longest way, each in frames.
        """
        rate, widest = 1.0, 3.0  # conv_pre: 7 taps
        for i, (step, kernel) in enumerate(
            zip(self.upsample_rates, self.upsample_kernel_sizes, strict=True)
        ):
            widest += kernel / 2 / step / rate
            rate *= step
            joining = _half_width(
                self.source_resblock_kernel_sizes[i], self.source_resblock_dilation_sizes[i]
            )
            branches = max(
                _half_width(k, d)
                for k, d in zip(
                    self.resblock_kernel_sizes, self.resblock_dilation_sizes, strict=True
                )
            )
            widest = max(widest, (1 + joining) / rate) + branches / rate  # 1: source_downs
        params = self.istft_params
        return ceil(widest + 3.0 / rate + 2 * params.n_fft / 2 / params.hop_len / rate)


class MelConfig(CosyVoiceSection):
    """`feat_extractor`: the log-mel that voices are described in."""

    n_fft: int = Field(gt=0)
    num_mels: int = Field(gt=0)
    sampling_rate: int = Field(gt=0)
    hop_size: int = Field(gt=0)
    win_size: int = Field(gt=0)
    fmin: float = 0.0
    fmax: float | None = None
    center: Literal[False] = False


def _half_width(kernel: int, dilations: list[int]) -> float:
    """Of a residual block in samples: a dilated and a plain convolution for each dilation."""
    return sum((kernel - 1) / 2 * (dilation + 1) for dilation in dilations)


class CosyVoiceConfig(CosyVoiceSection):
    """What this vocoder uses of `cosyvoice.yaml`; the published file's other blocks are ignored."""

    flow: FlowConfig
    hift: HiftConfig
    feat_extractor: MelConfig

    @model_validator(mode="after")
    def _mels_agree(self) -> CosyVoiceConfig:
        mel = self.feat_extractor
        if not (mel.num_mels == self.flow.output_size == self.hift.in_channels):
            raise ValueError("flow, hift and feat_extractor must agree on the number of mels")
        if self.hift.f0_predictor.in_channels != mel.num_mels:
            raise ValueError("hift.f0_predictor.in_channels must be the number of mels")
        if self.hift.sampling_rate != mel.sampling_rate:
            raise ValueError("hift and feat_extractor must agree on the sampling rate")
        if self.hift.samples_per_frame != mel.hop_size:
            raise ValueError(
                f"hift makes {self.hift.samples_per_frame} samples a frame, "
                f"feat_extractor hops by {mel.hop_size}"
            )
        return self


def load_config(path: Path) -> CosyVoiceConfig:
    """Read a `cosyvoice.yaml`.

    Raises:
        BundleError: missing, unreadable, or describing a network that is not this one.
    """
    require_file(path, "the vocoder's description (cosyvoice.yaml)")
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_TagBlindLoader)
        if not isinstance(data, dict):
            raise BundleError(f"{path} holds no mapping: it is not a cosyvoice.yaml")
        return CosyVoiceConfig.model_validate(_resolve(data, data))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(top)'}: {e['msg']}" for e in error.errors()]
        raise BundleError(f"{path} describes another network:\n" + "\n".join(lines)) from error


class _Reference(str):
    """The text of a `!ref`."""


class _TagBlindLoader(yaml.SafeLoader):
    """A SafeLoader for which every `!local` tag is an annotation; `!!python` stays an error."""


def _construct(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    if isinstance(node, yaml.ScalarNode):
        text = loader.construct_scalar(node)
        return _Reference(text) if suffix == "ref" else text
    raise yaml.constructor.ConstructorError(None, None, "unknown kind of node", node.start_mark)


_TagBlindLoader.add_multi_constructor("!", _construct)


def _resolve(value: Any, top: dict[str, Any]) -> Any:
    """`value` with references to plain top-level keys replaced, and DictConfig opened."""
    if isinstance(value, _Reference):
        whole = re.fullmatch(r"<(\w+)>", value.strip())
        target = top.get(whole.group(1)) if whole else None
        return target if isinstance(target, int | float | bool) else str(value)
    if isinstance(value, dict):
        if set(value) == {"content"}:  # omegaconf.DictConfig's one argument
            value = value["content"]
        return {key: _resolve(item, top) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, top) for item in value]
    return value
