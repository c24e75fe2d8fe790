"""The model bundle: a directory whose `aqaa.toml` names the parts and holds every number that
differs between checkpoints. Published directories are used as they are; a bundle points at them.

    my-bundle/
      aqaa.toml
      Step-Audio-Tokenizer/      or any path, absolute or relative to aqaa.toml
      decoder/                   a Step-1 Hugging Face directory
      CosyVoice-300M-25Hz/       flow.pt, hift.pt, cosyvoice.yaml
      voices/                    one file a voice
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from aqaa.models.errors import BundleError
from aqaa.models.groups import AUDIO_CODES, GROUP_TOKENS

SEMANTIC_TOKEN_MS = 40  # 25 Hz
SEMANTIC_SEGMENT_SECONDS = 30  # the published tokenizer starts afresh every 30 s
TOKENIZER_RATE = 16_000  # Hz, what both tokenizers hear
VOCODER_RATE = 22_050  # Hz, what the published vocoder speaks

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A part of `aqaa.toml`: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SemanticStreaming(Section):
    """How the semantic tokenizer, which attends to a whole utterance, is run on a stream.

    Every `chunk_ms` the window [left | chunk | right] is recomputed at its absolute positions and
    the chunk's tokens are committed. `exact` says that the checkpoint was trained chunk-causal: no
    token depends on anything after its chunk or before `left_ms` ahead of it, so a stream's tokens
    are those of the whole.
    """

    chunk_ms: Positive = 240
    left_ms: NonNegative = 3000
    right_ms: NonNegative = 240
    mel_peak: float = Field(
        default=1.2,
        description="log10 mel power of loud speech: where the running maximum starts that stands "
        "in for the utterance's in whisper's clamp",
    )
    exact: bool = False

    @model_validator(mode="after")
    def _windows_hold_whole_tokens(self) -> SemanticStreaming:
        for name in ("chunk_ms", "left_ms", "right_ms"):
            if getattr(self, name) % SEMANTIC_TOKEN_MS:
                raise ValueError(f"{name} must be a multiple of {SEMANTIC_TOKEN_MS} (whole tokens)")
        if self.exact and (self.right_ms or self.left_ms % self.chunk_ms):
            raise ValueError("exact needs right_ms = 0 and left_ms in whole chunks")
        return self


class TokenizerConfig(Section):
    """The Step-Audio-Tokenizer directory and how streams of it are run."""

    path: Path
    linguistic: str = (
        "dengcunqin/speech_paraformer-large_asr_nat-zh-cantonese-en-16k-vocab8501-online"
    )
    linguistic_codebook: str = "linguistic_tokenizer.npy"
    semantic: str = "speech_tokenizer_v1.onnx"
    normalise: bool = Field(
        default=True,
        description="scale whole utterances to a peak of 0.999, as the published chat path does",
    )
    stream_peak: float = Field(
        default=0.3,
        ge=0.0,
        le=1.0,
        description="streams are scaled to 0.999 by their loudest sample so far, but by no more "
        "than this peak would be; 0: not scaled (docs/streaming-tokenizers.md measures it)",
    )
    streaming: SemanticStreaming = SemanticStreaming()

    @model_validator(mode="after")
    def _exact_streams_are_not_scaled(self) -> TokenizerConfig:
        if self.streaming.exact and (self.normalise or self.stream_peak):
            raise ValueError("streaming.exact needs normalise = false and stream_peak = 0")
        return self


class TranscriberConfig(Section):
    """What makes the user's words of what the linguistic tokenizer heard and made of it.

    `paraformer`: the published recogniser's own predictor and decoder, which lie in the linguistic
    tokenizer's folder. `ctc`: a small network and a language model, in a folder of their own
    (`path`); the other fields are its alone.
    """

    kind: Literal["paraformer", "ctc"]
    path: Path = Path("transcriber")
    language_weight: float = Field(
        default=0.6, ge=0, description="of the language model's log probabilities beside the sound"
    )
    piece_bonus: float = Field(
        default=1.0, description="nats for every piece: a language model favours few"
    )


class TurnThresholds(Section):
    """Least probabilities of a turn's end; the higher they are, the fewer turns are cut off.

    A probability below `unlikely` means that the speaker will go on. `sure_ms` and `likely_ms` are
    of silence: so much ends a turn whose end is sure, or likely. The VAD is sure of a silence 96 ms
    (p95 128 ms) after it began; of the pauses in which people seem to have finished half are
    shorter than 225 ms, and few are longer than 380 ms.
    """

    sure: float = Field(ge=0.0, le=1.0)
    likely: float = Field(ge=0.0, le=1.0)
    unlikely: float = Field(ge=0.0, le=1.0)
    sure_ms: float = Field(default=225.0, gt=0)
    likely_ms: float = Field(default=380.0, gt=0)

    @model_validator(mode="after")
    def _fall(self) -> TurnThresholds:
        if not self.sure >= self.likely >= self.unlikely:
            raise ValueError("sure >= likely >= unlikely is needed")
        if self.sure_ms > self.likely_ms:
            raise ValueError("sure_ms <= likely_ms is needed")
        return self


class TurnConfig(Section):
    """The head that tells a turn's end from a pause by the audio ids (`turn_head.safetensors`).

    Its thresholds go with the client's eagerness; `auto` is `medium`. `kinds`: whether it was also
    taught to tell backchannels and noises from speech; without that their length tells them.
    """

    path: Path = Path("turn")
    kinds: bool = False
    low: TurnThresholds
    medium: TurnThresholds
    high: TurnThresholds


class TokensConfig(Section):
    """The decoder's ids: where audio begins, what the control ids are, how an answer is woven.

    An answer of the published shape is
    `[audio_start] T*text_block A*audio_block T*text_block A*audio_block ... [audio_end] eot`:
    the last text block may be short and is followed at once by its audio; when text has run out,
    audio goes on alone. Markers are optional (None: the checkpoint has none).
    """

    audio_offset: Positive = 65_536
    bos: NonNegative = 1
    eot: NonNegative = 3
    bot: NonNegative = 4
    pad: NonNegative = 0
    audio_start: NonNegative | None = None
    audio_end: NonNegative | None = None
    voice_markers: dict[str, NonNegative] = Field(
        default_factory=dict,
        description="voice name -> control id in the text stream that switches the vocoder to it",
    )
    text_block: Positive = 10
    audio_block: Positive = 15

    @model_validator(mode="after")
    def _blocks_hold_whole_groups(self) -> TokensConfig:
        if self.audio_block % GROUP_TOKENS:
            raise ValueError(f"audio_block must be a multiple of {GROUP_TOKENS} (whole groups)")
        return self

    @property
    def audio_end_id(self) -> int:
        """One past the last audio id."""
        return self.audio_offset + AUDIO_CODES


class ToolsConfig(Section):
    """How the decoder is told of functions that it may call, and how it calls them.

    A call is `[call_start] {"name":...,"arguments":{...}} [call_end]`, one line of JSON without
    spaces. The functions stand at the end of the first system turn, behind `heading`.

    signatures: in one line, as `name(parameter,optional?)`, a blank before each.
    json: a line each, `{"name":...,"description":...,"parameters":...}` as it was declared.
    """

    call_start: NonNegative
    call_end: NonNegative
    role: str = Field(default="tool", description="of a turn that holds what a function gave back")
    heading: str = "tools:"
    show: Literal["signatures", "json"] = "json"


class DecoderConfig(Section):
    """The Step-1 directory (config.json, safetensors, tokenizer.model) and how to run it."""

    path: Path
    text_tokenizer: str = "tokenizer.model"
    context: Positive = 8192
    bos_first: bool = Field(default=True, description="whether a prompt begins with the bos id")
    system_prompt: str = ""


class SamplingConfig(Section):
    """Defaults of Step-Audio's published `generate` call (SPEC: Step-Audio-Chat)."""

    temperature: float = Field(default=0.7, ge=0.0)
    top_p: float = Field(default=0.9, gt=0.0, le=1.0)
    repetition_aware: bool = False
    keep_pattern: bool = Field(
        default=False,
        description="never draw an id that breaks the woven shape of an answer; for small decoders",
    )
    max_tokens: Positive = 2048


class VocoderConfig(Section):
    """The CosyVoice directory, its flow's settings, and the streaming schedule."""

    path: Path
    steps: Positive = 10
    temperature: float = Field(default=1.0, ge=0.0, description="scale of the flow's noise")
    chunk_groups: Annotated[tuple[Positive, ...], Field(min_length=1)] = Field(
        default=(1, 1, 2, 3, 4),
        description="groups in a stream's first, second, ... chunk; the last number goes on",
    )
    lookahead_frames: NonNegative = Field(
        default=8,
        description="mel frames (11.6 ms) that a chunk holds back until the next group is known",
    )
    min_frames: Positive = Field(
        default=1,
        description="mel frames that a chunk must give; one of fewer is made one with the next",
    )
    context_groups: NonNegative = Field(
        default=2, description="groups already spoken that a chunk is computed together with"
    )


class VoicesConfig(Section):
    """The directory of voices; every file in it is one voice, named by its stem."""

    path: Path = Path("voices")
    default: str


class Bundle(Section):
    """A whole model, as `aqaa.toml` describes it. Paths are absolute once loaded."""

    name: str
    description: str = ""
    license: str = ""
    engine: Literal["auto", "embedded", "vllm", "vllm-http"] = "auto"
    tokenizer: TokenizerConfig
    tokens: TokensConfig = TokensConfig()
    transcriber: TranscriberConfig | None = Field(
        default=None, description="None: the user's words are not known"
    )
    tools: ToolsConfig | None = Field(default=None, description="None: it calls no functions")
    turn: TurnConfig | None = Field(
        default=None, description="None: a general judge, or silence, tells when a turn is over"
    )
    decoder: DecoderConfig
    sampling: SamplingConfig = SamplingConfig()
    vocoder: VocoderConfig
    voices: VoicesConfig
    root: Path = Field(default=Path(), description="where aqaa.toml lies; set by load_bundle")

    @model_validator(mode="after")
    def _calls_are_marked_by_text_ids(self) -> Bundle:
        marks = () if self.tools is None else (self.tools.call_start, self.tools.call_end)
        if len(set(marks)) != len(marks) or any(m >= self.tokens.audio_offset for m in marks):
            raise ValueError("tools.call_start and tools.call_end are two different text ids")
        return self


def load_bundle(directory: Path | str) -> Bundle:
    """Read `directory/aqaa.toml` and make its paths absolute.

    Raises:
        BundleError: no such directory or file, unreadable TOML, or a wrong, missing or unknown key;
            the message names the file and the key.
    """
    root = Path(directory).expanduser().resolve()
    file = root / "aqaa.toml"
    if not file.is_file():
        raise BundleError(f"no aqaa.toml in {root}: name a directory that holds a model bundle")
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{file} is not valid TOML: {error}") from error
    for section in ("tokenizer", "transcriber", "turn", "decoder", "vocoder", "voices"):
        part = data.get(section)
        if isinstance(part, dict):
            part["path"] = root / Path(part.get("path", section)).expanduser()
    try:
        return Bundle.model_validate({**data, "root": root})
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(top)'}: {e['msg']}" for e in error.errors()]
        raise BundleError(f"{file} does not describe a bundle:\n" + "\n".join(lines)) from error


def nano_path() -> Path:
    """The bundle that ships with the package."""
    return Path(__file__).resolve().parent / "nano"
