"""The server's own way from a question's sound to the answer's, with what it cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from aqaa.models.bundle import TOKENIZER_RATE, TokensConfig, load_bundle
from aqaa.models.groups import GROUP_TOKENS, may_stand
from aqaa.recipe.decoder.layout import weave
from aqaa.recipe.speech.voices import Wave
from aqaa.server.dialogue.answer_parser import AnswerParser, AudioGroup, TextDelta, VoiceSwitch
from aqaa.server.dialogue.prompt import AssistantTurn, PromptBuilder, Turn, UserTurn
from aqaa.server.engine.contract import SamplingParams
from aqaa.server.engine.embedded.engine import EmbeddedEngine
from aqaa.server.engine.settings import EmbeddedSettings
from aqaa.tokenizers.dual import DualTokenizer
from aqaa.tokenizers.text import TextTokenizer
from aqaa.tokenizers.transcriber import text_of
from aqaa.tokenizers.transcriber_loading import load_transcriber
from aqaa.vocoder.vocoder import Vocoder

PUSH = TOKENIZER_RATE // 50  # samples: a client sends 20 ms at a time
PAUSES = (0.25, 0.3)  # seconds of silence that a turn detector leaves around a question


@dataclass
class Answer:
    """What came of one question."""

    ids: list[int]
    text: str = ""
    voice: str = ""
    groups: int = 0
    wave: Wave = field(default_factory=lambda: np.zeros(0, np.float32))
    legal: bool = False
    cpu_seconds: float = 0.0


def is_legal(ids: Sequence[int], tokens: TokensConfig) -> bool:
    """Whether `ids` are a whole answer: markers, blocks in their ratio, groups in phase, eot."""
    if (
        len(ids) < 4
        or ids[0] != tokens.audio_start
        or list(ids[-2:]) != [tokens.audio_end, tokens.eot]
    ):
        return False
    inner = ids[1:-2]
    audio = [i - tokens.audio_offset for i in inner if i >= tokens.audio_offset]
    text = [i for i in inner if i < tokens.audio_offset]
    in_phase = len(audio) % GROUP_TOKENS == 0 and all(
        may_stand(code, place) for place, code in enumerate(audio)
    )
    spoken = [code + tokens.audio_offset for code in audio]
    woven = weave(text, spoken, tokens.text_block, tokens.audio_block)
    return bool(audio) and in_phase and woven == list(inner)


class Pipeline:
    """A bundle, loaded as the server loads it. `start` before, `close` after use."""

    def __init__(self, directory: Path) -> None:
        self.bundle = load_bundle(directory)
        self.tokenizer = DualTokenizer.load(self.bundle)
        self.transcriber = load_transcriber(self.bundle, self.tokenizer.linguistic)
        text = TextTokenizer.of(self.bundle)
        self.text = text
        self.prompts = PromptBuilder.of(self.bundle, text)
        self.engine = EmbeddedEngine(
            self.bundle.decoder.path, EmbeddedSettings(), self.bundle.decoder.context
        )
        self.vocoder = Vocoder.load(self.bundle.vocoder, self.bundle.voices)

    async def start(self) -> None:
        """Bring the engine up."""
        await self.engine.start()

    async def close(self) -> None:
        """Take it down."""
        await self.engine.close()

    def hear(self, question: Wave) -> tuple[int, ...]:
        """Decoder ids of a question (16 kHz), streamed as a client would."""
        sound = _within_pauses(question)
        stream = self.tokenizer.stream()
        ids: list[int] = []
        for start in range(0, len(sound), PUSH):
            ids += stream.push(sound[start : start + PUSH])
        ids += stream.flush()
        return tuple(ids)

    def words(self, question: Wave) -> str:
        """What the transcriber writes down of a question (16 kHz); "" where there is none."""
        if self.transcriber is None:
            return ""
        stream = self.transcriber.stream()
        steps = self.tokenizer.windows_of(_within_pauses(question))
        return text_of(p for windows in steps for window in windows for p in stream.push(window))

    async def ask(self, session: str, question: Wave, history: list[Turn]) -> Answer:
        """The answer to `question` after `history`, which both turns are added to."""
        began = time.process_time()
        history.append(UserTurn((self.hear(question),)))
        prompt = self.prompts.finished(history)
        params = SamplingParams.of(self.bundle, seed=0)
        parser = AnswerParser(self.bundle.tokens, self.text)
        answer = Answer([], voice=self.bundle.voices.default)
        sounds: list[Wave] = []
        stream = None
        async for token in self.engine.generate(session, prompt, params):
            answer.ids.append(token)
            for event in parser.push([token]):
                match event:
                    case TextDelta(text):
                        answer.text += text
                    case VoiceSwitch(voice):
                        answer.voice = voice
                    case AudioGroup(tokens):
                        answer.groups += 1
                        if stream is None:
                            stream = self.vocoder.stream(answer.voice)
                        sounds.append(stream.push(tokens))
        for event in parser.finish():
            if isinstance(event, TextDelta):
                answer.text += event.text
        if stream is not None:
            sounds.append(stream.flush())
            answer.wave = np.concatenate(sounds)
        answer.cpu_seconds = time.process_time() - began
        answer.legal = is_legal(answer.ids, self.bundle.tokens)
        history.append(AssistantTurn(tuple(answer.ids)))
        return answer


def _within_pauses(question: Wave) -> Wave:
    lead, tail = (np.zeros(int(pause * TOKENIZER_RATE), np.float32) for pause in PAUSES)
    return np.concatenate([lead, question, tail])
