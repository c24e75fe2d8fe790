"""The vocoder as the rest of the house knows it: voices by name, and a stream for each answer."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from aqaa.models.bundle import VocoderConfig, VoicesConfig
from aqaa.models.errors import BundleError, InputError, StreamClosedError
from aqaa.vocoder.config import MelConfig, load_config
from aqaa.vocoder.loading import load_flow, load_hift
from aqaa.vocoder.noise import KeyedNoise, Noise
from aqaa.vocoder.state import Chunk, Grid, StreamState, due, feed
from aqaa.vocoder.stream import ChunkSynthesiser, Sound
from aqaa.vocoder.voices import Voice, find_voice, load_voices

MIN_SPEED, MAX_SPEED = 0.5, 2.0


class Vocoder:
    """Weights and voices, shared by every stream of every thread."""

    def __init__(
        self, synthesiser: ChunkSynthesiser, mel: MelConfig, voices: Mapping[str, Voice]
    ) -> None:
        self.synthesiser = synthesiser
        self.mel = mel
        self.voices = voices
        self._prompts = {name: synthesiser.prompt(voice) for name, voice in voices.items()}
        noise = KeyedNoise()  # drawn by place: what a voice's streams begin with is constant
        self._starts = {
            name: synthesiser.start(prompt, noise, 1.0) for name, prompt in self._prompts.items()
        }

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
        return VocoderStream(self.synthesiser, self._start(voice, speed, noise))

    def synthesise(self, chunks: Sequence[Chunk]) -> list[tuple[StreamState, Sound]]:
        """What `VocoderStream.take` wants for each of these chunks, which `due` gave."""
        return self.synthesiser.synthesise(chunks)

    def shape_of(self, chunk: Chunk) -> Hashable:
        """Chunks of equal shape are computed faster in one call than one by one."""
        return self.synthesiser.shape_of(chunk)

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
        return self.synthesise([chunk])[0][1] if chunk else np.zeros(0, np.float32)

    def _start(self, voice: str, speed: float, noise: Noise | None) -> StreamState:
        if not MIN_SPEED <= speed <= MAX_SPEED:
            raise InputError(f"speed {speed:g} is not within {MIN_SPEED:g} to {MAX_SPEED:g}")
        name = find_voice(self.voices, voice).name
        if noise is not None:
            return self.synthesiser.start(self._prompts[name], noise, speed)
        start = self._starts[name]
        return replace(start, grid=replace(start.grid, speed=speed))


class VocoderStream:
    """One answer: push groups of audio tokens as they come, then flush.

    The sound does not depend on how the groups are portioned out among pushes: chunks follow the
    bundle's schedule. A stream belongs to one session and is not for two threads at once.

    `push` and `flush` compute here and now. Where chunks are computed elsewhere, `feed` the groups,
    have each chunk that is `due` synthesised, and `take` the result before asking for the next.
    """

    def __init__(self, synthesiser: ChunkSynthesiser, state: StreamState) -> None:
        self._synthesiser = synthesiser
        self._state = state
        self._open = True

    def push(self, tokens: Sequence[int]) -> Sound:
        """Take audio tokens (0 to 5119, whole groups); return the sound that is ready, maybe none.

        Raises:
            TokenError, StreamClosedError: as `feed`.
        """
        self.feed(tokens)
        return self._run(final=False)

    def flush(self) -> Sound:
        """The rest of the sound. All in all, the stream has given `Vocoder.samples(groups)`.

        Raises:
            StreamClosedError: at a second `flush`.
        """
        self._check_open()
        return self._run(final=True)

    def feed(self, tokens: Sequence[int]) -> None:
        """Add audio tokens (0 to 5119, whole groups).

        Raises:
            TokenError: a token outside its codebook, or groups incomplete or out of phase. The
                stream is as it was.
            StreamClosedError: the stream has been flushed.
        """
        self._check_open()
        self._state = feed(self._state, tokens)

    def due(self, *, final: bool = False) -> Chunk | None:
        """The next chunk whose groups are there; None if more must come first.

        With `final` no more come: the last chunk is all that is left, and closes the stream.
        """
        if not self._open:
            return None
        config = self._synthesiser.config
        chunk = due(self._state, config)
        if chunk is None and final:
            self._open = False
            chunk = due(self._state, config, final=True)
        return chunk

    def take(self, synthesised: tuple[StreamState, Sound]) -> Sound:
        """Go on after the chunk that was due; its sound, float32 `[n]` at `Vocoder.rate`."""
        self._state, sound = synthesised
        return sound

    def _run(self, *, final: bool) -> Sound:
        sounds: list[Sound] = [np.zeros(0, np.float32)]
        while chunk := self.due(final=final):
            (synthesised,) = self._synthesiser.synthesise([chunk])
            sounds.append(self.take(synthesised))
        return np.concatenate(sounds)

    def _check_open(self) -> None:
        if not self._open:
            raise StreamClosedError("this answer is over: ask the vocoder for a new stream")
