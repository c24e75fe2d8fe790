"""The vocoder as the server knows it: voices by name, a stream for each answer, chunks in batches.

    stream = vocoder.stream("tingting")
    stream.feed(tokens)
    while chunk := stream.due():
        sound = stream.take(vocoder.synthesise([chunk])[0])

`feed`, `due` and `take` compute nothing; `synthesise` takes the chunks of many streams at a time.
`push` and `flush` are the same in one call, in the caller's thread.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from aqaa.models.bundle import VocoderConfig, VoicesConfig
from aqaa.models.errors import BundleError, InputError, StreamClosedError
from aqaa.models.graphs import batch_sizes
from aqaa.models.groups import GROUP_TOKENS, LINGUISTIC_CODES
from aqaa.vocoder.config import MelConfig, load_config
from aqaa.vocoder.loading import load_flow, load_hift
from aqaa.vocoder.noise import KeyedNoise
from aqaa.vocoder.state import Chunk, Grid, StreamState, advance, due, feed, next_end
from aqaa.vocoder.stream import ChunkSynthesiser, Sound, Synthesised
from aqaa.vocoder.voices import Voice, find_voice, load_voices

MIN_SPEED, MAX_SPEED = 0.5, 2.0
WARM_GROUPS = 160  # 128 groups are a whole number of frames: later ones lie as earlier ones did
WARM_GROUP = [0, 0, LINGUISTIC_CODES, LINGUISTIC_CODES, LINGUISTIC_CODES]


class Vocoder:
    """Weights and voices, shared by every stream of every thread."""

    def __init__(
        self, synthesiser: ChunkSynthesiser, mel: MelConfig, voices: Mapping[str, Voice]
    ) -> None:
        self.synthesiser = synthesiser
        self.mel = mel
        self.voices = voices
        # An answer's beginning is the same for all answers of a voice: computed once.
        self._starts = {
            name: synthesiser.start(synthesiser.prompt(voice), KeyedNoise(), 1.0)
            for name, voice in voices.items()
        }

    @classmethod
    def load(
        cls,
        config: VocoderConfig,
        voices: VoicesConfig,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Vocoder:
        """The vocoder and the voices that a bundle's `[vocoder]` and `[voices]` name.

        Args:
            config: the vocoder's directory and schedule.
            voices: the voices' directory, and who speaks by default.
            device: where the networks compute.
            dtype: what the flow computes in, which is nearly all of the work. HiFT computes in
                float32: its source adds up a phase over the whole answer.

        Raises:
            BundleError: a file is missing, damaged or does not fit, or there is no default voice.
        """
        described = load_config(config.path / "cosyvoice.yaml")
        found = load_voices(voices.path, described)
        if voices.default not in found:
            known = ", ".join(found)
            raise BundleError(f"voices.default is {voices.default!r}, but the voices are: {known}")
        synthesiser = ChunkSynthesiser(
            load_flow(config.path, described.flow).to(device, dtype),
            load_hift(config.path, described.hift).to(device),
            config,
        )
        return cls(synthesiser, described.feat_extractor, found)

    @property
    def rate(self) -> int:
        """Of the sound, in Hz."""
        return self.synthesiser.hift.config.sampling_rate

    @property
    def first_groups(self) -> int:
        """That an answer's first chunk takes, at speed 1."""
        return next_end(self.synthesiser.config, Grid(self.rate, self.synthesiser.hop, 1.0))[0]

    def samples(self, groups: int, speed: float = 1.0) -> int:
        """Samples that `groups` groups of audio tokens become: 2,646 each at speed 1."""
        return Grid(self.rate, self.synthesiser.hop, speed).samples(groups)

    def stream(self, voice: str, speed: float = 1.0) -> VocoderStream:
        """A new answer in `voice`, `speed` times as fast as the tokens say, at the same pitch.

        Computes nothing.

        Raises:
            UnknownVoiceError: the message lists the known ones.
            InputError: `speed` is not within 0.5 to 2.
        """
        return VocoderStream(self, self._begin(voice, speed))

    def synthesise(self, chunks: Sequence[Chunk]) -> list[Synthesised]:
        """What `VocoderStream.take` wants for each chunk, all chunks of one shape in one call."""
        return self.synthesiser.synthesise(chunks)

    def shape_of(self, chunk: Chunk) -> Hashable:
        """Key for batching: chunks of equal shape are computed in one call of each network."""
        return self.synthesiser.shape_of(chunk)

    def whole(self, tokens: Sequence[int], voice: str, speed: float = 1.0) -> Sound:
        """The sound of `tokens` computed in one piece: what a stream is measured against.

        Time and memory grow with the square of the length; long answers are for `stream`.

        Raises:
            UnknownVoiceError, InputError: see `stream`.
            TokenError: see `VocoderStream.feed`.
        """
        state = feed(self._begin(voice, speed), tokens)
        chunk = due(state, self.synthesiser.config, final=True)
        return self.synthesise([chunk])[0][1] if chunk else np.zeros(0, np.float32)

    @property
    def max_batch(self) -> int:
        """Chunks that are computed in one call at most."""
        return self.synthesiser.max_batch

    @property
    def at_once(self) -> int | None:
        """Calls of `synthesise` that are worth making at the same time: one on a GPU; None: any."""
        return 1 if self.synthesiser.fixed_shapes else None

    def warm(self, voice: str, groups: int) -> None:
        """Compute what a first answer would wait for: kernels, buffers, and every CUDA graph.

        Afterwards no more are recorded: what is said at another speed than 1 is computed without.

        Args:
            voice: who speaks; where graphs are recorded, all do, since the lengths of their prompts
                make shapes of their own.
            groups: where none are recorded, so many that the schedule's last chunk size is among
                them.
        """
        synthesiser = self.synthesiser
        if not synthesiser.fixed_shapes:
            stream = self.stream(voice)
            stream.push(WARM_GROUP * groups)
            stream.flush()
            return
        shapes: dict[tuple[int, ...], Chunk] = {}
        for name in self.voices:
            for chunk in self._possible_chunks(name):
                shapes.setdefault(synthesiser.padded_shape(chunk), chunk)
        for size in batch_sizes(self.max_batch):
            for chunk in shapes.values():
                self.synthesise([chunk] * size)
        synthesiser.seal()

    def _possible_chunks(self, voice: str) -> Iterator[Chunk]:
        """Every chunk that an answer at speed 1 can have, wherever it ends; nothing is computed."""
        config = self.synthesiser.config
        state = self._begin(voice, 1.0)
        for _ in range(WARM_GROUPS):
            state = feed(state, WARM_GROUP)
            while chunk := due(state, config):
                yield chunk
                state = advance(chunk, config)
            if last := due(state, config, final=True):
                yield last

    def _begin(self, voice: str, speed: float) -> StreamState:
        if not MIN_SPEED <= speed <= MAX_SPEED:
            raise InputError(f"speed {speed:g} is not within {MIN_SPEED:g} to {MAX_SPEED:g}")
        start = self._starts[find_voice(self.voices, voice).name]
        return replace(start, grid=replace(start.grid, speed=speed))


class VocoderStream:
    """One answer: feed groups of audio tokens as they come, and take the sound of what is due.

    The sound does not depend on how the groups are portioned out: chunks follow the bundle's
    schedule. A stream belongs to one session and is not for two threads at once.
    """

    def __init__(self, vocoder: Vocoder, state: StreamState) -> None:
        self._vocoder = vocoder
        self._state = state
        self._asked: Chunk | None = None  # is being computed
        self._open = True

    def feed(self, tokens: Sequence[int]) -> None:
        """Add audio tokens (0 to 5119, whole groups).

        Raises:
            TokenError: a token outside its codebook, or groups incomplete or out of phase. The
                stream is as it was.
            StreamClosedError: the answer is over.
        """
        self._check_open()
        self._state = feed(self._state, tokens)

    def due(self, *, final: bool = False) -> Chunk | None:
        """The next chunk whose groups are there; with `final`, the rest too, as the last chunk.

        None if more groups must come first, or, with `final`, if nothing is left to say.
        """
        if not self._open:
            return None
        config = self._vocoder.synthesiser.config
        chunk = due(self._state, config)
        if chunk is None and final:
            chunk = due(self._state, config, final=True)
        self._asked = chunk
        return chunk

    def take(self, synthesised: Synthesised) -> Sound:
        """The sound, float32 [n] in [-1, 1], of the chunk that was due, now that it is computed.

        The answer is over with its last chunk. All in all it gives `Vocoder.samples(groups)`.

        Raises:
            StreamClosedError: no chunk is being computed.
        """
        if self._asked is None:
            raise StreamClosedError("no chunk of this answer is being computed")
        state, sound = synthesised
        fed_since = self._state.groups - state.groups
        if fed_since:
            waiting = self._state.tokens[-fed_since * GROUP_TOKENS :]
            state = replace(state, tokens=np.concatenate([state.tokens, waiting]))
        self._state = state
        self._open = not self._asked.last_of_answer
        self._asked = None
        return sound

    def push(self, tokens: Sequence[int]) -> Sound:
        """Add audio tokens and compute what is due; the sound that is ready, maybe none.

        Raises:
            TokenError, StreamClosedError: see `feed`.
        """
        self.feed(tokens)
        return self._compute(final=False)

    def flush(self) -> Sound:
        """The rest of the sound; the answer is over.

        Raises:
            StreamClosedError: it was over before.
        """
        self._check_open()
        sound = self._compute(final=True)
        self._open = False
        return sound

    def _check_open(self) -> None:
        if not self._open:
            raise StreamClosedError("this answer is over: ask the vocoder for a new stream")

    def _compute(self, *, final: bool) -> Sound:
        sounds: list[Sound] = [np.zeros(0, np.float32)]
        while chunk := self.due(final=final):
            sounds.append(self.take(self._vocoder.synthesise([chunk])[0]))
        return np.concatenate(sounds)
