"""What a barge-in leaves of the assistant's turn: the part of the answer that was heard.

The decoder's text runs ahead of its voice (ten text ids to 0.36 s of sound), so cutting the stream
of ids at the audio that was being played would keep words that nobody heard. The text of the
segment that was being spoken is cut where the sound was, and what is left is woven again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from aqaa.models.bundle import TokensConfig
from aqaa.models.errors import TokenError
from aqaa.models.groups import GROUP_TOKENS
from aqaa.server.dialogue.speaking_rate import spoken_groups
from aqaa.server.dialogue.text_codec import TextCodec


@dataclass(slots=True)
class _Segment:
    """`<audio_start>`...`<audio_end>`, or the whole of an answer that has no markers."""

    text: list[int] = field(default_factory=list)
    audio: list[int] = field(default_factory=list)
    marked: bool = False
    closed: bool = False


def cut_answer(
    ids: Sequence[int], audio_tokens: int, tokens: TokensConfig, text: TextCodec
) -> tuple[int, ...]:
    """The answer `ids` as if the model had said only its first `audio_tokens` audio tokens.

    The group that was being played counts as heard. Within the segment of the cut, words are
    kept in proportion: to the sound that the segment has, or, while it was still being made, to
    the sound that its words need at an ordinary pace. Segments keep their markers; no eot is kept.
    """
    left = -(-audio_tokens // GROUP_TOKENS) * GROUP_TOKENS
    kept: list[int] = []
    for segment in _segments(ids, tokens):
        if left <= 0:
            break
        if len(segment.audio) > left or not segment.closed:
            segment = _cut(segment, left, text)
        left -= len(segment.audio)
        kept += _weave(segment, tokens)
    return tuple(kept)


def heard_ids(ids: Sequence[int], audio_tokens: int, tokens: TokensConfig) -> tuple[int, ...]:
    """The answer `ids` up to its first `audio_tokens` audio tokens, as the model gave it.

    Words that nobody heard are in it, since text runs ahead: from there the model goes on as it
    would have. The group that was being played counts as heard.
    """
    left = -(-audio_tokens // GROUP_TOKENS) * GROUP_TOKENS
    audio = [n for n, one in enumerate(ids) if tokens.audio_offset <= one < tokens.audio_end_id]
    heard = audio[:left]
    return tuple(ids[: heard[-1] + 1]) if heard else ()


def _segments(ids: Sequence[int], tokens: TokensConfig) -> list[_Segment]:
    segments = [_Segment()]
    for token in ids:
        if token == tokens.audio_start:
            segments.append(_Segment(marked=True))
        elif token == tokens.audio_end:
            segments[-1].closed = True
            segments.append(_Segment())
        elif token == tokens.eot:
            segments[-1].closed = True
        elif tokens.audio_offset <= token < tokens.audio_end_id:
            segments[-1].audio.append(token)
        else:
            segments[-1].text.append(token)
    return [segment for segment in segments if segment.text or segment.audio]


def _cut(segment: _Segment, audio_tokens: int, text: TextCodec) -> _Segment:
    audio = segment.audio[:audio_tokens]
    pieces = _pieces(segment.text, text)
    made = len(segment.audio) / GROUP_TOKENS
    whole = made if segment.closed else max(made, spoken_groups("".join(pieces)))
    share = len(audio) / GROUP_TOKENS / whole if whole else 1.0
    # The word in which the cut falls is kept: it was heard in part.
    aim = share * sum(map(len, pieces))
    written = 0
    count = 0
    for piece in pieces:
        if written >= aim and (not piece or piece[0].isspace()):
            break
        written += len(piece)
        count += 1
    return _Segment(segment.text[:count], audio, segment.marked, closed=True)


def _pieces(ids: Sequence[int], text: TextCodec) -> list[str]:
    """The text that each id adds; "" for control ids and for what is no text id."""
    stream = text.stream()
    pieces = []
    for token in ids:
        try:
            pieces.append(stream.push(token))
        except TokenError:
            pieces.append("")
    return pieces


def _weave(segment: _Segment, tokens: TokensConfig) -> list[int]:
    """Blocks of text and audio in turn, as the model weaves them; the markers around."""
    woven: list[int] = []
    t, a = tokens.text_block, tokens.audio_block
    for block in range(max(-(-len(segment.text) // t), -(-len(segment.audio) // a))):
        woven += segment.text[block * t : (block + 1) * t]
        woven += segment.audio[block * a : (block + 1) * a]
    if segment.marked and tokens.audio_start is not None and tokens.audio_end is not None:
        return [tokens.audio_start, *woven, tokens.audio_end]
    return woven
