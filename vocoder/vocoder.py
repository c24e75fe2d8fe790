"""The vocoder as the rest of the house knows it: voices by name, and a stream for each answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from aqaa.models.bundle import VocoderConfig, VoicesConfig
from aqaa.models.errors import BundleError, InputError, StreamClosedError
from aqaa.vocoder.batcher import Batcher
from aqaa.vocoder.config import MelConfig, load_config
from aqaa.vocoder.loading import load_flow, load_hift
from aqaa.vocoder.noise import KeyedNoise, Noise
from aqaa.vocoder.state import Chunk, Grid, StreamState, due, feed
from aqaa.vocoder.stream import ChunkSynthesiser, Sound
from aqaa.vocoder.voices import Voice, find_voice, load_voices

MIN_SPEED, MAX_SPEED = 0.5, 2.0
MAX_BATCH = 8  # chunks in one call; a larger batch costs more time than it saves on a CPU

Synthesise = Callable[[Chunk], tuple[StreamState, Sound]]


class Vocoder:
    """Weights and voices, shared by every stream of every thread.

    Chunks are computed one call at a time, each on all of torch's threads; streams that wait at
    the same time for chunks of one shape are computed in one call.
    """

    def __init__(
        self, synthesiser: ChunkSynthesiser, mel: MelConfig, voices: Mapping[str, Voice]
    ) -> None:
        self.synthesiser = synthesiser
        self.mel = mel
        self.voices = voices
        self._prompts = {name: synthesiser.prompt(voice) for name, voice in voices.items()}
        self._synthesise: Synthesise = Batcher(
            synthesiser.synthesise, synthesiser.shape_of, max_parallel=1, max_batch=MAX_BATCH
        )

    @classmethod
    def load(cls, config: VocoderConfig, voices: VoicesConfig, device: str = "cpu") -> Vocoder:
        """The vocoder and the voices that a bundle's `[vocoder]` and `[voices]` name.

        Raises:
            BundleError: a file is missing, damaged or does not fit, or there is no default voice.
        """
        described = load_config(config.path / "cosyvoice.yaml")
        found = load_voices(voices.path, described)
        if voices.default not in found:
            known = ", ".join(found)
            raise BundleError(f"voices.default is {voices.default!r}, but the voices are: {known}")
        synthesiser = ChunkSynthesiser(
            load_flow(config.path, described.flow).to(device),
            load_hift(config.path, described.hift).to(device),
            config,
        )
        return cls(synthesiser, described.feat_extractor, found)

    @property
    def rate(self) -> int:
        """Of the sound, in Hz."""
        return self.synthesiser.hift.config.sampling_rate

    def samples(self, groups: int, speed: float = 1.0) -> int:
        """Samples that `groups` groups of audio tokens become: 2,646 each at speed 1."""
        return Grid(self.rate, self.synthesiser.hop, speed).samples(groups)

    def stream(
        self, voice: str, speed: float = 1.0, *, noise: Noise | None = None
    ) -> VocoderStream:
        """A new answer in `voice`, `speed` times as fast as the tokens say, at the same pitch.

        Raises:
            UnknownVoiceError: the message lists the known ones.
            InputError: `speed` is not within 0.5 to 2.
        """
        return VocoderStream(
            self._synthesise, self.synthesiser.config, self._start(voice, speed, noise)
        )

    def whole(
        self, tokens: Sequence[int], voice: str, speed: float = 1.0, *, noise: Noise | None = None
    ) -> Sound:
        """The sound of `tokens` computed in one piece: what a stream is measured against.

        Time and memory grow with the square of the length; long answers are for `stream`.

        Raises:
            UnknownVoiceError, InputError: see `stream`.
            TokenError: see `VocoderStream.push`.
        """
        chunk = due(
            feed(self._start(voice, speed, noise), tokens), self.synthesiser.config, final=True
        )
        return self._synthesise(chunk)[1] if chunk else np.zeros(0, np.float32)

    def _start(self, voice: str, speed: float, noise: Noise | None) -> StreamState:
        if not MIN_SPEED <= speed <= MAX_SPEED:
            raise InputError(f"speed {speed:g} is not within {MIN_SPEED:g} to {MAX_SPEED:g}")
        prompt = self._prompts[find_voice(self.voices, voice).name]
        return self.synthesiser.start(prompt, noise or KeyedNoise(), speed)


class VocoderStream:
    """One answer: push groups of audio tokens as they come, then flush.

    The sound does not depend on how the groups are portioned out among pushes: chunks follow the
    bundle's schedule. A stream belongs to one session and is not for two threads at once.
    """

    def __init__(self, synthesise: Synthesise, config: VocoderConfig, state: StreamState) -> None:
        self._synthesise = synthesise
        self._config = config
        self._state = state
        self._open = True

    def push(self, tokens: Sequence[int]) -> Sound:
        """Take audio tokens (0 to 5119, whole groups); return the sound that is ready, maybe none.

        Raises:
            TokenError: a token outside its codebook, or groups incomplete or out of phase. The
                stream is as it was.
            StreamClosedError: after `flush`.
        """
        return self._run(tokens, final=False)

    def flush(self) -> Sound:
        """The rest of the sound. All in all, the stream has given `Vocoder.samples(groups)`.

        Raises:
            StreamClosedError: at a second `flush`.
        """
        sound = self._run([], final=True)
        self._open = False
        return sound

    def _run(self, tokens: Sequence[int], *, final: bool) -> Sound:
        if not self._open:
            raise StreamClosedError("this answer is over: ask the vocoder for a new stream")
        state = feed(self._state, tokens)
        sounds: list[Sound] = [np.zeros(0, np.float32)]
        while chunk := due(state, self._config):
            state, sound = self._synthesise(chunk)
            sounds.append(sound)
        if final and (chunk := due(state, self._config, final=True)):
            state, sound = self._synthesise(chunk)
            sounds.append(sound)
        self._state = state
        return np.concatenate(sounds)
