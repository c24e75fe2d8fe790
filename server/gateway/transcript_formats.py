"""A recording's transcript in the forms of OpenAI's `/v1/audio/transcriptions`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from aqaa.server.protocol.types import Json
from aqaa.tokenizers.transcriber import Piece, Word, is_han, text_of, words_of

PAUSE_SECONDS = 0.6  # between words: a new segment
SEGMENT_SECONDS = 6.0  # subtitles are hardly shown for longer
SEGMENT_CHARACTERS = 84  # two lines of 42, as subtitles are usually set


@dataclass(frozen=True)
class Segment:
    """Words that belong together, and when they were said, in seconds."""

    text: str
    start: float
    end: float


def segments_of(words: Sequence[Word]) -> list[Segment]:
    """Words joined to segments, which end at pauses and are no longer than a subtitle."""
    segments: list[Segment] = []
    for word in words:
        if segments and _goes_on(segments[-1], word):
            last = segments[-1]
            blank = "" if is_han(last.text[-1]) or is_han(word.text[0]) else " "
            segments[-1] = Segment(f"{last.text}{blank}{word.text}", last.start, word.end)
        else:
            segments.append(Segment(word.text, word.start, word.end))
    return segments


def _goes_on(segment: Segment, word: Word) -> bool:
    return (
        word.start - segment.end < PAUSE_SECONDS
        and word.end - segment.start <= SEGMENT_SECONDS
        and len(segment.text) + len(word.text) < SEGMENT_CHARACTERS
    )


def subtitles(segments: Sequence[Segment], format: Literal["srt", "vtt"]) -> str:
    """SubRip or WebVTT."""
    comma = "," if format == "srt" else "."
    blocks = [] if format == "srt" else ["WEBVTT\n"]
    for number, segment in enumerate(segments, 1):
        name = f"{number}\n" if format == "srt" else ""
        times = f"{_clock(segment.start, comma)} --> {_clock(segment.end, comma)}"
        blocks.append(f"{name}{times}\n{segment.text}\n")
    return "\n".join(blocks)


def _clock(seconds: float, comma: str) -> str:
    ms = round(seconds * 1000)
    whole, ms = divmod(ms, 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{comma}{ms:03}"


def as_json(pieces: Sequence[Piece], seconds: float, *, logprobs: bool) -> Json:
    """`{text, usage}`, with the pieces' log probabilities if they are wanted."""
    body: Json = {"text": text_of(pieces), "usage": _usage(seconds)}
    return body | {"logprobs": logprobs_of(pieces)} if logprobs else body


def as_verbose_json(
    pieces: Sequence[Piece], seconds: float, *, language: str, words: bool, segments: bool
) -> Json:
    """The transcript with its times. `language` is what was asked for: none is detected."""
    said = words_of(pieces)
    body: Json = {
        "task": "transcribe",
        "language": language,
        "duration": round(seconds, 3),
        "text": text_of(pieces),
        "usage": _usage(seconds),
    }
    if words:
        body["words"] = [
            {"word": one.text, "start": round(one.start, 3), "end": round(one.end, 3)}
            for one in said
        ]
    if segments:
        body["segments"] = [
            {
                "id": number,
                "start": round(segment.start, 3),
                "end": round(segment.end, 3),
                "text": segment.text,
                "avg_logprob": _mean_logprob(pieces, segment),
                "temperature": 0.0,
            }
            for number, segment in enumerate(segments_of(said))
        ]
    return body


def logprobs_of(pieces: Sequence[Piece]) -> list[Json]:
    """How sure the recogniser is of each piece."""
    return [
        {"token": piece.text, "bytes": list(piece.text.encode()), "logprob": piece.logprob}
        for piece in pieces
    ]


def _mean_logprob(pieces: Sequence[Piece], segment: Segment) -> float:
    inside = [p.logprob for p in pieces if segment.start <= p.start < segment.end]
    return round(sum(inside) / len(inside), 4) if inside else 0.0


def _usage(seconds: float) -> Json:
    return {"type": "duration", "seconds": math.ceil(seconds)}
